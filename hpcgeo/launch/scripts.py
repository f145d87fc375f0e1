"""Job scripts: templates on one base, filled from the facts of a machine and of a job."""

import math
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import Field, ValidationError, field_validator

from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.launch.schedulers.table import scheduler_of
from hpcgeo.machines import Check, FactRow, Line, Setting, machine
from hpcgeo.options import SYNTHETIC, Data
from hpcgeo.quoting import shell
from hpcgeo.tables import broken_rules, find, read

WIDTH = 96

#: What a script does: train one recipe, or ask again and again what is next, in the tasks of an
#: array: the points of a sweep, the members of a study.
Work = Literal["job", "sweep"]


def hours_of(time: str) -> float:
    """Return HH:MM:SS in hours; anything else is a ValueError."""
    if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", time) or not time.strip("0:"):
        raise ValueError("write the time as HH:MM:SS, e.g. 02:00:00")
    hours, minutes, seconds = map(int, time.split(":"))
    return hours + minutes / 60 + seconds / 3600


def time_of(minutes: float) -> str:
    """Return HH:MM:SS of whole minutes, as schedulers count them.

    >>> time_of(90.5)
    '01:31:00'
    """
    whole = math.ceil(minutes)
    return f"{whole // 60:02}:{whole % 60:02}:00"


class Job(FactRow):
    """A recipe on nodes of a machine for some time; a row of facts/jobs.yaml."""

    name: str = Field(pattern=r"^[\w.-]+$")
    machine: str
    recipe: str = Field(description="a name, or the path of a YAML file")
    nodes: int = Field(ge=1)
    time: str
    data: str | None = Field(None, description="where DATA names none; None: it has to")
    set: tuple[Line, ...] = Field((), description="options of the run, each with its reason")

    @field_validator("machine", "recipe", "data")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("no name of a file of a job: it has a line break or the like in it")
        return value

    @field_validator("time")
    @classmethod
    def _hours_minutes_seconds(cls, value: str) -> str:
        hours_of(value)
        return value

    @property
    def hours(self) -> float:
        """The time in hours."""
        return hours_of(self.time)

    @property
    def signal_s(self) -> int:
        """Seconds before its end at which the job is signalled: a minute, less for a short one.

        Only a net: the ranks watch the clock, and know how long a save takes.
        """
        return int(min(60, 0.1 * 3600 * self.hours))


@cache
def jobs() -> dict[str, Job]:
    """Return every shipped job by name."""
    return {name: Job(name=name, **row) for name, row in read("jobs").items()}


def job(name: str) -> Job:
    """Return one shipped job; an unknown name is an InputError that lists the known ones."""
    return find(jobs(), name, "job")


def one_off(machine_name: str, recipe: str, nodes: int, time: str) -> Job:
    """Return a job that is not shipped.

    Raises:
        InputError: nodes or time are no numbers of their kind.
    """
    where, data = machine(machine_name), load(recipe, []).data
    name = f"{where.name}_{Path(recipe).stem}"
    # The recipe's own data; generated samples where a trial costs nothing.
    own = data.path if isinstance(data, Data) else None
    own = None if own == SYNTHETIC and where.name != "local" else own
    try:
        return Job(name=name, machine=machine_name, recipe=recipe, nodes=nodes, time=time, data=own)
    except ValidationError as error:
        raise InputError(broken_rules(error, Job)) from None


def file_name(job: Job) -> str:
    """Return the name of the file of a job's script."""
    return f"{job.name}.{scheduler_of(machine(job.machine)).suffix}"


def render(job: Job, work: Work = "job", *, per_node: int | None = None, **more: Any) -> str:
    """Return the text of a job script.

    Args:
        job: what it runs.
        work: which template of the scheduler's.
        per_node: ranks on a node; by default one a device.
        more: what else the template asks for.

    Raises:
        InputError: the machine has no queue for so many nodes or hours, or an unknown scheduler.
    """
    where = machine(job.machine)
    scheduler = scheduler_of(where)
    bin_ = where.bin(job.nodes, job.hours)
    images = False
    if work == "job":  # what is wrong with the recipe is said here
        images = load(job.recipe, [line.text for line in job.set]).source != "mixture"
    environment = Environment(
        loader=PackageLoader(scheduler.package),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {
        "comment": _comment,
        "reason": _reason,
        "hours": "{:g}".format,
        "quote": shell,
    }
    cores = where.cores_per_device
    return environment.get_template(f"{work}.{scheduler.suffix}.j2").render(
        job=job,
        machine=where,
        bin=bin_,
        images=images,
        per_node=per_node or int(where.devices_per_node.value),
        cores=int(cores.value) if cores else None,
        requeue=where.requeue is None or where.requeue.allowed,
        **more,
    )


def write(path: Path, text: str) -> bool:
    """Write an executable script, whole or not at all; return whether it changed."""
    if path.exists() and path.read_text("utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    path.chmod(0o755)
    return True


def _comment(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _reason(line: Line | Setting | Check) -> str:
    text = line.reason[0].upper() + line.reason[1:] + "."
    return _comment(text + " (Not yet tried here.)" if getattr(line, "verify", False) else text)
