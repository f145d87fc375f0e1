"""Machines and devices as data: sizes, links, peaks and what a job has to say, with sources."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.tables import checked, find, loaded, own, plugins, read

#: Of the entry points that name further devices, ``NAME = MODULE:OBJECT``.
DEVICES = "hpcgeo.devices"


class FactRow(BaseModel):
    """A strict, immutable part of a file of facts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(FactRow):
    """A figure and where it was read; `verify` marks one that was not read there yet."""

    value: float
    source: str
    verify: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, cells: Any) -> Any:
        if not isinstance(cells, list):
            return cells
        value, source, *mark = cells
        if mark not in ([], ["verify"]):
            raise ValueError(f"a figure is [value, source] or [value, source, verify]: {cells}")
        return {"value": value, "source": source, "verify": bool(mark)}


class Line(FactRow):
    """Something a job says, and why."""

    text: str
    reason: str
    verify: bool = False


class Variable(Line):
    """An environment variable, ``NAME=value``; $JOB_ID in it is the number of the job."""

    when: Literal["always", "several_nodes"] = "always"
    folder: bool = Field(False, description="the value is a folder, made on every node first")


class Module(Line):
    """Words after `module`."""

    text: str = Field(pattern=r"^(load|unload|swap|use|purge)\b")


class Setting(FactRow):
    """A variable that a job takes from the environment it is submitted from."""

    name: str = Field(pattern=r"^[A-Z]\w*$")
    default: str | None = Field(None, description="None: it has to be set")
    file: bool = Field(False, description="the value is a file, looked for before anything starts")
    reason: str


class Check(FactRow):
    """What must hold on a node before the ranks start, as a test of bash."""

    test: str
    reason: str
    error: str = Field(description="what the job says where it does not hold; bash expands it")


class Links(FactRow):
    """GB/s each way: inside a package, between devices of a node, out of a node (all its cards)."""

    package: Fact | None = None
    node: Fact | None = None
    out: Fact | None = None


class Bin(FactRow):
    """A queue bin: jobs of up to `nodes` may last `hours`."""

    nodes: int
    least: int = Field(1, description="nodes of the smallest job that gets there")
    hours: float
    options: str | None = Field(None, description="lead there; None: jobs get there by themselves")
    source: str
    verify: bool = False

    def __str__(self) -> str:
        asked = f" with {self.options}" if self.options else ""
        return f"{self.hours:g} h to {self.nodes} nodes{asked}"


class Rule(FactRow):
    """Whether something is allowed."""

    allowed: bool
    source: str
    verify: bool = False


class Debug(Line):
    """Directives that make a first try start soon."""

    alone: str | None = Field(
        None,
        pattern=r"^\$JOB_[A-Z]+=[\w-]+$",
        description="how a job knows that it is there, where none may follow another: "
        "$JOB_QOS=value or $JOB_PARTITION=value",
    )


class NodeLocal(FactRow):
    """A disk of the node's own; lines of the job call its path $NODE_LOCAL."""

    path: str
    archive: bool = Field(description="the software environment is unpacked there by the job")
    reason: str


class Device(FactRow):
    """What one rank drives."""

    name: str
    title: str
    flops: dict[str, float] = Field({}, description="dense matrix products, TFLOP/s by dtype")
    memory: float = Field(description="GiB")
    bandwidth: float = Field(description="TB/s")
    watts: float | None = Field(None, description="board power")
    compute_units: int | None = Field(
        None, ge=1, description="that share the tiles of a matrix product: CUs, SMs"
    )
    per_package: int = Field(
        1, ge=1, description="devices of a package, linked best among themselves"
    )
    pattern: str = Field(description="regular expression for the whole of torch's name of it")
    source: str
    verify: list[str] = []

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    @property
    def memory_bytes(self) -> int:
        """Bytes of device memory."""
        return int(self.memory * 2**30)

    def peak(self, dtype: str) -> float | None:
        """Return the peak FLOP/s of dense matrix products; None: not known."""
        return self.flops[dtype] * 1e12 if dtype in self.flops else None


