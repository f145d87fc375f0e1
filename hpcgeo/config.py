"""Every option of a run, strict: YAML in and out, dotted overrides, errors that name the rule."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from hpcgeo.errors import InputError
from hpcgeo.job_options import Checkpoint, Launch, RunPlace
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.objectives.objective import IMAGES, TASKS, ObjectiveOptions
from hpcgeo.objectives.table import fitting, objective, refuse_backbone, refuse_idle
from hpcgeo.options import (
    NEUTRAL,
    SYNTHETIC,
    Data,
    Mixture,
    Model,
    Optim,
    OptionGroup,
    Parallel,
    Train,
)
from hpcgeo.tables import (
    GROUPS,
    brief,
    close,
    did_you_mean,
    nearest,
    own,
    parse,
    place_of,
    rule_of,
    same,
)
from hpcgeo.zoo import architecture

#: How a recipe names the one it builds on, and how a file is told from a name.
EXTENDS, SUFFIXES = "extends", (".yaml", ".yml")

#: What `data` may be, by the tag that pydantic puts into the place of an error.
TAGS: dict[str, type[OptionGroup]] = {"images": Data, "mixture": Mixture}


def _kind_of_data(value: Any) -> str:
    mixed = "tasks" in value if isinstance(value, dict) else isinstance(value, Mixture)
    return "mixture" if mixed else "images"


def objective_options(value: dict[str, Any]) -> type[ObjectiveOptions]:
    """Return the class of the options of an objective, from the name among them.

    Raises:
        ValueError: no objective has that name.
    """
    try:
        return objective(str(value.get("name", "mae"))).Options
    except InputError as error:
        raise ValueError(str(error)) from None


class RunConfig(OptionGroup):
    """The whole configuration of a run; saved beside its checkpoints and inside its record."""

    run: RunPlace
    seed: int = Field(
        0,
        ge=0,
        lt=2**32,
        description="of initial weights, order, views and masks",
        json_schema_extra=NEUTRAL,
    )
    model: Model
    data: Annotated[
        Annotated[Data, Tag("images")] | Annotated[Mixture, Tag("mixture")],
        Discriminator(_kind_of_data),
    ] = Data()
    objective: SerializeAsAny[ObjectiveOptions] = MaeOptions()
    parallel: Parallel = Parallel()
    optim: Optim = Optim()
    train: Train
    checkpoint: Checkpoint = Checkpoint()
    launch: Launch = Launch()

    @field_validator("objective", mode="before")
    @classmethod
    def _of_its_row(cls, value: Any) -> Any:
        """Read options by the row of the table that they name."""
        return objective_options(value).model_validate(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "RunConfig":
        if self.optim.warmup_steps > self.train.steps:
            raise ValueError(
                f"optim.warmup_steps {self.optim.warmup_steps} is longer than train.steps "
                f"{self.train.steps}: shorten the warm-up or train longer"
            )
        if self.optim.frozen_steps > self.train.steps:
            raise ValueError(
                f"optim.frozen_steps {self.optim.frozen_steps} is more than train.steps "
                f"{self.train.steps}: freeze the backbone for fewer, or train longer"
            )
        return self

    @model_validator(mode="after")
    def _average_moves(self) -> "RunConfig":
        """Refuse an average that the first weights would still dominate at the end."""
        if self.optim.ema is not None and 1 / (1 - self.optim.ema) > self.train.steps:
            raise ValueError(
                f"optim.ema {self.optim.ema} averages over some {1 / (1 - self.optim.ema):,.0f} "
                f"steps, and train.steps is {self.train.steps:,}: choose a smaller decay, at most "
                f"{1 - 1 / self.train.steps:.6g}"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "RunConfig":
        row, name = objective(self.objective.name), self.objective.name
        try:
            family = architecture(self.model.name).family
            refuse_backbone(row, name, self.model.name, family)
            refuse_idle(row, name, self.model)
        except InputError as error:
            raise ValueError(str(error)) from None
        if isinstance(self.data, Mixture) and not row.takes(TASKS):
            raise ValueError(
                f"objective.name {name} needs images (data.path), not data.tasks; these fit "
                f"{fitting(TASKS)}"
            )
        if isinstance(self.data, Data) and not row.takes(IMAGES):
            raise ValueError(
                f"objective.name {name} learns labels of data.tasks, and this run has images "
                f"(data.path), which fit {fitting(IMAGES)}; the labels of a data set are read by "
                f"'data={{tasks: {{NAME: {{reader: shards, path: {self.data.path}}}}}}}'"
            )
        return self

    @property
    def source(self) -> str:
        """Where samples come from: shards, synthetic, mixture."""
        if isinstance(self.data, Mixture):
            return "mixture"
        return SYNTHETIC if self.data.path == SYNTHETIC else "shards"

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, every option named."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def recipes() -> dict[str, str]:
    """Return the text of every recipe in the package by name, in the order of their names."""
    folder = files("hpcgeo.recipes")
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {
        entry.name.removesuffix(".yaml"): entry.read_text("utf-8")
        for entry in sorted(found, key=lambda entry: entry.name)
    }


def load(recipe: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the configuration of a recipe with overrides applied.

    Args:
        recipe: the name of a recipe of the package, or the path of a YAML file. A file with
            ``extends: RECIPE`` says what it changes of another one, which is named likewise.
        overrides: ``"train.steps=20"``; the value is read as YAML.

    Raises:
        InputError: no such recipe, YAML that does not parse, or a value that breaks a rule; the
            message names key, value and rule, and the nearest key where the key is unknown.
    """
    values = _read(recipe)
    typed = dict(_override(text) for text in overrides)
    _switch(values, typed)
    for key, value in typed.items():
        _apply(values, key, value)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(_explain(error, recipe, values, typed))) from None


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Return ``"key: old -> new"`` for every option that a resumed run must not change."""
    fixed_old, fixed_new = fixed(old), fixed(new)
    return [
        f"{key}: {fixed_old.get(key)} -> {fixed_new.get(key)}"
        for key in sorted(fixed_old.keys() | fixed_new.keys())
        if fixed_old.get(key) != fixed_new.get(key)
    ]


def fixed(run: RunConfig) -> dict[str, str]:
    """Return the options that a resumed run must not change, as text."""
    return {key: str(value) for key, value in _fixed(run).items()}


def _read(recipe: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values of a recipe over those of the recipe that it extends."""
    known = recipes()
    if recipe.endswith(SUFFIXES):
        hint = ": give a YAML file that is there, or a name of `hpcgeo list recipes`"
        values = own(Path(recipe), "recipe", hint)
    elif recipe in known:
        values = parse(known[recipe], f"recipe {recipe}")
    else:
        raise InputError(
            f"unknown recipe {brief(recipe)}{nearest(recipe, known)}; give a YAML file (*.yaml) or "
            f"one of: {', '.join(known)}"
        )
    if not isinstance(values, dict):
        raise InputError(
            f"recipe {recipe}: expected a mapping of options, found {brief(values)}: "
            f"`hpcgeo train mae_vit_tiny --print` shows one"
        )
    if EXTENDS not in values:
        return values
    base = values.pop(EXTENDS)
    if not isinstance(base, str):
        raise InputError(f"recipe {recipe}: {EXTENDS} {brief(base)}: name one recipe, or a file")
    beside = Path(recipe).parent / base  # a file is looked for beside the one that names it
    base = str(beside) if base.endswith(SUFFIXES) else base
    if base in (*below, recipe):
        raise InputError(f"recipe {recipe}: {EXTENDS} {base}: they extend each other")
    found, said = _read(base, (*below, recipe)), dict(_flat(values))
    _switch(found, said)
    found["run"] = {"dir": f"runs/{Path(recipe).stem}"}  # never that of the other
    for key, value in said.items():
        _apply(found, key, value)
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted options and their values; tasks stay together: who names some names all."""
    for key, value in values.items():
        if isinstance(value, dict) and value and f"{prefix}{key}" != "data.tasks":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"override {brief(text)}: write it as key=value, e.g. train.steps=20")
    return key, parse(value, f"override {brief(text)}")


def _apply(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(
                f"{key}={brief(value)}: {brief(parent)} is a value, not a group of options"
            )
    place[last] = value


def _switch(values: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Drop what a recipe says of an objective or of data that is replaced by another kind."""
    old, name = values.get("objective"), said.get("objective.name")
    if name and isinstance(old, dict) and name != old.get("name", "mae"):
        values["objective"] = {}
    data = values.get("data")
    if isinstance(data, dict):
        to_tasks = any(key.startswith("data.tasks.") or key == "data.tasks" for key in said)
        if ("tasks" in data and "data.path" in said) or ("tasks" not in data and to_tasks):
            values["data"] = {}


