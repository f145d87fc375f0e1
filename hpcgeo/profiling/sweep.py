"""A sweep measured here, one point after the other: skips what is recorded, records failures."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.profiling.board import Board
from hpcgeo.profiling.ending import Ending, ending
from hpcgeo.profiling.known import Known, answer, failure, pending, recorded, standing
from hpcgeo.profiling.points import Cell, Point, Sweep, cells, labels
from hpcgeo.records import Record, append
from hpcgeo.train.provenance import commit

GRACE_S = 60  # torchrun gives its ranks half of it


def run_sweep(sweep: Sweep, records: Path, *, retry: bool = False) -> Board:
    """Measure what is not recorded yet; return the states of all points.

    A point that cannot exist (a group that does not divide the ranks) is said and left out. Ctrl-C
    ends the ranks that run; what they did is not recorded, the rest is.

    Args:
        records: a file of records (.jsonl), or a folder of such files.
        retry: points that ran out of memory are tried again.

    Raises:
        InputError: the points cannot run here, or another sweep writes to `records`.
    """
    every = existing(sweep)
    if not sweep.launch and any((cell.point.nodes or 1) > 1 for cell in every):
        raise InputError(
            "points on several nodes: --submit makes them Slurm jobs; inside an allocation give "
            "the sweep a `launch`, such as srun -N {nodes} -n {ranks}"
        )
    file = records if records.suffix == ".jsonl" else records / "records-here.jsonl"
    with alone(file):
        known = Known(sweep, recorded(records), retry=retry)
        with table(sweep, every, known) as board:
            try:
                with terminated_is_interrupted():
                    for index, cell in enumerate(every):
                        _measure(sweep, cell, known.answers[cell.key], file, board, index)
            except KeyboardInterrupt:
                _interrupted(sweep, every, file, board)
                raise StoppedError(board) from None
    return board


def plan(sweep: Sweep, records: Path, *, retry: bool = False) -> Board:
    """Return the states of all points; nothing runs."""
    return table(sweep, existing(sweep), Known(sweep, recorded(records), retry=retry))


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
def alone(path: Path) -> Iterator[None]:
    """Hold a file, so that two sweeps do not do the same work twice.

    Raises:
        InputError: another sweep holds it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"records {path}: {error.strerror}: choose another") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another sweep writes to {path}: wait for it, or choose other --records"
            ) from None
        yield


@contextmanager
def terminated_is_interrupted() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal as Ctrl-C."""
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _measure(
    sweep: Sweep, cell: Cell, answers: list[Record], file: Path, board: Board, index: int
) -> None:
    """Measure what is pending of a cell; its answers grow."""
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
            return
        answers += new
    if board.rows[index].state == "running":
        board.set(index, *answer(sweep, answers))


def _interrupted(sweep: Sweep, every: Sequence[Cell], file: Path, board: Board) -> None:
    """Put into the table what became of the point that ran; it may have ended by itself."""
    known = Known(sweep, recorded(file), any_code=True)
    for row, cell in zip(board.rows, every, strict=True):
        if row.state == "running":
            answers = known.answers[cell.key]
            row.state, row.details = "waiting", "interrupted"
            if pending(sweep, cell, answers) is None:
                row.state, row.details = answer(sweep, answers)


def _run(sweep: Sweep, point: Point, file: Path) -> Ending | None:
    """Run one point in processes of its own; return how it ended, None if well."""
    command = [*_launcher(sweep, point), *point.words(sweep, file)]
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
        # The launcher takes its ranks along; killed itself, it would leave them running.
        process.terminate()
        try:
            process.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return Ending("failed", f"no end within the {sweep.minutes:g} `minutes` of the sweep")
    return ending(said, process.returncode) if process.returncode else None


def _launcher(sweep: Sweep, point: Point) -> Sequence[str]:
    if sweep.launch:
        filled = sweep.launch.format(ranks=point.ranks, nodes=point.nodes or 1)
        return [*filled.split(), sys.executable, "-m", "hpcgeo"]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(point.ranks), "-m", "hpcgeo"),
    ]
