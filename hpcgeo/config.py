"""Every knob of a run, strict: YAML in and out, dotted overrides, errors that name the rule."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from hpcgeo.errors import InputError
from hpcgeo.tables import brief, nearest, parse

#: Marks a knob that may differ when a run is resumed: it changes how fast, not what, is computed.
FREE: Any = {"free_on_resume": True}

SYNTHETIC = "synthetic"

Beta = Annotated[float, Field(ge=0, lt=1)]


class Part(BaseModel):
    """A strict, immutable piece of the configuration."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class Place(Part):
    """Where the run lives."""

    dir: Path = Field(description="folder of the run; an existing run there is resumed")


class Model(Part):
    """What is trained."""

    name: str = Field(description="a row of `hpcgeo list models`")
    weights: Path | None = Field(
        None,
        description="start from this safetensors file: an export under our names, or a ViTMAE of "
        "transformers; by default from random numbers",
    )


class Augment(Part):
    """Random views, drawn from (seed, epoch, position) of the sample."""

    scale: tuple[float, float] = Field((0.2, 1.0), description="area of the crop, as a fraction")
    ratio: tuple[float, float] = Field((0.75, 4 / 3), description="aspect ratio of the crop")
    flip: bool = Field(True, description="mirror left-right and up-down, each with probability 1/2")
    rotate: bool = Field(True, description="rotate by a random multiple of 90 degrees")

    @field_validator("scale", "ratio")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        low, high = value
        if not 0 < low <= high:
            raise ValueError("the range needs 0 < low <= high")
        return value


class Data(Part):
    """Where samples come from and what is done to them."""

    path: str = Field(
        SYNTHETIC,
        description="folder written by `hpcgeo data build`, or 'synthetic': generated in memory",
    )
    layout: str | None = Field(
        None, description="which layout of the data set, where it has several (`hpcgeo data info`)"
    )
    chip: tuple[PositiveInt, PositiveInt] = Field(
        (224, 224), description="height and width fed to the model; one number means square"
    )
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="reader processes per rank; 0 reads in the rank",
        json_schema_extra=FREE,
    )
    augment: Augment = Augment()

    @field_validator("chip", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value


class Objective(Part):
    """Masked autoencoding (He et al. 2021, arXiv 2111.06377)."""

    name: Literal["mae"] = "mae"
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="fraction of patches that is hidden")
    normalise_target: bool = Field(
        True, description="predict patches normalised by their own mean and deviation"
    )


class Parallel(Part):
    """How the model is spread over ranks. Ranks = data-parallel ranks x tensor."""

    backend: Literal["native", "deepspeed"] | None = Field(
        None,
        description="native: DDP and FSDP2; deepspeed: ZeRO; by default that of the strategy",
        json_schema_extra=FREE,
    )
    strategy: str = Field(
        "DDP", description="a row of `hpcgeo list strategies`", json_schema_extra=FREE
    )
    group_size: PositiveInt | None = Field(
        None,
        description="ranks that together hold one copy; hybrid strategies only",
        json_schema_extra=FREE,
    )
    tensor: PositiveInt = Field(
        1,
        description="ranks over which the products of a block are cut (tensor parallelism)",
        json_schema_extra=FREE,
    )
    recompute: Literal["none", "full", "selective"] | PositiveInt = Field(
        "none",
        description="activations computed again in backward: none; full: of every block; k: of "
        "every k-th block; selective: all but matrix products",
        json_schema_extra=FREE,
    )
    compile: bool = Field(False, description="torch.compile for each block", json_schema_extra=FREE)
    offload: bool = Field(
        False,
        description="keep parameters, gradients and optimizer in the host's memory",
        json_schema_extra=FREE,
    )
    reduce_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of gradients while they are summed over ranks; bfloat16 halves the bytes and "
        "is unstable on some hundred ranks",
        json_schema_extra=FREE,
    )
    forward_prefetch: PositiveInt | None = Field(
        None,
        description="blocks gathered ahead in forward; by default one, once the host gets there",
        json_schema_extra=FREE,
    )
    backward_prefetch: PositiveInt | None = Field(
        None, description="blocks gathered ahead in backward; by default 1", json_schema_extra=FREE
    )