def _explain(
    error: ValidationError, recipe: str, values: dict[str, Any], typed: Mapping[str, Any]
) -> list[str]:
    """Return a line for each value that breaks a rule: what, which rule, the way out."""
    keys = list(_keys(values))
    lines: dict[str, str] = {}
    for detail in error.errors():
        place = place_of(detail)
        part, group = _part(place[:-1], values), _part(place, values)
        if place[1:2] and place[1] in TAGS:
            del place[1]
        key, value = ".".join(place), brief(detail["input"])
        if detail["type"] == "extra_forbidden":
            *parents, last = place
            known = list(part.model_fields)
            where = f"in {'.'.join(parents)!r}" if parents else "at the top"
            siblings = [".".join((*parents, each)) for each in close(last, known)]
            found = same(key, keys) or same(last, keys) or siblings or close(key, keys)
            lines[key] = f"unknown option {brief(key)}{did_you_mean(found)}; known {where}: "
            lines[key] += ", ".join(known)
        elif detail["type"] == "missing" and place[-1].isdigit():
            lines[key] = f"{'.'.join(place[:-1])} = {value}: too few values"
        elif detail["type"] == "missing":
            if group is not part:  # a group: what it asks for
                fields = group.model_fields.items()
                asked = [name for name, field in fields if field.is_required()]
                key += f".{asked[0]}" if asked else ""
            lines[key] = f"{key} is missing; set it in the recipe or as {key}=VALUE"
        elif detail["type"] in GROUPS:
            known = list(group.model_fields)
            lines[key] = f"{key} = {value}: it has options of its own: {', '.join(known)}"
        elif key in lines:
            lines[key] += f", or {rule_of(detail)}"
        elif key:
            lines[key] = f"{key} = {value}: {rule_of(detail)}"
        else:
            lines[key] = (rule := rule_of(detail)) + _origins(rule, keys, values, typed)
    return [f"{recipe}: {line}" for line in lines.values()]


