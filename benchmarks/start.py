"""What `hpcgeo train` does before its first step, for several numbers of ranks on this host.

    python benchmarks/start.py --ranks 1 2 4 8 --rounds 3

Each rank is the real command in a process of its own, with clocks around the functions it calls
anyway. Prints seconds since the start of the process (median over rounds, slowest rank), counts of
process groups and collectives, and with --files what a rank asks of the file system (strace).
"""

import argparse
import functools
import importlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = {
    "interpreter": "process to first line of Python",
    "configuration": "command line, recipe",
    "imports": "torch and what training needs of hpcgeo",
    "data set": "open it",
    "join": "rendezvous and process group",
    "build": "mesh, model, sharding, initial weights",
    "checkpoint": "claim the folder, look for a checkpoint, begin",
    "first step": "read, forward, backward, optimizer, metrics",
}


class FirstStepDone(BaseException):
    """The first step is done."""


def rank(folder: Path, born: float, words: list[str]) -> None:
    """Run the command to its first step; write when each phase ended, and what was counted."""
    ended = {"interpreter": time.time() - born}
    worked = {"interpreter": time.process_time()}

    def mark(phase: str) -> None:
        ended[phase] = time.time() - born
        worked[phase] = time.process_time()

    config = importlib.import_module("hpcgeo.config")
    importlib.import_module("hpcgeo.launch.environment")
    config.load(words[0], words[1:])
    mark("configuration")
    pretrain = importlib.import_module("hpcgeo.train.loop")
    importlib.import_module("hpcgeo.cli.ranks")
    mark("imports")

    import torch.distributed as dist
    from torch.distributed import distributed_c10d as c10d

    def after(module: Any, name: str, phase: str) -> None:
        plain: Callable[..., Any] = getattr(module, name)

        @functools.wraps(plain)
        def timed(*arguments: Any, **named: Any) -> Any:
            answer = plain(*arguments, **named)
            mark(phase)
            return answer

        setattr(module, name, timed)

    after(pretrain, "workload_of", "data set")
    after(pretrain, "join", "join")
    after(pretrain, "build", "build")
    after(pretrain, "begin", "checkpoint")  # on rank 0; the others take it from its broadcast
    before: dict[str, Any] = {}

    class Meter(pretrain.Meter):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            mark("checkpoint")
            groups = list(c10d._world.pg_map)
            before["groups"] = len(groups)
            before["collectives"] = sum(group._get_sequence_number_for_group() for group in groups)
            super().__init__(*arguments, **named)

        def record(self, *arguments: Any, **named: Any) -> bool:
            super().record(*arguments, **named)
            mark("first step")
            raise FirstStepDone

    try:
        pretrain.pretrain(config.load(words[0], words[1:]), Meter)
    except FirstStepDone:
        modules = len(sys.modules)
        told = {"ended": ended, "worked": worked, "modules": modules, **before}
        (folder / f"{dist.get_rank()}.json").write_text(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)  # what ends a rank is not measured here


def start(ranks: int, options: list[str], tracer: list[str]) -> list[dict[str, Any]]:
    """Start the ranks of one run and return what each has written."""
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        folder = Path(temporary)
        processes = []
        for number in range(ranks):
            variables = {"RANK": number, "WORLD_SIZE": ranks, "LOCAL_RANK": number}
            variables |= {"LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1"}
            variables |= {"MASTER_PORT": port, "OMP_NUM_THREADS": 1}
            own = os.environ | {name: str(value) for name, value in variables.items()}
            words = [*tracer, sys.executable, __file__, "--rank", temporary, str(time.time())]
            words += ["mae_vit_tiny", f"run.dir={temporary}/run", *options]
            processes.append(subprocess.Popen(words, env=own, stderr=subprocess.PIPE, text=True))
        for process in processes:
            _, said = process.communicate(timeout=600)
            if process.returncode:
                raise SystemExit(said)
        return [json.loads((folder / f"{number}.json").read_text()) for number in range(ranks)]


