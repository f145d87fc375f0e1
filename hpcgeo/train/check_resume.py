"""The self-test of exact resume: n steps, save, load, n steps = 2n steps, bit by bit."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpcgeo.checkpoint.checkpoints import Checkpoints
from hpcgeo.checkpoint.planning import local_pieces
from hpcgeo.config import RunConfig
from hpcgeo.errors import InputError
from hpcgeo.launch.environment import discover
from hpcgeo.log import log
from hpcgeo.parallel.group import on_rank_0
from hpcgeo.train.faults import explained
from hpcgeo.train.job import Parts
from hpcgeo.train.loop import build, new_engine, one_step
from hpcgeo.train.schedule import frozen, learning_rate
from hpcgeo.train.watchdog import Watchdog

#: The largest difference that passes, by type of device. A GPU adds up gradients in an order that
#: changes from run to run (atomic additions), so not even two uninterrupted runs are the same bits.
TOLERANCE = {"cpu": 0.0, "cuda": 1e-4}

#: In the place of an engine whose memory the next one needs.
NONE: Any = None


@dataclass(frozen=True, order=True)
class Difference:
    """The largest difference of one kind of number, and where it was found."""

    size: float
    where: str


def check_resume(run: RunConfig, steps: int) -> bool:
    """Return whether an interrupted run is the uninterrupted one; rank 0 logs a table.

    Every rank calls it. Each half has a model and a loader built anew; losses and every shard of
    parameters and optimizer that a rank holds are compared on that rank. What is written lies in a
    folder beside run.dir, and is removed.

    Args:
        steps: of one half.

    Raises:
        InputError: the run is shorter than both halves, or cannot be built.
    """
    if 2 * steps > run.train.steps:
        raise InputError(
            f"--check-resume {steps} needs {2 * steps} steps, the run has train.steps "
            f"{run.train.steps}: check fewer, or train longer"
        )
    environment = discover()
    with (
        Watchdog(environment, run.train.hang_timeout_s) as watchdog,
        explained(watchdog.place, watchdog.first),
    ):
        return _check(run, steps, build(run, environment, watchdog), watchdog)


def _check(run: RunConfig, steps: int, parts: Parts, watchdog: Watchdog) -> bool:
    folder = Path(on_rank_0(lambda: _folder_beside(run.run.dir)))
    try:
        losses, pieces = _train(run, parts, watchdog, range(2 * steps)), _copied(parts)
        parts = replace(parts, engine=NONE)
        resumed_losses, resumed_pieces = _interrupted(run, parts, watchdog, steps, folder)
    finally:
        if dist.get_rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)
    tolerance = TOLERANCE[parts.topology.device.type]
    kinds = {
        "loss": (losses, resumed_losses),
        "parameters": tuple(_of_kind(p, "model.") for p in (pieces, resumed_pieces)),
        "optimizer": tuple(_of_kind(p, "optimizer.") for p in (pieces, resumed_pieces)),
    }
    equal, rows = [], [f"{'':12}{'':12}{'largest difference'}"]
    for kind, (expected, found) in kinds.items():
        worst = _over_ranks(_largest_difference(expected, found))
        equal.append(worst.size <= tolerance)
        verdict = "equal" if equal[-1] else "DIFFERENT"
        rows.append(f"{kind:12}{verdict:12}{worst.size:<10.3g}{worst.where}")
    log.info(
        "%d steps, saved, loaded, %d steps, against %d steps; tolerance %g\n%s",
        *(steps, steps, 2 * steps, tolerance),
        "\n".join(rows),
    )
    return all(equal)


def _interrupted(
    run: RunConfig, parts: Parts, watchdog: Watchdog, steps: int, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    data = parts.workload.dataset.fingerprint
    checkpoints = Checkpoints(folder, run.checkpoint, global_batch=parts.global_batch, data=data)
    losses: dict[str, Any] = {}
    for first_step in (0, steps):
        parts = replace(parts, engine=NONE)
        parts = replace(parts, engine=new_engine(run, parts.workload, parts.topology))
        if first_step:
            assert checkpoints.restore(parts.engine) == first_step
        losses |= _train(run, parts, watchdog, range(first_step, first_step + steps))
        if not first_step:
            checkpoints.save(steps, parts.engine)
            checkpoints.wait()
    return losses, _copied(parts)


def _train(run: RunConfig, parts: Parts, watchdog: Watchdog, steps: range) -> dict[str, Any]:
    """Return this rank's losses by step."""
    batches = watchdog.reading(iter(parts.workload.batches(parts.topology, steps.start)))
    found: dict[str, Any] = {}
    for step in steps:
        lr = learning_rate(step, run.train.steps, parts.global_batch, run.optim)
        parts.engine.frozen = frozen(step, run.optim)
        losses, _ = one_step(parts, islice(batches, run.train.accumulate), lr)
        found[f"step {step + 1}"] = losses["loss"].detach().cpu()
    return found


def _copied(parts: Parts) -> dict[str, Any]:
    return {
        name: piece.detach().cpu().clone() if isinstance(piece, Tensor) else piece
        for name, piece in local_pieces(parts.engine.state()).items()
    }


def _of_kind(pieces: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name: piece for name, piece in pieces.items() if name.startswith(prefix)}


def _largest_difference(expected: dict[str, Any], found: dict[str, Any]) -> Difference:
    missing = expected.keys() ^ found.keys()
    if missing:
        return Difference(torch.inf, f"{min(missing)} is in one run alone")
    return max(
        (Difference(_difference(expected[name], found[name]), name) for name in expected),
        default=Difference(0.0, ""),
    )


def _difference(a: Any, b: Any) -> float:
    if not isinstance(a, Tensor):
        return 0.0 if a == b else torch.inf
    if torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8)):
        return 0.0
    difference = (a.double() - b.double()).abs().nan_to_num(torch.inf).max().item()
    return difference or torch.finfo(torch.float64).tiny  # zeros of another sign are other bits


def _over_ranks(mine: Difference) -> Difference:
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, mine)
    rank, worst = max(enumerate(of_ranks), key=lambda of_rank: (of_rank[1].size, -of_rank[0]))
    return replace(worst, where=f"{worst.where} on rank {rank}" if worst.size else "")


def _folder_beside(run_dir: Path) -> str:
    try:
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(prefix=f".{run_dir.name}-check-", dir=run_dir.parent)
    except OSError as error:
        raise InputError(f"run.dir {run_dir}: {error.strerror}: choose another") from None
