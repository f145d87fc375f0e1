"""A sweep file and the points it asks for: a pure function of the file."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from hpcgeo.config import RunConfig
from hpcgeo.errors import InputError
from hpcgeo.machines import machine
from hpcgeo.profiling.run import configure
from hpcgeo.strategies import strategy
from hpcgeo.tables import brief, checked, own
from hpcgeo.zoo import architecture

#: Flags of `hpcgeo-profile run` that a record states under their name, with their value where they
#: are not given.
FLAGS = {"communication": "on"}

#: A key of `grid` whose values are groups of dotted options that vary together.
TOGETHER = "points"

Size = Annotated[PositiveInt, Field(le=2**20)]


class SweepPart(BaseModel):
    """A strict, immutable piece of a sweep file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class UntilOom(SweepPart):
    """A search for the largest value that fits: doubled until out of memory, then bisected."""

    option: str = "train.micro_batch"
    start: Size = Field(8, alias="from")
    to: Size = 1024

    def next(self, fits: Iterable[int], fails: Iterable[int]) -> int | None:
        """Return the value to try next; None once the answer is known to an eighth of it."""
        low = max(fits, default=0)
        high = min((value for value in fails if value > low), default=0)
        if not high:
            above = min(2 * low or self.start, self.to)
            return above if above > low else None
        return (low + high) // 2 if high - low > max(1, low // 8) else None

    @property
    def tries(self) -> int:
        """How many tries a search takes at most."""
        doubled = math.ceil(math.log2(max(1.0, self.to / self.start)))
        return 1 + doubled + max(3, math.ceil(math.log2(self.start)))


