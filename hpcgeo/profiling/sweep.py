"""A grid of profile runs: skips what is recorded, goes on after a failure and records it."""

import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from hpcgeo.config import SYNTHETIC, RunConfig
from hpcgeo.errors import InputError
from hpcgeo.log import log, track
from hpcgeo.profiling.profiler import configure
from hpcgeo.records import Record, append, read
from hpcgeo.strategies import strategy
from hpcgeo.tables import parse
from hpcgeo.train.provenance import commit, versions
from hpcgeo.train.record import stated

TIMEOUT_S = 3600
GRACE_S = 60  # torchrun gives its ranks half of it


class Sweep(BaseModel):
    """A sweep file. Keys of `set` and `grid` are dotted knobs, or a group with several knobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    steps: PositiveInt = 20
    warmup: PositiveInt = 5
    #: Command in front, with {ranks} and {nodes}; None: torchrun here.
    launch: str | None = Field(None, pattern=r"^([^{}]|\{ranks\}|\{nodes\})+$")
    ranks_per_node: PositiveInt | None = None  #: None: all ranks on one node
    set: dict[str, Any] = {}
    ranks: list[Annotated[PositiveInt, Field(le=2**20)]]
    grid: dict[str, list[Any]]
    overrides: tuple[str, ...] = ()

    def nodes(self, ranks: int) -> int:
        """Return how many nodes so many ranks fill."""
        return -(-ranks // self.ranks_per_node) if self.ranks_per_node else 1


@dataclass(frozen=True)
class Point:
    """One cell of the grid."""

    ranks: int
    overrides: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.ranks} ranks, {', '.join(self.overrides)}"


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file.

    Args:
        path: of the YAML file.
        overrides: ``key=value``, on top of `set`.

    Raises:
        InputError: no such file, or a line that breaks a rule.
    """
    try:
        sweep = Sweep.model_validate(parse(path.read_text("utf-8"), f"sweep {path}"))
        return sweep.model_copy(update={"overrides": tuple(overrides)})
    except OSError as error:
        raise InputError(f"sweep {path}: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(f"sweep {path}: {error}") from None


def points(sweep: Sweep) -> Iterator[Point]:
    """Yield every cell of the grid, ranks outermost."""
    for ranks in sweep.ranks:
        for values in itertools.product(*sweep.grid.values()):
            chosen = sweep.set | dict(zip(sweep.grid, values, strict=True))
            yield Point(ranks, (*_overrides(chosen), *sweep.overrides))


def run_sweep(sweep: Sweep, records: Path) -> tuple[int, int]:
    """Run what is not recorded yet; return how many points were measured and how many failed.

    A point that cannot exist (a group that does not divide the ranks) is said and left out.
    """
    known = read([records]) if records.exists() else []
    todo = []
    for point in points(sweep):
        run = configure(sweep.recipe, point.overrides, sweep.steps, sweep.warmup, Path("unused"))
        chosen = strategy(run.parallel.strategy)
        try:
            chosen.layout(point.ranks, dict(run.parallel))
        except InputError as error:
            if run.parallel.group_size is None and run.parallel.tensor == 1:
                raise  # no question of how many ranks
            log.info("left out: %s: %s", point, error)
            continue
        if any(_same(record, run, point.ranks) for record in known):
            log.info("recorded: %s", point)
        else:
            todo.append((point, run))
    failed = 0
    for point, run in track(todo, "sweep", len(todo)):
        cause = _run(sweep, point, records)
        if cause:
            failed += 1
            log.warning("failed: %s: %s", point, cause)
            append(records, _failure(sweep, run, point, cause))
        else:
            log.info("measured: %s", point)
    return len(todo) - failed, failed


def _overrides(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _overrides(value, f"{prefix}{key}.")
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6).splitlines()[0]
            yield f"{prefix}{key}={text}"


def _same(record: Record, run: RunConfig, ranks: int) -> bool:
    """Return whether a record is this point, measured by this very code.

    A tree with uncommitted changes may be any code; a failure may have been the machine's.
    """
    if record.status != "ok" or record.dirty:
        return False
    config = run.model_dump(mode="json", exclude={"run"})
    here = (ranks, config, *commit(), versions())
    known = (record.world_size, record.config, record.commit, record.dirty, record.versions)
    return here == known


def _run(sweep: Sweep, point: Point, records: Path) -> str | None:
    """Run one point in processes of its own; return why it failed, or None."""
    command = [
        *_launcher(sweep, point.ranks),
        *("profile", "run", sweep.recipe, *point.overrides),
        *("--steps", str(sweep.steps), "--warmup", str(sweep.warmup), "--records", str(records)),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # The launcher takes its ranks along; killed itself, it would leave them running.
        process.terminate()
        try:
            process.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return f"no end within {TIMEOUT_S} s"
    if not process.returncode:
        return None
    said = [line for line in errors.splitlines() if line.startswith("hpcgeo: ")]
    said.sort(key=lambda line: "lost the other ranks" in line)  # the cause before what followed
    return said[0].removeprefix("hpcgeo: ") if said else f"exit code {process.returncode}"


def _launcher(sweep: Sweep, ranks: int) -> Sequence[str]:
    if sweep.launch:
        filled = sweep.launch.format(ranks=ranks, nodes=sweep.nodes(ranks))
        return [*filled.split(), sys.executable, "-m", "hpcgeo"]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(ranks), "-m", "hpcgeo"),
    ]


def _failure(sweep: Sweep, run: RunConfig, point: Point, error: str) -> Record:
    fields = stated(run, point.ranks)
    del fields["config"]["run"]
    return Record(
        status="failed",
        error=error,
        device="not started",
        nodes=sweep.nodes(point.ranks),
        data=SYNTHETIC if run.data.path == SYNTHETIC else "shards",
        **fields,
    )