class Optim(Part):
    """AdamW with linear warm-up and cosine decay."""

    base_lr: float = Field(
        1.5e-4, gt=0, description="learning rate of a global batch of 256, scaled linearly with it"
    )
    min_lr: float = Field(0.0, ge=0, description="learning rate at the last step")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0, description="on matrices; not on biases and norms")
    clip: float | None = Field(None, gt=0, description="largest norm of the whole gradient")


class Train(Part):
    """How long, in which portions and in which precision."""

    steps: PositiveInt = Field(description="optimizer steps of the whole run")
    micro_batch: PositiveInt = Field(
        32, description="samples of one forward on one rank", json_schema_extra=FREE
    )
    accumulate: PositiveInt = Field(1, description="micro-batches per step", json_schema_extra=FREE)
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="of the arithmetic; weights and optimizer stay in float32"
    )
    log_every: PositiveInt = Field(
        10, description="steps between lines in a job log", json_schema_extra=FREE
    )
    reconstruct_every: int | None = Field(
        0,
        ge=0,
        description="steps between pictures of reconstructions; 0: only at the end; null: none",
        json_schema_extra=FREE,
    )
    max_skips: PositiveInt = Field(
        5,
        description="steps in a row that may be skipped because loss or gradient is not finite",
        json_schema_extra=FREE,
    )
    patience_s: float = Field(
        20.0,
        ge=1,
        description="seconds without a sign of life of a rank, or without progress in a step, "
        "after which the job ends; a step may always take 10 times the longest before it. A file "
        "system that stalls for longer silences ranks that read themselves (data.workers=0)",
        json_schema_extra=FREE,
    )


class Checkpoint(Part):
    """What is kept of the training state."""

    every: int = Field(
        100,
        ge=0,
        description="steps between checkpoints; 0: none, not even at the end",
        json_schema_extra=FREE,
    )
    keep: PositiveInt = Field(2, description="newest checkpoints kept", json_schema_extra=FREE)
    keep_every: PositiveInt | None = Field(
        None,
        description="checkpoints of every n-th step are kept for ever; a multiple of `every`",
        json_schema_extra=FREE,
    )
    asynchronous: bool = Field(
        True,
        description="train on while a copy of the state on the host is written; false: wait, and "
        "need no copy",
        json_schema_extra=FREE,
    )

    @model_validator(mode="after")
    def _some_are_kept(self) -> "Checkpoint":
        if self.keep_every and (not self.every or self.keep_every % self.every):
            raise ValueError(
                f"keep_every {self.keep_every} is no multiple of every {self.every}: no checkpoint "
                f"falls on these steps"
            )
        return self


class Launch(Part):
    """Where the run runs and for how long."""

    machine: str = Field(
        "local", description="a row of `hpcgeo list machines`", json_schema_extra=FREE
    )
    threads: PositiveInt | None = Field(
        None,
        le=4096,
        description="threads of a rank that drives no GPU; by default its share of the cores",
        json_schema_extra=FREE,
    )
    meet_s: float = Field(
        50.0,
        gt=0,
        description="seconds that ranks wait for each other at the start",
        json_schema_extra=FREE,
    )
    time_limit: float | None = Field(
        None,
        gt=0,
        description="seconds within which the run saves and stops; by default the job's own end",
        json_schema_extra=FREE,
    )
    requeue: Path | None = Field(
        None,
        description="file that rank 0 leaves when a stopped run can go on; the job script, which "
        "names it, then asks Slurm to requeue the job",
        json_schema_extra=FREE,
    )


