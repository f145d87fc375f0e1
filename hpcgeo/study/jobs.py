"""A study as jobs: an array, a task a member; says its cost, submits nothing twice."""

import json
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.launch import scripts
from hpcgeo.launch.schedulers.scheduler import InDoubtError, Queued
from hpcgeo.launch.schedulers.table import scheduler_of
from hpcgeo.log import log
from hpcgeo.machines import machine
from hpcgeo.study.folder import StudyFolder
from hpcgeo.study.local import board
from hpcgeo.study.study import Member
from hpcgeo.sweep.jobs import POLL_S, afford, refuse_changes
from hpcgeo.sweep.local import StoppedError, alone
from hpcgeo.sweep.progress import Board
from hpcgeo.tables import find
from hpcgeo.train.provenance import commit

TASKS = "members.json"


@dataclass(frozen=True)
class MemberTask:
    """A task of ours in the queue."""

    member: str
    queued: Queued


class StudyJobs:
    """A study in the queue and in its folder."""

    def __init__(self, folder: StudyFolder) -> None:
        """Look; nothing is written or submitted."""
        self.folder, self.study = folder, folder.study
        self.scheduler = scheduler_of(machine(self.study.machine))
        self.look()

    def look(self) -> None:
        """See what is in the queue."""
        batches = {
            path.parent.name: json.loads(path.read_text("utf-8"))
            for path in (self.folder.out / "jobs").glob(f"*/{TASKS}")
        }
        self.queued = [
            MemberTask(batches[task.name][task.number], task)
            for task in (self.scheduler.queue() if batches else ())
            if task.name in batches
        ]

    @property
    def planned(self) -> list[Member]:
        """Members with steps left that are not in the queue."""
        queued = {task.member for task in self.queued}
        every = self.folder.members
        return [one for one in every if one.name not in queued and self.folder.left(one)]

    @property
    def node_hours(self) -> float:
        """What the planned jobs cost at most, all their starts together."""
        return round(len(self.planned) * self.study.node_hours, 6)

    def plan(self) -> str:
        """Say what would be submitted, and its cost."""
        nodes, hours, starts = self.study.nodes, self.study.hours, self.study.starts
        if self.planned:
            self._rendered(self.planned)  # what the machine does not give is said now
        return (
            f"{len(self.planned)} jobs x {nodes} nodes x {hours:g} h x {starts} starts = at most "
            f"{self.node_hours:.4g} node-hours: {', '.join(one.name for one in self.planned)}"
        )

    def afford(self, budget: float) -> None:
        """Refuse jobs that may cost more node-hours than a budget; an InputError says so."""
        afford(self.node_hours, budget, "or fewer `hours`, `starts` or members")

    def settle(self) -> None:
        """Write down how steps ended whose job has left the queue without a word."""
        self.look()
        queued = {task.member for task in self.queued}
        for member in self.folder.members:
            now = self.folder.now(member)
            if now and member.name not in queued:
                state = self.scheduler.state(now["job"]) if now["job"] else ""
                self.folder.conclude(member, None, state)

    def submit(self, budget: float, options: str = "") -> None:
        """Submit the planned jobs.

        Args:
            budget: node-hours that they may cost.
            options: for the command that submits.

        Raises:
            InputError: they may cost more, the code has uncommitted changes, the folder holds
                another study, or they are refused.
        """
        planned = self.planned
        self.afford(budget)
        refuse_changes("nobody could say what the scores come from")
        self.folder.claim(planned)
        most = self.scheduler.max_tasks()
        for start in range(0, len(planned), most):
            self._submit(planned[start : start + most], options)
        self.look()

    def _rendered(self, members: list[Member]) -> tuple[str, Path, str]:
        """Return the name of a job of members, its folder and its script."""
        job = scripts.Job(
            name=f"study-{secrets.token_hex(3)}",
            machine=self.study.machine,
            recipe="study",
            nodes=self.study.nodes,
            time=scripts.time_of(60 * self.study.hours),
        )
        place = self.folder.out.absolute() / "jobs" / job.name
        text = scripts.render(
            job,
            "sweep",
            per_node=self.study.ranks // self.study.nodes,
            tasks=len(members),
            starts=self.study.starts,
            at_once=None,
            folder=str(place),
            minutes=None,
            commit=commit()[0],
            what="members of a study",
            by=f"Written and submitted by `hpcgeo study`; {TASKS} beside it names the members.",
            next="jobs step",
        )
        return job.name, place, text

    def _submit(self, members: list[Member], options: str) -> None:
        name, place, text = self._rendered(members)
        place.mkdir(parents=True)
        write_text(place / TASKS, json.dumps([member.name for member in members]))
        script = place / f"job.{self.scheduler.suffix}"
        write_text(script, text)
        try:
            self.scheduler.submit(script, name, options)
        except InDoubtError:
            raise
        except InputError:
            shutil.rmtree(place)
            raise

    def cancel(self) -> int:
        """Take the jobs out of the queue; return how many there were."""
        if self.queued:
            self.scheduler.cancel([task.queued.job for task in self.queued])
        return len(self.queued)

    def board(self) -> Board:
        """Return the states of all steps."""
        shown = board(self.folder)
        self._show(shown, quiet=True)
        return shown

    def watch(self) -> Board:
        """Show the jobs until the last one has ended; Ctrl-C leaves them in the queue.

        Raises:
            StoppedError: by Ctrl-C.
        """
        began = time.monotonic()
        with self.board() as shown:
            try:
                while self.queued:
                    time.sleep(max(1.0, min(POLL_S, (time.monotonic() - began) / 20)))
                    try:
                        with alone(self.folder.out / "lock", "study"):
                            self.settle()
                    except InputError as error:
                        log.warning("%s; the jobs go on, it is asked again", error)
                    self._show(shown)
            except KeyboardInterrupt:
                raise StoppedError(shown) from None
        return shown

    def _show(self, shown: Board, *, quiet: bool = False) -> None:
        waiting = {task.member for task in self.queued if not task.queued.running}
        names = [member.name for member in self.folder.members for _ in member.steps]
        for index, (name, (state, details)) in enumerate(
            zip(names, self.folder.states(), strict=True)
        ):
            state = "queued" if state == "waiting" and name in waiting else state
            if quiet or shown.rows[index].state == state == "running":
                shown.rows[index].state = state
                shown.detail(index, details)
            else:
                shown.set(index, state, details if state != "running" else "")


def advance(place: Path, task: int, ended: int | None) -> list[str]:
    """Return the words after `hpcgeo` that a job of a study does next; none at its end.

    Called by the job script, before the first step and after each one.

    Args:
        place: folder of the job.
        task: number in its array.
        ended: exit code of the step before.

    Raises:
        InputError: there is no such task.
    """
    folder = StudyFolder.there(place.parents[1])
    names = json.loads((place / TASKS).read_text("utf-8"))
    if not 0 <= task < len(names):
        raise InputError(f"{place} has no task {task}")
    member = find({one.name: one for one in folder.members}, names[task], "member of the study")
    output, again = place / f"{task}.out", place / f"{task}.again"
    if ended is None:  # the first step of a start: what was at work in an earlier one was killed
        folder.interrupt(member)
    elif folder.conclude(member, ended):
        return []  # the time of the job is over
    if (following := folder.next(member)) is None:
        return []
    return folder.begin(member, following, output, again, first=ended is None)
