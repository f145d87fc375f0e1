"""A sweep as jobs: an array for every node count; says its cost, submits nothing twice."""

import math
import re
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.launch import scripts
from hpcgeo.launch.schedulers.scheduler import InDoubtError, Queued, Scheduler
from hpcgeo.launch.schedulers.table import scheduler, scheduler_of
from hpcgeo.log import log
from hpcgeo.machines import machine
from hpcgeo.sweep.batch import Contents, JobBatch
from hpcgeo.sweep.local import StoppedError, TakenError, alone, existing, refuse_wrong, table
from hpcgeo.sweep.points import Cell, Sweep, cell_of
from hpcgeo.sweep.progress import Board
from hpcgeo.sweep.recorded import Known, answer, pending, recorded, say_measured_again
from hpcgeo.train.provenance import commit

POLL_S = 30.0  # and more often for the first minutes


@dataclass(frozen=True)
class Planned:
    """One array to submit."""

    job: scripts.Job
    per_node: int
    cells: tuple[Cell, ...]
    folder: Path
    script: str

    @property
    def scheduler(self) -> Scheduler:
        """Where it is submitted."""
        return scheduler_of(machine(self.job.machine))

    @property
    def node_hours(self) -> float:
        """What it costs at most."""
        return len(self.cells) * self.job.nodes * self.job.hours

    @property
    def queue(self) -> str:
        """The bin of the machine's queue that it falls into."""
        bin_ = machine(self.job.machine).bin(self.job.nodes, self.job.hours)
        return f"to {bin_.nodes} nodes, {bin_.hours:g} h" if bin_ else "no limit known"


@dataclass(frozen=True)
class JobTask:
    """A task of ours in the queue."""

    batch: JobBatch
    queued: Queued


