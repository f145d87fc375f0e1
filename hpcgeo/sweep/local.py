"""A sweep measured here, one point after the other: skips what is recorded, records failures."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.records import Record, append
from hpcgeo.sweep.failures import Ending, ending
from hpcgeo.sweep.points import Cell, Point, Sweep, cells, labels
from hpcgeo.sweep.progress import Board
from hpcgeo.sweep.recorded import (
    Known,
    answer,
    failure,
    pending,
    recorded,
    say_measured_again,
    standing,
)
from hpcgeo.train.preflight import problems
from hpcgeo.train.provenance import commit

GRACE_S = 60  # torchrun gives its ranks half of it


def run_sweep(sweep: Sweep, records: Path, *, retry: bool = False) -> Board:
    """Measure what is not recorded yet; return the states of all points.

    A point that cannot exist (a group that does not divide the ranks) is said and left out. Ctrl-C
    ends the ranks that run; what they did is not recorded, the rest is. A wrong input that two
    points in a row have in common ends the sweep.

    Args:
        records: a file of records (.jsonl), or a folder of such files.
        retry: points that ran out of memory are tried again.

    Raises:
        InputError: the points cannot run here, or another sweep writes to `records`.
    """
    every = _here(sweep)
    if not sweep.launch and any((cell.point.nodes or 1) > 1 for cell in every):
        raise InputError(
            "points on several nodes: --submit makes them jobs; inside an allocation give the "
            "sweep a `launch`, such as srun -N {nodes} -n {ranks}"
        )
    file = records if records.suffix == ".jsonl" else records / "records-here.jsonl"
    with alone(file):
        known = Known(sweep, recorded(records), retry=retry)
        say_measured_again(every, known)
        refuse_wrong(sweep, every, known)
        before = len(recorded(file))
        with table(sweep, every, known) as board:
            try:
                with terminated_is_interrupted():
                    before_it = None
                    for index, cell in enumerate(every):
                        wrong = _measure(sweep, cell, known.answers[cell.key], file, board, index)
                        if wrong and wrong == before_it:
                            raise InputError(f"{wrong}: on two points in a row; the sweep ends")
                        before_it = wrong
            except KeyboardInterrupt:
                _interrupted(sweep, every, known, recorded(file)[before:], board)
                raise StoppedError(board) from None
    return board


def plan(sweep: Sweep, records: Path, *, retry: bool = False) -> Board:
    """Return the states of all points; nothing runs."""
    every, known = _here(sweep), Known(sweep, recorded(records), retry=retry)
    say_measured_again(every, known)
    return table(sweep, every, known)


def refuse_wrong(sweep: Sweep, every: Sequence[Cell], known: Known) -> None:
    """Refuse what is wrong with every point that is left, before one is started.

    Raises:
        InputError: the same would stop each of them.
    """
    left = [cell for cell in every if pending(sweep, cell, known.answers[cell.key])]
    shared = problems(left[0].run, left[0].point.ranks) if left else []
    for cell in left[1:]:
        if not shared:
            return
        own = problems(cell.run, cell.point.ranks)
        shared = [line for line in shared if line in own]
    if shared:
        raise InputError("\n".join([*shared, f"so none of {len(left)} points can be measured"]))


class TakenError(InputError):
    """Another sweep is at work on the same records."""


class StoppedError(Exception):
    """The sweep was stopped; the same command goes on.

    Attributes:
        board: the states so far.
    """

    def __init__(self, board: Board) -> None:
        super().__init__("interrupted")
        self.board = board


def existing(sweep: Sweep) -> list[Cell]:
    """Return the cells of a sweep that can exist, and say the others."""
    every, left_out = cells(sweep)
    if commit()[1]:
        log.warning("the code has uncommitted changes: nothing is skipped, now or later")
    for reason in left_out:
        log.info("left out: %s", reason)
    return every


def table(sweep: Sweep, every: Sequence[Cell], known: Known) -> Board:
    """Return the table of cells none of which is at work."""
    return Board(labels(every), [standing(sweep, cell, known) for cell in every])


@contextmanager
def alone(path: Path, who: str = "sweep") -> Iterator[None]:
    """Hold a file, so that two sweeps do not do the same work twice.

    Args:
        who: what does the work.

    Raises:
        TakenError: another one holds it.
        InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"records {path}: {error.strerror}: choose another") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise TakenError(
                    f"another {who} writes to {path}: wait for it, or choose another place"
                ) from None
            _no_lock(path)  # Lustre mounted without flock
        yield