def _origins(
    rule: str, keys: Iterable[str], values: dict[str, Any], typed: Mapping[str, Any]
) -> str:
    """Say of options that a rule names and nobody typed where they come from."""
    said = set(dict(_flat(values)))
    named = [key for key in keys if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", rule)]
    others = [
        key for key in named if not any(key == one or key.startswith(f"{one}.") for one in typed)
    ]
    if len(others) == len(named):
        return ""
    words = [f"{key} is {'of the recipe' if key in said else 'the default'}" for key in others]
    return f" ({'; '.join(words)})" if words else ""


def _keys(values: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield every dotted option that a run of these values may have."""
    part = _part(place, values)
    for name, field in part.model_fields.items():
        more = ["NAME"] if get_origin(field.annotation) is dict else []
        more += [_kind_of_data(values.get("data"))] if (*place, name) == ("data",) else []
        below = (*place, name, *more)
        if _part(below, values) is part:
            yield ".".join(step for step in (*place, name) if step not in TAGS)
        else:
            yield from _keys(values, below)


def _options_of(said: Any) -> type[ObjectiveOptions]:
    """Return the class of the options of an objective, of any one where the name is unknown."""
    try:
        return objective_options(said if isinstance(said, dict) else {})
    except ValueError:
        return ObjectiveOptions


def _part(place: Sequence[str], values: dict[str, Any]) -> type[BaseModel]:
    """Return which part lies at a place, as pydantic writes it: with tags, and names in dicts."""
    part: type[BaseModel] = RunConfig
    for number, step in enumerate(place):
        if number == 1 and step in TAGS:
            part = TAGS[step]
        elif number == 0 and step == "objective":
            part = _options_of(values.get("objective"))
        elif step in part.model_fields:
            annotation = part.model_fields[step].annotation
            of_entries = get_args(annotation)[-1:] if get_origin(annotation) is dict else ()
            found = of_entries[0] if of_entries else annotation
            if isinstance(found, type) and issubclass(found, BaseModel):
                part = found
    return part


def _fixed(part: OptionGroup, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in type(part).model_fields.keys() - part.marked("free_on_resume"):
        value = getattr(part, name)
        if isinstance(value, OptionGroup):
            values |= _fixed(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, entry in value.items():
                values |= _fixed(entry, f"{prefix}{name}.{key}.")
        else:
            values[prefix + name] = value
    return values