class Sweep(SweepPart):
    """A sweep file. Keys of `set` and `grid` are dotted options, a group with several of them, or
    one of FLAGS; one of `grid` may be TOGETHER."""

    recipe: str
    steps: PositiveInt = 20
    warmup: PositiveInt = 5
    minutes: float = Field(15.0, gt=0, le=60 * 24 * 30)  #: the longest that a point may take
    #: Command in front, with {ranks} and {nodes}; None: torchrun here.
    launch: str | None = Field(None, pattern=r"^([^{}]|\{ranks\}|\{nodes\})+$")
    ranks_per_node: Size | None = None  #: None: with `nodes` the devices of a node, else all ranks
    at_once: PositiveInt | None = None  #: jobs of a node count that run at the same time
    set: dict[str, Any] = {}
    ranks: list[Size] | None = None
    nodes: list[Size] | None = None
    grid: dict[str, list[Any]] = {}
    until_oom: UntilOom | None = None
    overrides: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Sweep":
        if (self.ranks is None) == (self.nodes is None):
            raise ValueError("give either `ranks` or `nodes`")
        if self.until_oom and self.until_oom.option in self.grid:
            raise ValueError(
                f"{self.until_oom.option} is searched by until_oom: drop it from `grid`"
            )
        return self

    @property
    def counts_nodes(self) -> bool:
        """Whether it is known how many nodes the ranks fill."""
        return not self.launch or self.ranks_per_node is not None or self.nodes is not None

    def places(self) -> list[tuple[int, int | None]]:
        """Return ranks and nodes of the points, as the file lists them."""
        if self.nodes is not None:
            each = self.ranks_per_node or self._devices_per_node()
            return [(nodes * each, nodes) for nodes in self.nodes]
        if self.ranks_per_node:
            return [(ranks, -(-ranks // self.ranks_per_node)) for ranks in self.ranks or []]
        return [(ranks, 1 if self.counts_nodes else None) for ranks in self.ranks or []]

    def _devices_per_node(self) -> int:
        fixed = {key: value for key, value in self.set.items() if key not in FLAGS}
        point = Point(1, 1, (*overrides_of(fixed), *self.overrides))
        return int(machine(resolve(self, point).launch.machine).devices_per_node.value)


@dataclass(frozen=True)
class Point:
    """What one profile run is asked: one cell of the grid, or one try of a search."""

    ranks: int
    nodes: int | None
    overrides: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return ", ".join([self.place, *self.overrides, *map("=".join, self.options)])

    @property
    def place(self) -> str:
        """How many nodes, where there are several, and ranks."""
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"{self.nodes} nodes, {ranks}" if (self.nodes or 1) > 1 else ranks

    def words(self, sweep: Sweep, records: Path) -> list[str]:
        """Return the words after `hpcgeo` that measure it."""
        options = [word for name, value in self.options for word in (f"--{name}", value)]
        return [
            *("profile", "run", sweep.recipe, *self.overrides, *options),
            *("--steps", str(sweep.steps), "--warmup", str(sweep.warmup)),
            *("--records", str(records)),
        ]


@dataclass(frozen=True)
class Cell:
    """One cell of the grid that can exist.

    Attributes:
        point: what is measured; a search tries it with several values of its option.
        run: its resolved configuration.
        key: all that was asked, equal for a record of it; without the option of a search.
    """

    point: Point
    run: RunConfig
    key: str


def load_sweep(path: Path, overrides: Sequence[str] = (), until_oom: str | None = None) -> Sweep:
    """Read a sweep file.

    Args:
        path: of the YAML file.
        overrides: ``key=value``, on top of `set`.
        until_oom: the option whose largest value is searched; without a dot one of `train`.

    Raises:
        InputError: no such file, or a line that breaks a rule.
    """
    values = own(path, "sweep")
    if until_oom and isinstance(values, dict):
        option = until_oom if "." in until_oom else f"train.{until_oom}"
        values["until_oom"] = {**(values.get("until_oom") or {}), "option": option}
    sweep = checked(Sweep, values, f"sweep {path}")
    return sweep.model_copy(update={"overrides": tuple(overrides)})


def points(sweep: Sweep) -> Iterator[Point]:
    """Yield every cell of the grid, nodes or ranks outermost."""
    for ranks, nodes in sweep.places():
        for values in itertools.product(*sweep.grid.values()):
            chosen = sweep.set | chosen_values(dict(zip(sweep.grid, values, strict=True)))
            options = [(name, _option(name, chosen.pop(name))) for name in FLAGS if name in chosen]
            yield Point(ranks, nodes, (*overrides_of(chosen), *sweep.overrides), tuple(options))


def cells(sweep: Sweep) -> tuple[list[Cell], list[str]]:
    """Return the cells that can exist, and why others cannot.

    Raises:
        InputError: an option is wrong, or no cell can exist.
    """
    found: dict[str, Cell] = {}
    left_out = []
    for point in points(sweep):
        cell = cell_of(sweep, point)
        parallel = cell.run.parallel
        chosen, model = strategy(parallel.strategy), architecture(cell.run.model.name)
        try:
            model.refuse_cut(chosen.layout(point.ranks, dict(parallel)).tp)
        except InputError as error:
            left_out.append(f"{point}: {error}")
        else:
            found.setdefault(cell.key, cell)
    if left_out and not found:
        raise InputError(f"no point of the sweep can exist: {left_out[0]}")
    return list(found.values()), left_out


def cell_of(sweep: Sweep, point: Point) -> Cell:
    """Return the cell of a point of the grid."""
    first = try_of(sweep, point, sweep.until_oom.start) if sweep.until_oom else point
    try:
        run = resolve(sweep, first)
    except InputError as error:
        if sweep.until_oom is None:
            raise
        tried = f"{sweep.until_oom.option}, tried first with {sweep.until_oom.start}"
        raise InputError(f"until_oom {tried}: {error}") from None
    options = FLAGS | dict(point.options)
    key = key_of(sweep, run.model_dump(mode="json"), point.ranks, point.nodes, options)
    return Cell(point, run, key)


def labels(every: Sequence[Cell]) -> list[str]:
    """Return a short name for every cell: what is not the same for all."""
    common = set.intersection(*(set(cell.point.overrides) for cell in every)) if every else set()
    named = []
    for cell in every:
        point = cell.point
        options = [word for word in point.overrides if word not in common]
        short = [word.removeprefix("parallel.").removeprefix("train.") for word in options]
        named.append(", ".join([point.place, *short, *map("=".join, point.options)]))
    return named


def resolve(sweep: Sweep, point: Point) -> RunConfig:
    """Return the resolved configuration of a point."""
    return configure(sweep.recipe, point.overrides, sweep.steps, sweep.warmup, Path("unused"))


def try_of(sweep: Sweep, point: Point, value: int) -> Point:
    """Return a point with a value of the option that is searched."""
    assert sweep.until_oom
    return replace(point, overrides=(*point.overrides, f"{sweep.until_oom.option}={value}"))


def overrides_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield options as ``key=value``, dotted; of nested ones each."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from overrides_of(value, f"{prefix}{key}.")
        else:
            text, *more = yaml.safe_dump(
                value, default_flow_style=True, width=10**6, allow_unicode=True
            ).splitlines()
            if more not in ([], ["..."]):  # JSON is YAML on one line
                text = json.dumps(value, ensure_ascii=False)
            yield f"{prefix}{key}={text}"


def chosen_values(cell: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a cell of a grid, with those that vary together under TOGETHER."""
    together = cell.pop(TOGETHER, {})
    if not isinstance(together, dict):
        raise InputError(f"{TOGETHER} {brief(together)}: list groups of dotted options")
    return cell | together


def _option(name: str, value: Any) -> str:
    """Return an option as a word: YAML reads on and off as booleans."""
    word = ("on" if value else "off") if isinstance(value, bool) else value
    if word not in ("on", "off"):
        raise InputError(f"{name} {brief(value)}: write on or off")
    return str(word)


def key_of(
    sweep: Sweep,
    config: Mapping[str, Any],
    ranks: int,
    nodes: int | None,
    options: Mapping[str, str],
) -> str:
    """Return all that is asked of a cell as one text, equal for a record of it.

    Args:
        config: the resolved configuration.
        ranks, nodes: of the point, or of the record.
        options: a value for each of FLAGS.
    """
    # How many steps there are in all is the profiler's affair.
    searched = [sweep.until_oom.option] if sweep.until_oom else []
    asked = without(config, ["run", "train.steps", *searched])
    place = [ranks, nodes if sweep.counts_nodes else None]
    return json.dumps([asked, place, options], sort_keys=True)


def without(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a configuration without some dotted options or groups of them."""
    left: dict[str, Any] = json.loads(json.dumps(config))
    for key in keys:
        *parents, last = key.split(".")
        place: Any = left
        for parent in parents:
            place = place.get(parent, {})
        place.pop(last, None)
    return left
