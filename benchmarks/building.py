"""Host memory to build a sharded model: the peak of each rank against its shard of the parameters.

    python benchmarks/building.py --model vit_3b --ranks 4 --dtype bfloat16

Every rank is a process of its own on gloo; the model is spread by FULL_SHARD, from the meta device
to initialised weights. Prints the peak beyond what the process held before, in shards.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich import print
from rich.table import Table

from hpcgeo.models.initialise import draw
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.options import Parallel
from hpcgeo.parallel.parallelise import local, parallelise
from hpcgeo.parallel.topology import lay_out
from hpcgeo.strategies import strategy
from hpcgeo.zoo import architecture

GIB = 2**30


def resident() -> int:
    """Return the bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def build(rank: int, options: argparse.Namespace, store: str, answers: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=options.ranks
    )
    chosen, parallel = strategy("FULL_SHARD"), Parallel(strategy="FULL_SHARD")
    layout = chosen.layout(options.ranks, dict(parallel))
    topology = lay_out(rank, rank, "host", torch.device("cpu"), chosen, layout)
    before, begin = resident(), time.perf_counter()
    with torch.device("meta"):
        objective = MAE(architecture(options.model), 3, MaeOptions())
    objective.to(getattr(torch, options.dtype))
    parallelise(objective, topology, parallel, torch.bfloat16, partial(draw, seed=0))
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    held = sum(local(p).numel() * p.element_size() for p in objective.parameters())
    whole = sum(p.numel() * p.element_size() for p in objective.parameters())
    answers.put((rank, whole, held, peak, seconds))
    dist.barrier()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="vit_3b")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            context.Process(target=build, args=(rank, options, f"{folder}/store", answers))
            for rank in range(options.ranks)
        ]
        for process in ranks:
            process.start()
        rows = sorted(answers.get() for _ in ranks)
        for process in ranks:
            process.join()
    table = Table("rank", "shard GiB", "held GiB", "peak GiB", "peak / shard", "seconds")
    for rank, whole, held, peak, seconds in rows:
        share = whole / options.ranks
        table.add_row(
            str(rank),
            *(f"{value / GIB:.3f}" for value in (share, held, peak)),
            f"{peak / share:.3f}",
            f"{seconds:.0f}",
        )
    print(table)


if __name__ == "__main__":
    main()