class Jobs:
    """A sweep in the queue and in its folder of records.

    Attributes:
        cells: all points.
        queued: tasks that wait or run, by the key of their cell.
        ending: keys of cells whose task has left the queue and whose end is not known yet.
        planned: the jobs of what is neither recorded nor queued nor ending.
    """

    def __init__(self, sweep: Sweep, records: Path, name: str, *, retry: bool = False) -> None:
        """Look; nothing is written or submitted.

        Args:
            records: a folder.
            name: of the sweep, for the names of jobs.
            retry: points that ran out of memory are tried again.

        Raises:
            InputError: the points cannot be jobs, or their scheduler is unknown or gives no answer.
        """
        if sweep.launch:
            raise InputError("`launch` has no effect with --submit: drop it from the sweep")
        if records.suffix == ".jsonl" or records.is_file():
            raise InputError(
                f"--records {records} is one file, and jobs that run at once write one each: name "
                f"a folder"
            )
        self.sweep, self.records, self.retry = sweep, records, retry
        self.name = re.sub(r"[^\w.-]", "_", name)
        self.cells = existing(sweep)
        self._keys: dict[tuple[str, int], str] = {}
        self.look()
        say_measured_again(self.cells, self.known)

    def look(self) -> None:
        """See what is submitted, in the queue and recorded, and plan what is left."""
        folders = sorted(path.parent for path in self.records.glob("jobs/*/batch.json"))
        self.batches = [JobBatch(folder) for folder in folders]
        self.queued = self._queue()
        self.ending = {
            self._key(batch, number)
            for batch in self.batches
            if batch.contents.sweep.until_oom == self.sweep.until_oom
            for number in batch.unsettled(self._numbers(batch))
        } - self.queued.keys()
        self.known = Known(self.sweep, recorded(self.records), retry=self.retry)
        self.planned = list(self._plan())

    @property
    def node_hours(self) -> float:
        """What the planned jobs cost at most."""
        return round(sum(job.node_hours for job in self.planned), 6)

    def plan(self) -> str:
        """Return the planned jobs as a table, with their sum."""
        rows = [("nodes", "ranks", "points", "walltime", "queue", "node-hours")]
        for planned in self.planned:
            job, count = planned.job, len(planned.cells)
            ranks = job.nodes * planned.per_node
            cost = f"{planned.node_hours:.4g}"
            rows.append((f"{job.nodes}", f"{ranks}", f"{count}", job.time, planned.queue, cost))
        count = sum(len(planned.cells) for planned in self.planned)
        rows.append(("total", "", f"{count}", "", "", f"{self.node_hours:.4g}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        )

    def settle(self) -> None:
        """Record what became of tasks that ended and could not say it; then look again."""
        self.look()
        for batch in self.batches:
            batch.settle(self._numbers(batch))
        self.look()

    def afford(self, budget: float) -> None:
        """Hold the planned jobs against a budget.

        Args:
            budget: node-hours that they may cost.

        Raises:
            InputError: they may cost more.
        """
        afford(self.node_hours, budget, "fewer points, or fewer `minutes` a point")

    def submit(self, budget: float, options: str = "") -> None:
        """Submit the planned jobs.

        Args:
            budget: node-hours that they may cost.
            options: for the command that submits, such as ``-A PROJECT``.

        Raises:
            InputError: they may cost more, the code has uncommitted changes, or one is refused
                (those before it are submitted).
        """
        self.afford(budget)
        refuse_wrong(self.sweep, [cell for one in self.planned for cell in one.cells], self.known)
        refuse_changes("what it measures would never be skipped")
        for done, planned in enumerate(self.planned):
            points = [cell.point for cell in planned.cells]
            contents = Contents(
                sweep=self.sweep,
                retry=self.retry,
                points=points,
                scheduler=planned.scheduler.name,
            )
            batch = JobBatch.write(planned.folder, contents, planned.script)
            try:
                planned.scheduler.submit(batch.script, planned.job.name, options)
            except InputError as error:
                doubt = ", and one may be: wait a minute"
                if not isinstance(error, InDoubtError):
                    doubt = ""
                    shutil.rmtree(planned.folder)  # else the next call finds the job by it
                raise InputError(
                    f"{error}; {done} of {len(self.planned)} jobs are submitted{doubt}; the same "
                    f"command goes on"
                ) from None
            self.batches.append(batch)
        self.planned = []
        self.queued = self._queue()

    def watch(self) -> Board:
        """Show the jobs until the last one has ended; Ctrl-C leaves them in the queue.

        Raises:
            StoppedError: by Ctrl-C.
        """
        # What these measure is shown, whatever the code was when they did.
        queued = {task.batch.folder for task in self.queued.values()}
        ours = [
            batch
            for batch in self.batches
            if batch.folder in queued or batch.unsettled(self._numbers(batch))
        ]
        board = self.board()
        with board:
            try:
                began = time.monotonic()
                while not self._ended(ours, board):
                    time.sleep(max(1.0, min(POLL_S, (time.monotonic() - began) / 20)))
                return board
            except KeyboardInterrupt:
                raise StoppedError(board) from None

    def _ended(self, ours: list[JobBatch], board: Board) -> bool:
        """Show where our jobs are; return whether the last one has ended and settled."""
        try:
            self.queued = self._queue()
        except InputError as error:
            log.warning("%s; the jobs go on, it is asked again", error)
            return False
        try:
            with alone(self.records / "lock"):
                for batch in ours:
                    batch.settle(self._numbers(batch))
        except TakenError:
            pass  # another call settles
        fresh = [record for batch in ours for record in batch.records()]
        self._show(board, Known(self.sweep, fresh, any_code=True))
        ending = any(batch.unsettled(self._numbers(batch)) for batch in ours)
        return not self.queued and not ending

    def board(self) -> Board:
        """Return the states of all points."""
        board = table(self.sweep, self.cells, self.known)
        for row, cell in zip(board.rows, self.cells, strict=True):
            if task := self.queued.get(cell.key):
                row.state, row.details = _state(task)
            elif cell.key in self.ending and row.state in ("waiting", "failed"):
                row.state, row.details = "waiting", "still ending: call again"
        return board

    def cancel(self) -> int:
        """Take the jobs out of the queue; return how many tasks there were."""
        by_name: defaultdict[str, list[str]] = defaultdict(list)
        for task in self.queued.values():
            by_name[task.batch.contents.scheduler].append(task.queued.job)
        for name, tasks in by_name.items():
            scheduler(name).cancel(tasks)
        return len(self.queued)

    def _show(self, board: Board, fresh: Known) -> None:
        for index, cell in enumerate(self.cells):
            task = self.queued.get(cell.key)
            answers = [*self.known.answers[cell.key], *fresh.answers[cell.key]]
            if task:
                board.set(index, *_state(task))
            elif fresh.answers[cell.key] and pending(self.sweep, cell, answers) is None:
                board.set(index, *answer(self.sweep, answers))
            elif failed := fresh.failures.get(cell.key):
                board.set(index, "failed", failed.error or "")
            elif board.rows[index].state in ("queued", "running"):
                board.set(index, "waiting", "cancelled, or still ending")

    def _plan(self) -> Iterator[Planned]:
        """Yield the jobs of what is left, by node count."""
        groups: defaultdict[tuple[str, int, int], list[Cell]] = defaultdict(list)
        for cell in self.cells:
            left = pending(self.sweep, cell, self.known.answers[cell.key])
            if cell.key not in self.queued and cell.key not in self.ending and left:
                nodes = cell.point.nodes or 1
                groups[cell.run.launch.machine, nodes, cell.point.ranks].append(cell)
        for (where, nodes, ranks), members in groups.items():
            per_node = _per_node(where, nodes, ranks)
            most = scheduler_of(machine(where)).max_tasks()
            for start in range(0, len(members), most):
                job = scripts.Job(
                    name=f"{self.name}-{nodes}n-{secrets.token_hex(3)}",
                    machine=where,
                    recipe=self.sweep.recipe,
                    nodes=nodes,
                    time=_walltime(self.sweep, where, nodes),
                )
                yield self._planned(job, per_node, tuple(members[start : start + most]))

    def _planned(self, job: scripts.Job, per_node: int, members: tuple[Cell, ...]) -> Planned:
        folder = self.records.absolute() / "jobs" / job.name
        script = scripts.render(
            job,
            "sweep",
            per_node=per_node,
            tasks=len(members),
            at_once=self.sweep.at_once,
            folder=str(folder),
            minutes=math.ceil(self.sweep.minutes),
            starts=1,
            what="points of a sweep",
            by="Written and submitted by `hpcgeo-profile sweep`; the points stand in batch.json "
            "beside it.",
            next="profile point",
            commit=commit()[0],
        )
        return Planned(job, per_node, members, folder, script)

    def _numbers(self, batch: JobBatch) -> list[int]:
        """Return the tasks of a batch that wait or run."""
        return self._active[batch.folder.name]

    def _queue(self) -> dict[str, JobTask]:
        """Return our tasks in the queue by the key of their cell."""
        self._active: defaultdict[str, list[int]] = defaultdict(list)
        ours = {cell.key for cell in self.cells}
        by_name = {batch.folder.name: batch for batch in self.batches}
        found = {}
        for name in sorted({batch.contents.scheduler for batch in self.batches}):
            for task in scheduler(name).queue():
                batch = by_name.get(task.name)
                if batch is None or batch.contents.scheduler != name:
                    continue
                self._active[task.name].append(task.number)
                if batch.contents.sweep.until_oom == self.sweep.until_oom:
                    key = self._key(batch, task.number)
                    if key in ours:
                        found[key] = JobTask(batch, task)
        return found

    def _key(self, batch: JobBatch, number: int) -> str:
        place = (batch.folder.name, number)
        if place not in self._keys:
            # Of the recipe of that time: a folder may hold the jobs of several sweeps.
            asked = self.sweep.model_copy(update={"recipe": batch.contents.sweep.recipe})
            self._keys[place] = cell_of(asked, batch.contents.points[number]).key
        return self._keys[place]


def _state(task: JobTask) -> tuple[str, str]:
    job = f"job {task.queued.job}"
    if not task.queued.running:
        return "queued", job
    now = task.batch.now(task.queued.number)
    return "running", f"{now.value}, {job}" if now and now.value else job


def _per_node(where: str, nodes: int, ranks: int) -> int:
    """Return how many ranks run on a node of a machine.

    Raises:
        InputError: the nodes would not be full alike, or have fewer devices.
    """
    row = machine(where)
    devices = int(row.devices_per_node.value)
    if ranks % nodes:
        raise InputError(
            f"{ranks} ranks do not fill {nodes} nodes alike: choose a multiple of {nodes}, or give "
            f"the sweep `nodes` instead of `ranks`"
        )
    if row.device and ranks // nodes > devices:
        raise InputError(
            f"{ranks} ranks on {nodes} nodes of {row.name}, which have {devices} devices each: "
            f"give the sweep `nodes`, or ranks_per_node"
        )
    return ranks // nodes


def _walltime(sweep: Sweep, where: str, nodes: int) -> str:
    """Return the time of a task; a search takes what the queue gives, and goes on in another."""
    minutes = sweep.minutes
    if sweep.until_oom:
        longest = machine(where).hours(nodes) or math.inf
        minutes = max(minutes, min(minutes * sweep.until_oom.tries, 60 * longest))
    return scripts.time_of(minutes)


def afford(node_hours: float, budget: float, fewer: str) -> None:
    """Refuse jobs that may cost more than a budget; an InputError says what would be fewer."""
    if not node_hours <= budget:  # nan allows nothing
        raise InputError(
            f"the jobs may take {node_hours:.4g} node-hours, more than the budget of {budget:g}: "
            f"nothing is submitted; give a larger --budget, {fewer}"
        )


def refuse_changes(why: str) -> None:
    """Refuse to submit code with uncommitted changes; an InputError says why."""
    if commit()[1]:
        raise InputError(
            f"the code has uncommitted changes, and {why}: commit them (git commit), then submit"
        )