def seconds_of(told: list[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of every phase, on the rank where it took longest."""
    spans = []
    for each in told:
        ends = [each["ended"][phase] for phase in PHASES]
        spans.append([end - begin for begin, end in zip([0.0, *ends], ends, strict=False)])
    longest = [max(column) for column in zip(*spans, strict=True)]
    whole = max(each["ended"]["first step"] for each in told)
    return dict(zip(PHASES, longest, strict=True)) | {"all of it": whole}


def spent(told: list[dict[str, Any]], begin: str | None, end: str) -> float:
    """Return the processor seconds between the ends of two phases, on the rank with most."""
    return max(each["worked"][end] - (each["worked"][begin] if begin else 0) for each in told)


def files_of(words: list[str]) -> dict[str, int]:
    """Return how often a program asks the file system for something, failed lookups apart."""
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary, "log")
        tracer = ["strace", "-f", "-qq", "-e", "trace=%file,getdents64", "-o", str(log)]
        subprocess.run([*tracer, *words], check=True, stderr=subprocess.DEVNULL)
        calls = re.findall(r"^\d+ +(\w+)\(.* = (-?\d+)", log.read_text(errors="replace"), re.M)
    counts = Counter(name for name, answer in calls if int(answer) >= 0)
    counts["not found"] = sum(int(answer) < 0 for _, answer in calls)
    return {
        "opened": counts["openat"] + counts["open"],
        "stat": counts["newfstatat"] + counts["stat"] + counts["lstat"] + counts["access"],
        "folders listed": counts["getdents64"],
        "not found": counts["not found"],
        "all": len(calls),
    }


def show_files() -> None:
    """Print what imports ask of the file system; on a large machine every rank asks one server."""
    from rich.console import Console
    from rich.table import Table

    programs = {
        "python": "pass",
        "torch": "import torch",
        "torch, FSDP2, checkpoints": "import torch.distributed.fsdp, torch.distributed.checkpoint",
        "hpcgeo train": "import hpcgeo.cli.ranks, hpcgeo.train.loop",
    }
    table = Table("import", title="asked of the file system, one rank")
    rows = {name: files_of([sys.executable, "-c", text]) for name, text in programs.items()}
    for column in rows["python"]:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{count:,}" for count in row.values()))
    Console().print(table)


def main() -> None:
    """Measure and print."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", action="store_true", help="count file-system calls (strace)")
    parser.add_argument("options", nargs="*", help="key=value, e.g. parallel.strategy=FULL_SHARD")
    options = parser.parse_intermixed_args()
    start(1, options.options, [])  # warms the page cache
    table = Table("phase", "what", title=f"hpcgeo train mae_vit_tiny {' '.join(options.options)}")
    columns = []
    for ranks in options.ranks:
        rounds = [start(ranks, options.options, []) for _ in range(options.rounds)]
        spans = [seconds_of(told) for told in rounds]
        medians = {name: statistics.median(span[name] for span in spans) for name in spans[0]}
        columns.append((medians, rounds[-1]))
        table.add_column(f"{ranks} rank{'s' * (ranks > 1)}", justify="right")
    for phase, what in {**PHASES, "all of it": "slowest rank, start to first step"}.items():
        table.add_row(phase, what, *(f"{medians[phase]:.2f} s" for medians, _ in columns))
    counted = {
        "groups": "process groups a rank is in",
        "collectives": "on the wire before the first step",
        "modules": "Python modules loaded",
    }
    table.add_row(
        *("imports, core", "processor time of a rank: what a busy host does not change"),
        *(f"{spent(told, 'configuration', 'imports'):.2f} s" for _, told in columns),
    )
    table.add_row(
        *("all, core", "likewise, start to first step"),
        *(f"{spent(told, None, 'first step'):.2f} s" for _, told in columns),
    )
    for key, what in counted.items():
        table.add_row(key, what, *(f"{max(each[key] for each in told):,}" for _, told in columns))
    Console().print(table)
    if options.files:
        show_files()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        rank(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
    else:
        main()