class RunConfig(Part):
    """The whole configuration of a run; saved beside its checkpoints and inside its record."""

    run: Place
    seed: int = Field(0, ge=0, lt=2**32)
    model: Model
    data: Data = Data()
    objective: Objective = Objective()
    parallel: Parallel = Parallel()
    optim: Optim = Optim()
    train: Train
    checkpoint: Checkpoint = Checkpoint()
    launch: Launch = Launch()

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "RunConfig":
        if self.optim.warmup_steps > self.train.steps:
            raise ValueError(
                f"optim.warmup_steps {self.optim.warmup_steps} is longer than train.steps "
                f"{self.train.steps}: shorten the warm-up or train longer"
            )
        return self

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, every knob named."""
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
        recipe: the name of a recipe of the package, or the path of a YAML file.
        overrides: ``"train.steps=20"``; the value is read as YAML.

    Raises:
        InputError: no such recipe, YAML that does not parse, or a value that breaks a rule; the
            message names key, value and rule, and the nearest key where the key is unknown.
    """
    values = _parse(_text(recipe), recipe)
    for override in overrides:
        _apply(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError("\n".join(_explain(error, recipe))) from None


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Return ``"key: old -> new"`` for every knob that a resumed run must not change."""
    fixed_old, fixed_new = _fixed(old), _fixed(new)
    return [
        f"{key}: {fixed_old.get(key)} -> {fixed_new.get(key)}"
        for key in sorted(fixed_old.keys() | fixed_new.keys())
        if fixed_old.get(key) != fixed_new.get(key)
    ]


def _text(recipe: str) -> str:
    if recipe.endswith((".yaml", ".yml")):
        try:
            return Path(recipe).read_text("utf-8")
        except OSError as error:
            raise InputError(f"recipe {recipe}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"recipe {recipe}: not a text file in UTF-8") from None
    known = recipes()
    if recipe not in known:
        raise InputError(
            f"unknown recipe {brief(recipe)}{nearest(recipe, known)}; give a YAML file (*.yaml) or "
            f"one of: {', '.join(known)}"
        )
    return known[recipe]


def _parse(text: str, recipe: str) -> dict[str, Any]:
    values = parse(text, f"recipe {recipe}")
    if not isinstance(values, dict):
        raise InputError(f"recipe {recipe}: expected a mapping of knobs, found {brief(values)}")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"override {brief(override)}: write it as key=value, e.g. train.steps=20")
    value = parse(text, f"override {brief(override)}")
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(
                f"override {brief(override)}: {brief(parent)} is a value, not a group of knobs"
            )
    place[last] = value


def _explain(error: ValidationError, recipe: str) -> list[str]:
    lines = []
    for detail in error.errors():
        key = ".".join(str(step) for step in detail["loc"])
        if detail["type"] == "extra_forbidden":
            *parents, last = (str(step) for step in detail["loc"])
            known = _keys(parents)
            where = f"in {'.'.join(parents)!r}" if parents else "at the top"
            lines.append(
                f"{recipe}: unknown knob {brief(key)}{nearest(last, known)}; "
                f"known {where}: {', '.join(known)}"
            )
        elif detail["type"] == "missing":
            lines.append(f"{recipe}: {key} is missing; set it in the recipe or as {key}=VALUE")
        else:
            rule = detail["msg"].removeprefix("Value error, ")
            value = f" = {brief(detail['input'])}" if key else ""
            lines.append(f"{recipe}: {key}{value}: {rule}")
    return lines


def _keys(parents: Sequence[str]) -> list[str]:
    part: type[BaseModel] = RunConfig
    for parent in parents:
        annotation = part.model_fields[parent].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        part = annotation
    return list(part.model_fields)


def _fixed(part: BaseModel, prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        extra = field.json_schema_extra
        if isinstance(extra, Mapping) and extra.get("free_on_resume"):
            continue
        if isinstance(value, Place):
            continue
        if isinstance(value, BaseModel):
            values |= _fixed(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = value
    return values
