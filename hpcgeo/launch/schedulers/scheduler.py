"""What is asked of a scheduler, from its job scripts to how a job ended."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hpcgeo.errors import InputError

#: Rank, world size, local rank, local size.
Counts = tuple[int, int, int, int]

NEVER = re.compile(r"(?!)")


class InDoubtError(InputError):
    """The scheduler failed, and may have accepted the job all the same."""


@dataclass(frozen=True)
class Queued:
    """A task of an array that waits or runs.

    Attributes:
        name: of its job, as the script says it.
        number: in the array, from 0.
        job: what `Scheduler.cancel` takes; cancels this task alone.
        running: it has started.
    """

    name: str
    number: int
    job: str
    running: bool


@dataclass(frozen=True)
class Allocation:
    """The job a process runs in; begin and end in seconds of the epoch, where its variables say.

    `idle` says how many tasks the job has that a process started alone does not use; or nothing.
    """

    job: str
    host: str | None = None
    begin_s: float | None = None
    end_s: float | None = None
    idle: str = ""


@dataclass(frozen=True)
class Started:
    """One of the ranks that the scheduler's own launcher started.

    Attributes:
        counts: which one, among all of them and among those of this host.
        first_host: where rank 0 is, if it is known.
        name: of this start; all its ranks have it, and no other start.
    """

    counts: Counts
    first_host: str | None
    name: str


@dataclass(frozen=True)
class Endings:
    """Patterns of the lines, or of `Scheduler.state`, that say how a job or a rank ended.

    Attributes:
        out_of_memory: the system ended it, since its memory ran out.
        time_limit: its time was over.
        node_failed: it lost a host.
        cancelled: by its user, or for another job: no data point.
        first_rank: the first rank that the launcher saw end; the group says how, ``Killed`` where
            it was by SIGKILL.
    """

    out_of_memory: re.Pattern[str] = NEVER
    time_limit: re.Pattern[str] = NEVER
    node_failed: re.Pattern[str] = NEVER
    cancelled: re.Pattern[str] = NEVER
    first_rank: re.Pattern[str] = NEVER


@dataclass(frozen=True)
class JobSize:
    """What a job script asks for, before options of the command that submits it."""

    nodes: int
    per_node: int
    time: str


class Scheduler(ABC):
    """A scheduler; the machine's field `scheduler` names it.

    Attributes:
        name: as the table and machines say it.
        suffix: of its job scripts, without the dot.
        package: its folder `templates` holds ``job.SUFFIX.j2`` (trains a recipe) and
            ``sweep.SUFFIX.j2`` (asks again and again what is next: the points of a sweep, the
            members of a study, one a task of an array), which `hpcgeo.launch.scripts` fills; a
            scheduler without one of them has no such jobs.
        endings: how it says that a job has ended.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    package: ClassVar[str]
    endings: ClassVar[Endings] = Endings()

    # -- where jobs are submitted ------------------------------------------------------------------

    @abstractmethod
    def submit(self, script: Path, name: str, options: str = "") -> None:
        """Submit a script of a sweep; what the script says stands above `options`.

        Args:
            script: as rendered.
            name: of the job, which no other has.
            options: of the user for the command that submits, such as who pays.

        Raises:
            InputError: it is refused.
            InDoubtError: nobody can tell.
        """

    @abstractmethod
    def queue(self) -> Iterator[Queued]:
        """Yield the tasks of all arrays of this user.

        Raises:
            InputError: it does not answer.
        """

    @abstractmethod
    def cancel(self, jobs: Iterable[str]) -> None:
        """End tasks that wait or run.

        Raises:
            InputError: it does not answer, or refuses.
        """

    @abstractmethod
    def state(self, job: str) -> str:
        """Return the last state of a job in words that `endings` know; empty if it is unknown."""

    @abstractmethod
    def max_tasks(self) -> int:
        """Return how many tasks an array may have; a guess where it does not answer."""

    def asked(self, script: str) -> JobSize | None:
        """Return what a job script asks for; None where it does not say all of it."""
        return None

    # -- inside a job ------------------------------------------------------------------------------

    @abstractmethod
    def allocation(self, environ: Mapping[str, str]) -> Allocation | None:
        """Return the job that a process with these variables runs in; None outside of one."""

    def started(self, environ: Mapping[str, str]) -> Started | None:
        """Return which rank of its own launcher a process is; None where that did not start it.

        Raises:
            InputError: its variables are there in part, or hold no numbers.
        """
        return None

    def times(self, job: str) -> tuple[float, float] | None:
        """Return begin and end of a running job in seconds of the epoch; None if nobody says it."""
        return None


def count(environ: Mapping[str, str], variable: str, launcher: str) -> int:
    """Return the number that a launcher left in a variable.

    Raises:
        InputError: there is none.
    """
    if variable not in environ:
        raise InputError(
            f"{variable} is missing beside the other variables of {launcher}: set it, or unset "
            f"those to run alone"
        )
    if not environ[variable].isdecimal():
        raise InputError(f"{variable}={environ[variable]!r} is no count: {launcher} sets a number")
    return int(environ[variable])