@cache
def _no_lock(path: Path) -> None:
    log.warning("cannot lock %s here: make sure that no other sweep runs", path)  # once


@contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal as Ctrl-C."""
    with _signals(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP):
        yield


@contextmanager
def _signals(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            signal.signal(number, earlier)


def _here(sweep: Sweep) -> list[Cell]:
    if sweep.at_once:
        raise InputError("`at_once` has no effect without --submit: drop it from the sweep")
    return existing(sweep)


def _measure(
    sweep: Sweep, cell: Cell, answers: list[Record], file: Path, board: Board, index: int
) -> str | None:
    """Measure what is pending of a cell; its answers grow. Return what was wrong with its input."""
    while point := pending(sweep, cell, answers):
        board.set(index, "running", point.overrides[-1] if sweep.until_oom else "")
        before = len(recorded(file))
        how = _run(sweep, point, file)
        new = recorded(file)[before:]
        if not new:
            how = how or Ending("failed", "ended well and left no record")
            append(file, failure(sweep, point, how))
            new = recorded(file)[before:]
        if new[-1].status == "failed":
            board.set(index, "failed", new[-1].error or "")
            return how.wrong_input if how else None
        answers += new
        if pending(sweep, cell, answers) == point:  # it would be measured for ever
            board.set(index, "failed", "recorded, but not as asked")
            return None
    if board.rows[index].state == "running":
        board.set(index, *answer(sweep, answers))
    return None


def _interrupted(
    sweep: Sweep, every: Sequence[Cell], known: Known, new: list[Record], board: Board
) -> None:
    """Put into the table what became of the point that ran; it may have ended by itself.

    Args:
        known: what answered before.
        new: what was recorded since.
    """
    fresh = Known(sweep, new, any_code=True)
    for row, cell in zip(board.rows, every, strict=True):
        if row.state == "running":
            answers = [*known.answers[cell.key], *fresh.answers[cell.key]]
            row.state, row.details = "waiting", "interrupted"
            if pending(sweep, cell, answers) is None:
                row.state, row.details = answer(sweep, answers)


def _run(sweep: Sweep, point: Point, file: Path) -> Ending | None:
    """Run one point in processes of its own; return how it ended, None if well."""
    command = [*launcher(point.ranks, sweep.launch, point.nodes or 1), *point.words(sweep, file)]
    # In a session of its own: Ctrl-C comes to this process alone, which ends the ranks in order.
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=60 * sweep.minutes)
    except BaseException as error:
        end(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return Ending("failed", f"no end within the {sweep.minutes:g} `minutes` of the sweep")
    return ending(said, process.returncode) if process.returncode else None


def end(process: subprocess.Popen[Any]) -> None:
    """End a launcher, which takes its ranks along; killed itself, it may leave them running."""
    # So a second Ctrl-C, or a closed terminal, does not hurry it.
    with _signals(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP), process:
        log.info("ending the ranks, which may take up to %d s", GRACE_S)
        try:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=GRACE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def launcher(ranks: int, launch: str | None = None, nodes: int = 1) -> Sequence[str]:
    """Return the words that start `hpcgeo` on some ranks, by torchrun or what stands in front; one
    needs neither."""
    alone = [sys.executable, "-m", "hpcgeo"]
    if launch:
        return [*launch.format(ranks=ranks, nodes=nodes).split(), *alone]
    if ranks == 1:
        return alone
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(ranks), "-m", "hpcgeo"),
    ]
