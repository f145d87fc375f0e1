"""The points of one job script: what its tasks measure, in the job, and what they left, after it.

RECORDS/jobs/NAME/   one array; NAME is the name of the job in the queue
  batch.json         the sweep and the points, one a task of the array
  job.SUFFIX         the script, with the suffix of its scheduler
  3.out              what task 3 said
  3.now              what it measures at this moment
  records-3.jsonl    what it recorded; a file of its own, since many tasks write at once
  records-lost-3.jsonl  how it ended, found from outside where it could not say it
  missing.json       tasks that ended and did not say how: when that was first seen
"""

import json
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.launch.environment import discover
from hpcgeo.launch.schedulers.table import scheduler
from hpcgeo.log import log
from hpcgeo.records import Record, append
from hpcgeo.sweep.failures import Ending, ending
from hpcgeo.sweep.points import Cell, Point, Sweep, cell_of
from hpcgeo.sweep.recorded import Known, failure, pending, recorded

#: Seconds after which a shared file system shows on every host what a task that ended has written.
SETTLED_S = 30.0


class Contents(BaseModel):
    """What batch.json holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sweep: Sweep
    retry: bool
    points: list[Point]
    scheduler: str = "slurm"  #: by default: folders of before this was written


class Now(BaseModel):
    """What a task measures at this moment."""

    point: Point
    value: str  #: of the option that is searched, for the table
    job: str
    output: int  #: size in bytes of what the task had said before
    records: int  #: how many it had written before


class JobBatch:
    """A folder of RECORDS/jobs."""

    def __init__(self, folder: Path) -> None:
        """Read it.

        Raises:
            InputError: it is none, or of another version.
        """
        self.folder = folder
        try:
            text = (folder / "batch.json").read_text("utf-8")
            self.contents = Contents.model_validate_json(text)
        except (OSError, ValidationError) as error:
            raise InputError(f"{folder}: no jobs of a sweep: {error}") from None

    @classmethod
    def write(cls, folder: Path, contents: Contents, script: str) -> "JobBatch":
        """Write a new one."""
        folder.mkdir(parents=True)
        write_text(folder / "batch.json", contents.model_dump_json(by_alias=True))
        batch = cls(folder)
        write_text(batch.script, script)
        return batch

    @property
    def script(self) -> Path:
        """The job script."""
        return self.folder / f"job.{scheduler(self.contents.scheduler).suffix}"

    def own(self, task: int) -> Path:
        """Return the file of records of a task."""
        return self.folder / f"records-{task}.jsonl"

    def lost(self, task: int) -> Path:
        """Return the file of what was found out about a task; no host appends to another's."""
        return self.folder / f"records-lost-{task}.jsonl"

    def output(self, task: int) -> Path:
        """Return the file that holds what a task said."""
        return self.folder / f"{task}.out"

    def records(self) -> list[Record]:
        """Return all that its tasks have recorded."""
        return recorded(self.folder)

    def now(self, task: int) -> Now | None:
        """Return what a task measures at this moment, or measured when it ended."""
        try:
            return Now.model_validate_json(self._now(task).read_text("utf-8"))
        except (OSError, ValidationError):
            return None

    def advance(self, task: int, ended: int | None) -> list[str]:
        """Return the words after `hpcgeo` that measure what is next in a task; none at its end.

        Called by the job script, before the first measurement and after each one.

        Args:
            task: number in the array.
            ended: exit code of the measurement before, which is recorded if it failed.

        Raises:
            InputError: there is no such task.
        """
        if not 0 <= task < len(self.contents.points):
            raise InputError(f"{self.folder} has no task {task}")
        now = self.now(task)
        if now and ended is not None:
            self._conclude(task, now, ended)
        cell = cell_of(self.contents.sweep, self.contents.points[task])
        own = recorded(self.own(task))
        if ended is not None and own and own[-1].status == "failed":
            return []  # tried again by the next call of the sweep
        point = pending(self.contents.sweep, cell, self._answers(cell, own))
        if now and ended is not None and point == now.point:
            log.warning("recorded, but not as asked (nodes? versions?): %s", point)
            return []
        if point is None:
            self.own(task).touch()  # a task that has nothing to do has not failed
            return []
        started = Now(
            point=point,
            value=point.overrides[-1] if self.contents.sweep.until_oom else "",
            job=discover().job_id or "",
            output=self._size(task),
            records=len(own),
        )
        write_text(self._now(task), started.model_dump_json())
        return point.words(self.contents.sweep, self.own(task))

    def unsettled(self, queued: Collection[int]) -> list[int]:
        """Return the tasks that have ended and did not say how.

        Args:
            queued: tasks that wait or run.
        """
        return [
            task
            for task in range(len(self.contents.points))
            if task not in queued
            and (
                self._now(task).exists()
                # before the first measurement
                or (
                    self.output(task).exists()
                    and not self.own(task).exists()
                    and not self.lost(task).exists()
                )
            )
        ]

    def settle(self, queued: Collection[int]) -> None:
        """Record what became of tasks that are missing for a while and did not say it."""
        before, now = self._missing(), time.time()
        missing = {task: min(now, before.get(task, now)) for task in self.unsettled(queued)}
        for task, since in list(missing.items()):
            if now - since >= SETTLED_S:
                self._conclude(task, self.now(task) or self._start(task), None)
                del missing[task]
        if missing != before:
            write_text(self.folder / "missing.json", json.dumps(missing))

    def _conclude(self, task: int, now: Now, code: int | None) -> None:
        """Record the end of a measurement, unless it has recorded itself."""
        if len(recorded(self.own(task))) == now.records:
            said = self._said(task, now.output)
            if code is None and now.job:
                said += f"\n{scheduler(self.contents.scheduler).state(now.job)}"
            how = ending(said, code) if code != 0 else Ending("failed", "left no record")
            if how.status == "cancelled":
                log.info("cancelled, to be measured another time: %s", now.point)
                if (output := self.output(task)).exists():
                    output.replace(output.with_suffix(".cancelled"))
            else:
                file = self.lost(task) if code is None else self.own(task)
                append(file, failure(self.contents.sweep, now.point, how))
        self._now(task).unlink(missing_ok=True)

    def _answers(self, cell: Cell, own: Sequence[Record]) -> list[Record]:
        sweep = self.contents.sweep
        shared = [*recorded(self.folder.parents[1])]
        known = Known(sweep, shared, retry=self.contents.retry).answers[cell.key]
        mine = Known(sweep, own, any_code=True).answers[cell.key]
        return [*known, *mine]

    def _start(self, task: int) -> Now:
        """Return what a task would have measured first."""
        sweep = self.contents.sweep
        cell = cell_of(sweep, self.contents.points[task])
        point = pending(sweep, cell, self._answers(cell, [])) or cell.point
        return Now(point=point, value="", job="", output=0, records=0)

    def _missing(self) -> dict[int, float]:
        try:
            found = json.loads((self.folder / "missing.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return {int(task): float(since) for task, since in found.items()}

    def _now(self, task: int) -> Path:
        return self.folder / f"{task}.now"

    def _size(self, task: int) -> int:
        path = self.output(task)
        return path.stat().st_size if path.exists() else 0

    def _said(self, task: int, start: int) -> str:
        try:
            with self.output(task).open("rb") as file:
                file.seek(start)
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""
