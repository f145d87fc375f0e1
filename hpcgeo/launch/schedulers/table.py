"""Which schedulers are known: ours, and those that installed packages add."""

import os
from collections.abc import Iterator, Mapping

from hpcgeo.errors import InputError
from hpcgeo.launch.schedulers.scheduler import Scheduler, Started
from hpcgeo.launch.schedulers.slurm import Slurm
from hpcgeo.machines import Machine
from hpcgeo.tables import find_open, plugins

#: Of the entry points that name further ones, ``NAME = MODULE:OBJECT``.
GROUP = "hpcgeo.schedulers"

#: Set by the jobs of a scheduler that another package adds, to its name. Ranks ask only the one it
#: names: else a thousand of them would search all that is installed.
VARIABLE = "HPCGEO_SCHEDULER"

SCHEDULERS: dict[str, Scheduler] = {"slurm": Slurm()}


def scheduler(name: str) -> Scheduler:
    """Return one scheduler.

    Raises:
        InputError: it is unknown; the message lists the known ones and says how to add one.
    """
    return find_open(SCHEDULERS, GROUP, name, "scheduler")


def scheduler_of(where: Machine) -> Scheduler:
    """Return the scheduler of a machine.

    Raises:
        InputError: it is unknown.
    """
    try:
        return scheduler(where.scheduler)
    except InputError as error:
        raise InputError(
            f"{where.name} runs {where.scheduler}: {error}; or start `hpcgeo train` there with "
            f"mpiexec"
        ) from None


def every() -> Iterator[Scheduler]:
    """Yield all known schedulers."""
    yield from SCHEDULERS.values()
    yield from map(scheduler, sorted(plugins(GROUP).keys() - SCHEDULERS.keys()))


def around(environ: Mapping[str, str] = os.environ) -> Scheduler | None:
    """Return the scheduler in whose job a process with these variables runs; None outside of one.

    Raises:
        InputError: HPCGEO_SCHEDULER names an unknown one.
    """
    asked = [scheduler(environ[VARIABLE])] if VARIABLE in environ else SCHEDULERS.values()
    return next((known for known in asked if known.allocation(environ)), None)


def started(environ: Mapping[str, str] = os.environ) -> Started | None:
    """Return which rank of a scheduler's own launcher this process is; None if it is none."""
    scheduler = around(environ)
    return scheduler.started(environ) if scheduler else None