class Machine(FactRow):
    """A machine; what its file does not state is None or empty."""

    name: str
    title: str
    sources: dict[str, str]
    nodes: Fact | None = None
    device: str | None = Field(None, description="a row of facts/devices.yaml, or of `devices`")
    devices: dict[str, Device] = Field({}, description="rows that facts/devices.yaml has not")
    devices_per_node: Fact
    cores_per_device: Fact | None = Field(
        None, description="usable, system's cores excluded, as the scheduler counts them"
    )
    links: Links = Links()
    grid: str | None = Field(None, description="a row of facts/grids.yaml")
    scheduler: str = Field(description="a row of hpcgeo.launch.schedulers.table, or a package's")
    bins: tuple[Bin, ...] = ()
    requeue: Rule | None = Field(None, description="of jobs by their users; None: not known")
    debug: Debug | None = None
    settings: tuple[Setting, ...] = Field((), description="what a job takes from its environment")
    node_local: NodeLocal | None = None
    directives: tuple[Line, ...] = Field((), description="what a job asks of the scheduler")
    modules: tuple[Module, ...] = ()
    launcher: tuple[Line, ...] = Field((), description="options of what starts the ranks")
    command: Line | None = Field(None, description="words before the training command")
    host_suffix: Line | None = Field(
        None, description="what makes a host's name that of its fast interface"
    )
    environment: tuple[Variable, ...] = ()
    checks: tuple[Check, ...] = ()

    @field_validator("devices", mode="before")
    @classmethod
    def _by_name(cls, rows: Any) -> Any:
        if not isinstance(rows, dict):
            return rows
        return {
            name: {"name": str(name)} | row if isinstance(row, dict) else row
            for name, row in rows.items()
        }

    @model_validator(mode="after")
    def _known(self) -> "Machine":
        if self.device is not None and self.model is None:
            known = ", ".join(self.devices | devices())
            raise ValueError(f"device {self.device!r} is no row of `devices`; known: {known}")
        return self

    @property
    def model(self) -> Device | None:
        """The row of its device."""
        rows = chain(self.devices.values(), devices().values(), _installed())
        return next((row for row in rows if row.name == self.device), None) if self.device else None

    def facts(self) -> list[tuple[str, Fact | Bin | Rule]]:
        """Return every figure with its name."""
        links = [(f"links.{name}", getattr(self.links, name)) for name in Links.model_fields]
        plain = [
            (name, getattr(self, name))
            for name in ("nodes", "devices_per_node", "cores_per_device", "requeue")
        ]
        bins = [(f"bins.{bin_.nodes}", bin_) for bin_ in self.bins]
        return [(name, fact) for name, fact in [*plain, *links, *bins] if fact is not None]

    def hours(self, nodes: int) -> float | None:
        """Return how long a job of `nodes` may last; None where no bins are known.

        Raises:
            InputError: the machine has no bin for so many nodes.
        """
        found = self.bin(nodes)
        return found.hours if found else None

    def bin(self, nodes: int, hours: float = 0) -> Bin | None:
        """Return the first bin for such a job; None where no bins are known.

        Raises:
            InputError: the machine has none.
        """
        if not self.bins:
            return None
        wide = [bin_ for bin_ in reversed(self.bins) if bin_.least <= nodes <= bin_.nodes]
        if not wide:
            most = max(bin_.nodes for bin_ in self.bins)
            raise InputError(f"{nodes} nodes are more than a job on {self.name} may have ({most})")
        narrowest = {bin_.options: bin_ for bin_ in wide}  # a queue puts a job into its narrowest
        for bin_ in self.bins:
            if bin_ in narrowest.values() and hours <= bin_.hours:
                return bin_
        longest = max(bin_.hours for bin_ in narrowest.values())
        raise InputError(
            f"{hours:g} h are longer than the {longest:g} h that {nodes} nodes may have on "
            f"{self.name}: shorten it, the run continues when submitted again"
        )


@cache
def machines() -> dict[str, Machine]:
    """Return every machine by name, in the order of their names."""
    names = sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("hpcgeo.facts.machines").iterdir()
        if entry.name.endswith(".yaml")
    )
    return {name: Machine(name=name, **read(f"machines/{name}")) for name in names}


def machine(name: str) -> Machine:
    """Return one machine, by its name or from a YAML file of the form of `facts/machines`.

    Raises:
        InputError: the name is unknown (the message lists the known ones), or the file is none.
    """
    if name.endswith((".yaml", ".yml")):
        return _own(Path(name))
    try:
        return find(machines(), name, "machine")
    except InputError as error:
        raise InputError(f"{error}; or give a YAML file (*.yaml) of your own") from None


@cache
def _own(path: Path) -> Machine:
    rows = own(path, "machine")
    named = {"name": path.stem} | rows if isinstance(rows, dict) else rows
    return checked(Machine, named, f"machine {path}")


@cache
def devices() -> dict[str, Device]:
    """Return every device by name."""
    return {name: Device(name=name, **row) for name, row in read("devices").items()}


def device_of(device_name: str, own: Mapping[str, Device] = MappingProxyType({})) -> Device | None:
    """Return the row of the device that torch calls `device_name`; None: nobody knows it.

    There is no nearest one: a wrong peak would make every utilisation wrong.

    Args:
        device_name: as `torch.cuda.get_device_name` has it.
        own: rows of the machine; they come first.
    """
    rows = chain(own.values(), devices().values(), _installed())
    return next((row for row in rows if re.fullmatch(row.pattern, device_name)), None)


def _installed() -> Iterator[Device]:
    """Yield the rows of installed packages; a broken one costs a figure of a report, no run."""
    for name, entry in plugins(DEVICES).items():
        try:
            row = loaded(entry)
        except InputError as error:
            log.warning("%s", error)
            continue
        if isinstance(row, Device):
            yield row
        else:
            log.warning("entry point %r of %s: not a hpcgeo.machines.Device", name, DEVICES)


class Grid(FactRow):
    """A grid of electricity, and the carbon of its power."""

    name: str
    title: str
    g_per_kwh: Fact = Field(description="grams of CO2")


@cache
def grids() -> dict[str, Grid]:
    """Return every grid by name."""
    return {name: Grid(name=name, **row) for name, row in read("grids").items()}


def grid(name: str) -> Grid:
    """Return one grid, by its name or as grams of CO2 per kWh.

    Raises:
        InputError: neither; the message lists the known names.
    """
    try:
        grams = float(name)
    except ValueError:
        return find(grids(), name, "grid")
    if not 0 <= grams < 1e4:
        raise InputError(f"grid {name}: grams of CO2 per kWh are above zero and below 10,000")
    return Grid(name="given", title="given", g_per_kwh=Fact(value=grams, source="given"))
