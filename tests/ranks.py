"""Real ranks of `hpcgeo train`, each a process of its own, and what they leave."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import EXEC, Process

Rank = Process | subprocess.Popen[str]

STEPS = 40
SMALL = [
    "data.chip=32",
    f"train.steps={STEPS}",
    "train.log_every=1",
    "optim.warmup_steps=2",
    "checkpoint.every=4",
]
#: All ranks that were started, for a test that ends before they do.
STARTED: list[Rank] = []


@dataclass(frozen=True)
class Own:
    """What one rank gets for itself; with variables it is started by the real command."""

    options: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    site: Path | None = None  #: a folder of installed packages


def start(
    folder: Path, ranks: int, *options: str, only: Mapping[int, Own] | None = None
) -> list[Rank]:
    """Start the ranks of a run of a tiny MAE, with a global batch of 16.

    `only` starts these ranks alone, each with options, variables and a folder to run in of its own.
    """
    words = ["train", "mae_vit_tiny", f"run.dir={folder}", f"train.micro_batch={16 // ranks}"]
    return launch(ranks, *words, *SMALL, *options, only=only)


def launch(
    ranks: int,
    *words: object,
    only: Mapping[int, Own] | None = None,
    before: Callable[[], object] | None = None,
) -> list[Rank]:
    """Start the ranks of a command, each a process of its own that torchrun might have started.

    `before` is called first in each of them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes: list[Rank] = []
    for rank, mine in (only or dict.fromkeys(range(ranks), Own())).items():
        variables = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank}
        variables |= {"LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables |= mine.variables
        if mine.site:
            paths = [str(mine.site), os.environ.get("PYTHONPATH", "")]
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        own = os.environ | {name: str(value) for name, value in variables.items()}
        said = [*map(str, words), *mine.options]
        if mine.variables:
            processes.append(
                subprocess.Popen(
                    [*EXEC, *said], env=own, cwd=mine.cwd, stderr=subprocess.PIPE, text=True
                )
            )
        else:
            processes.append(Process(*said, env=own, cwd=mine.cwd, before=before))
    STARTED.extend(processes)
    return processes


def train(folder: Path, ranks: int, *options: str) -> tuple[int, str]:
    """Run to the end; return the worst exit code and what rank 0 said."""
    return ended(start(folder, ranks, *options))


def ended(ranks: Sequence[Rank]) -> tuple[int, str]:
    """Wait for ranks to end; return the worst exit code and what rank 0 said."""
    said = [rank.communicate(timeout=200)[1] for rank in ranks]
    return max(rank.returncode or 0 for rank in ranks), said[0]


def metrics(folder: Path) -> list[dict[str, float]]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_step(process: Rank, folder: Path, step: int) -> None:
    """Wait for a step, and for the first checkpoint of `SMALL`, which is written behind steps."""
    limit = time.monotonic() + 200
    saved = folder / "checkpoints"
    while (
        not (rows := metrics(folder))
        or rows[-1]["step"] < step
        or (step > 4 and not any(saved.glob("step-????????")))
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "the run did not get there"
        time.sleep(0.02)


def end(ranks: Sequence[Rank]) -> list[str]:
    """Wait for ranks to end; return what each said."""
    return [rank.communicate(timeout=200)[1] for rank in ranks]


def tell(fault: str, said: str, began: float, code: int) -> None:
    """Print a line of the table of faults; seen with ``pytest -s``."""
    (line, *_) = [line for line in said.splitlines() if "hpcgeo: " in line]
    print(f"\n{fault} | {line} | {time.monotonic() - began:.1f} s | {code}")
