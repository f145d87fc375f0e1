"""What a checkpoint costs, side by side in one run: plain write, synchronous save, asynchronous.

`plain` writes as many bytes per rank as the checkpoint has, with numpy, and flushes them to disk;
`blocked` is how long the training stands still for an asynchronous save, `whole` how long that save
takes while training steps run beside it; `digest` is the SHA-256 of the same bytes alone. The four
take turns, so that all of them see the same disk; the slowest rank counts.

    python benchmarks/checkpoint.py FOLDER [--ranks 1 2] [--model vit_base] [--rounds 5]
"""

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hpcgeo.checkpoint.checkpoints import Checkpoints
from hpcgeo.job_options import Checkpoint
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.options import Optim, Parallel
from hpcgeo.parallel.native import NativeEngine
from hpcgeo.parallel.topology import lay_out
from hpcgeo.strategies import strategy
from hpcgeo.zoo import architecture

CHIP = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="on the file system to measure")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", default="vit_base")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for ranks in options.ranks:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        mp.spawn(measure, (ranks, options.folder, options.model, options.rounds), ranks)


def measure(rank: int, ranks: int, folder: Path, model: str, rounds: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    chosen, parallel = strategy("FULL_SHARD"), Parallel(strategy="FULL_SHARD")
    layout = chosen.layout(ranks, dict(parallel))
    with torch.device("meta"):
        objective = MAE(architecture(model), 3, MaeOptions())
    engine = NativeEngine(
        objective,
        lay_out(rank, rank, "host", torch.device("cpu"), chosen, layout),
        parallel=parallel,
        optim=Optim(),
        dtype=torch.float32,
        accumulate=1,
        initial=partial(draw, seed=0),
    )
    patches = architecture(model).num_patches((CHIP, CHIP))
    inputs = {"images": torch.randn(1, 3, CHIP, CHIP), "noise": torch.rand(1, patches)}

    def step() -> None:
        engine.forward_backward([inputs])
        engine.step(1e-4)

    def slowest(action: Callable[[], object]) -> float:
        dist.barrier()
        begin = time.perf_counter()
        action()
        seconds = torch.tensor(time.perf_counter() - begin, dtype=torch.float64)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        return seconds.item()

    later, at_once = (
        Checkpoints(
            folder / name, Checkpoint(asynchronous=name == "later", keep=1), global_batch=1, data=""
        )
        for name in ("later", "at_once")
    )
    times: dict[str, list[float]] = {}
    alone, beside = [], []
    for number in range(1, rounds + 2):  # the first round fills caches and buffers
        os.sync()
        row = {"synchronous": slowest(partial(at_once.save, number, engine))}
        path = folder / f"at_once/step-{number:08d}/rank-{rank:05d}.safetensors"
        content = np.fromfile(path, np.uint8)
        os.sync()
        row["plain"] = slowest(partial(plain, folder / f"plain-{rank}", content))
        row["digest"] = slowest(partial(hashlib.sha256, content))
        alone.append(slowest(step))
        os.sync()
        row["blocked"] = slowest(partial(later.save, number, engine))
        begin = time.perf_counter()
        running = 1.0
        while running:
            beside.append(slowest(step))
            flag = torch.tensor(float(not later._under_way.done()))
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            running = flag.item()
        row["whole"] = row["blocked"] + time.perf_counter() - begin
        later.wait()
        if number > 1:
            for name, seconds in row.items():
                times.setdefault(name, []).append(seconds)
    if rank == 0:
        size = content.nbytes * ranks / 1e9
        print(f"\n{model}, {size:.2f} GB on {ranks} ranks: seconds, median (least to most)")
        for name, seconds in times.items():
            low, high = min(seconds), max(seconds)
            print(f"  {name:12} {statistics.median(seconds):6.3f}  ({low:.3f} to {high:.3f})")
        middle = {name: statistics.median(seconds) for name, seconds in times.items()}
        print(f"  blocked / synchronous     {middle['blocked'] / middle['synchronous']:.2f}")
        print(f"  plain / synchronous       {middle['plain'] / middle['synchronous']:.2f}")
        print(
            f"  a step takes {statistics.median(alone):.3f} s alone, "
            f"{statistics.median(beside):.3f} s beside a save"
        )
        shutil.rmtree(folder)
    dist.barrier()
    os._exit(0)


def plain(path: Path, content: np.ndarray) -> None:
    with path.open("wb", buffering=0) as file:
        content.tofile(file)
        os.fsync(file.fileno())
    path.unlink()


if __name__ == "__main__":
    main()
