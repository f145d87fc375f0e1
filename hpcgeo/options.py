"""The options of a run, part by part: strict pydantic models, each with its description.

Those of the job, where it lives and what it keeps, stand in `hpcgeo.job_options`. `hpcgeo.config`
joins all, reads them from YAML and explains what is wrong with them.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

#: Marks of an option (`json_schema_extra`) or a part (`marks`): may change when a run is resumed.
FREE: dict[str, Any] = {"free_on_resume": True}
#: Makes no two points of a study unlike: the record states it, or no work inside a step changes.
NEUTRAL: dict[str, Any] = {"neutral": True}
#: Of no effect elsewhere: its default asks for nothing.
BY_STRATEGY: dict[str, Any] = {"only": "strategies that take it"}
PERCEIVER: dict[str, Any] = {"only": "perceiver"}
BY_OBJECTIVE: dict[str, Any] = {"only": "objectives that take it"}

SYNTHETIC = "synthetic"


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 < low <= high:
        raise ValueError("the range needs 0 < low <= high")
    return value


#: From and to, above zero.
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Part = Annotated[tuple[Fraction, Fraction], AfterValidator(_ordered)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptionGroup(BaseModel):
    """A strict, immutable piece of the configuration."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )
    marks: ClassVar[dict[str, Any]] = {}

    @classmethod
    def marked(cls, mark: str) -> dict[str, Any]:
        """Return the options that carry a mark, with its value."""
        own: dict[str, Any] = {n: f.json_schema_extra or {} for n, f in cls.model_fields.items()}
        marks = {name: cls.marks | extra for name, extra in own.items()}
        return {name: found[mark] for name, found in marks.items() if mark in found}


class Model(OptionGroup):
    """What is trained."""

    name: str = Field(
        description="a row of `hpcgeo list models`, or a YAML file",
        json_schema_extra=NEUTRAL,
    )
    weights: Path | None = Field(
        None,
        description="start from this run (run.dir), export for safetensors or transformers, or "
        "public ViT: its folder or file; by default from random numbers",
    )
    depth: PositiveInt | None = Field(
        None, description="blocks of a Perceiver; or its row's", json_schema_extra=PERCEIVER
    )
    latents: PositiveInt | None = Field(
        None, description="latents of a Perceiver; or its row's", json_schema_extra=PERCEIVER
    )
    density: str = Field(
        "uniform",
        description="how what is known of a coordinate is spread around it, in a Perceiver: "
        "uniform, normal, triangular, or a density as an expression in u on [-1, 1]",
        json_schema_extra=PERCEIVER,
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="stochastic depth: how often a sample skips what the last block adds, in "
        "training; 0 at the first block and linear between",
        json_schema_extra=BY_OBJECTIVE,
    )
    lora_rank: PositiveInt | None = Field(
        None,
        description="LoRA: the weights of the backbone stay those of model.weights, and matrices "
        "of this rank are trained that are added to each of its blocks' (alpha: the rank); an "
        "export holds the sums; by default all weights are trained",
        json_schema_extra=BY_OBJECTIVE,
    )

    @model_validator(mode="after")
    def _adapts_something(self) -> "Model":
        if self.lora_rank and self.weights is None:
            raise ValueError(
                f"model.lora_rank {self.lora_rank} keeps the weights the backbone begins with, "
                f"which are random: give model.weights, or leave it out"
            )
        return self


class Augment(OptionGroup):
    """Random views, drawn from (seed, epoch, position) of the sample."""

    scale: Range = Field((0.2, 1.0), description="area of the crop, as a fraction")
    ratio: Range = Field((0.75, 4 / 3), description="aspect ratio of the crop")
    flip: bool = Field(True, description="mirror left-right and up-down, each with probability 1/2")
    rotate: bool = Field(True, description="rotate by a random multiple of 90 degrees")


class Data(OptionGroup):
    """Where samples come from and what is done to them."""

    path: str = Field(
        SYNTHETIC,
        description="folder written by `hpcgeo data build`, or 'synthetic': generated in memory",
        json_schema_extra=FREE | NEUTRAL,
    )
    layout: str | None = Field(
        None, description="which of its layouts (`hpcgeo data info`), by commas; by default all"
    )
    chip: tuple[PositiveInt, PositiveInt] = Field(
        (224, 224),
        description="height and width fed to the model; one number means square",
        json_schema_extra=NEUTRAL,
    )
    workers: int = Field(
        0, ge=0, le=1024, description="reader processes per rank; 0: none", json_schema_extra=FREE
    )
    augment: Augment = Augment()

    @field_validator("chip", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) else value


class Task(OptionGroup):
    """Labelled samples, and the head that answers for them."""

    reader: str = Field(description="how the data is laid out: a reader of `hpcgeo list readers`")
    path: Path = Field(description="folder or file of the data", json_schema_extra=FREE)
    target: str | None = Field(
        None, description="which label, where the data has several; the reader names them"
    )
    patch: PositiveInt = Field(
        8, description="pixels on a side of a token of an image: 1, 2, 4, 8, 16, 32"
    )
    size: PositiveInt | None = Field(
        None, description="side of an image, to which it is resized; by default as it is"
    )
    labels: float = Field(1.0, gt=0, le=1, description="fraction of the training part that is used")
    split_by_place: float | None = Field(
        None, gt=0, description="degrees of blocks of ground held out whole; or splits of the data"
    )
    leave_out: Path | None = Field(
        None, description="a list of `hpcgeo data duplicates` across splits, not to be trained on"
    )
    weight: float = Field(1.0, gt=0, description="factor of its share of the samples")
    loss: float = Field(1.0, gt=0, description="factor of its loss, where weights are fixed")
    epochs: PositiveInt | None = Field(
        None, description="passes over its training part, after which it ends; by default never"
    )
    metric: str | None = Field(None, description="what it is judged by; or the usual of its kind")
    local: bool = Field(
        True, description="a pixel's query carries what tokens near it say; false: as in the paper"
    )
    place: bool = Field(
        True,
        description="tell the model where a sample lies; false against learning places by heart, "
        "where those of the test part are others",
    )
    head: str = Field(
        "attentive",
        description="what answers for a whole sample: a learned query that attends to the latents, "
        "or linear, a norm and a matrix on their vector (of a ViT the mean of its patches)",
    )
    crop: Part | None = Field(
        None,
        description="area of a random crop of each image in training, as fractions of its frame, "
        "which is resized to it; labels of pixels with it; by default none",
    )
    hide: float = Field(
        0.0, ge=0, lt=1, description="tokens left out in training, against learning few by heart"
    )


class Batching(OptionGroup):
    """How samples of unequal length share a pass."""

    marks = FREE
    mode: Literal["padding", "dbscan", "bins", "packed"] = Field(
        "packed",
        description="padding: all as long as the longest; dbscan: clusters of like length; bins: "
        "sorted, and cut greedily; packed: no padding",
    )
    max_padding: int = Field(1024, ge=0, description="most padding tokens of a cluster or bin")
    max_tokens: PositiveInt = Field(
        2**17,
        description="most tokens of a pass on a rank, or one sample; a step takes as many passes "
        "as the rank with the most tokens needs",
    )


class Mixture(OptionGroup):
    """Labelled data sets of any sensors, mixed."""

    tasks: dict[str, Task] = Field(min_length=1, description="by name")
    only: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of the tasks that are trained; by default all"
    )
    temperature: float = Field(
        2.0,
        ge=1,
        description="shares of tasks go as size^(1 / temperature): 1 by size, large: equal",
    )
    sensors: Path | None = Field(
        None, description="a YAML file of your own sensors, in the form of facts/sensors.yaml"
    )
    flip: bool = Field(True, description="mirror and turn images at random, labels with them")
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="reader processes per rank; 0 reads in the rank",
        json_schema_extra=FREE,
    )
    batching: Batching = Batching()

    @field_validator("tasks")
    @classmethod
    def _named(cls, value: dict[str, Task]) -> dict[str, Task]:
        for name in value:
            if not name.isidentifier():
                raise ValueError(f"{name!r} is no name of a task: letters, digits, underscores")
        return value

    @field_validator("only")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> Any:
        tasks = info.data.get("tasks")  # absent where they are refused themselves
        for name in value or ():
            if tasks and name not in tasks:
                known = ", ".join(tasks)
                raise ValueError(f"no task {name!r}; known: {known}")
        return value

    @property
    def chosen(self) -> dict[str, Task]:
        """The tasks that are trained."""
        only = self.only or self.tasks
        return {name: task for name, task in self.tasks.items() if name in only}


class Parallel(OptionGroup):
    """How the model is spread over ranks. Ranks = data-parallel ranks x tensor."""

    marks = FREE
    backend: Literal["native", "deepspeed"] | None = Field(
        None, description="native: DDP and FSDP2; deepspeed: ZeRO; by default that of the strategy"
    )
    strategy: str = Field(
        "DDP", description="a row of `hpcgeo list strategies`", json_schema_extra=NEUTRAL
    )
    group_size: PositiveInt | None = Field(
        None,
        description="ranks that together hold one copy; hybrid strategies only",
        json_schema_extra=NEUTRAL | BY_STRATEGY,
    )
    tensor: PositiveInt = Field(
        1,
        description="ranks over which the products of a block are cut (tensor parallelism)",
        json_schema_extra=BY_STRATEGY,
    )
    recompute: Literal["none", "full", "selective"] | PositiveInt = Field(
        "none",
        description="activations computed again in backward: none; full: of every block; k: of "
        "every k-th block; selective: all but matrix products",
        json_schema_extra=NEUTRAL,
    )
    compile: bool = Field(False, description="torch.compile for each block")
    offload: bool = Field(
        False,
        description="keep parameters, gradients and optimizer in the host's memory",
        json_schema_extra=BY_STRATEGY,
    )
    reduce_dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of gradients while they are summed over ranks; bfloat16 halves the bytes and "
        "is unstable on some hundred ranks",
    )
    forward_prefetch: PositiveInt | None = Field(
        None,
        description="blocks gathered ahead in forward; by default one, once the host gets there",
        json_schema_extra=BY_STRATEGY,
    )
    backward_prefetch: PositiveInt | None = Field(
        None, description="blocks gathered ahead in backward; or 1", json_schema_extra=BY_STRATEGY
    )


class Optim(OptionGroup):
    """The optimizer, with linear warm-up and cosine decay."""

    name: str = Field("AdamW", description="a row of `hpcgeo list optimizers`")
    base_lr: float = Field(
        1.5e-4,
        gt=0,
        description="learning rate of a global batch of 256, scaled linearly with it",
        json_schema_extra=NEUTRAL,
    )
    min_lr: float = Field(0.0, ge=0, description="at the last step", json_schema_extra=NEUTRAL)
    warmup_steps: int = Field(
        0, ge=0, description="steps of linear warm-up", json_schema_extra=NEUTRAL
    )
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.95),
        description="decay of the running averages of gradient and square",
        json_schema_extra=NEUTRAL,
    )
    weight_decay: float = Field(
        0.05, ge=0, description="on matrices; not on biases and norms", json_schema_extra=NEUTRAL
    )
    momentum: Beta = Field(0.9, description="of SGD, LARS and Muon", json_schema_extra=NEUTRAL)
    ema: Beta | None = Field(
        None,
        gt=0,
        description="decay of a moving average of the weights, over some 1 / (1 - decay) steps, "
        "which is evaluated and exported in their place",
    )
    clip: float | None = Field(None, gt=0, description="largest norm of the whole gradient")
    layer_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="factor of the learning rate from block to block towards the input: the last "
        "block has it once, what embeds most often, heads and the last norm never; by default one "
        "rate for all",
        json_schema_extra=NEUTRAL,
    )
    frozen_steps: int = Field(
        0,
        ge=0,
        description="first steps in which the weights of the backbone stay as they are, and heads "
        "alone are trained; as many as train.steps: a probe on frozen features",
        json_schema_extra=NEUTRAL,
    )


class Train(OptionGroup):
    """How long, in which portions and in which precision."""

    marks = NEUTRAL
    steps: PositiveInt = Field(
        description="optimizer steps of the whole run; one that has ended goes on with more",
        json_schema_extra=FREE,
    )
    micro_batch: PositiveInt = Field(
        32, description="samples of one forward on one rank", json_schema_extra=FREE
    )
    accumulate: PositiveInt = Field(1, description="micro-batches per step", json_schema_extra=FREE)
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="of the arithmetic; weights and optimizer stay in float32"
    )
    log_every: PositiveInt = Field(
        10, description="steps between lines of the log and waits for a GPU", json_schema_extra=FREE
    )
    eval_every: int | None = Field(
        0,
        ge=0,
        description="steps between evaluations: reconstructions, or scores on the validation "
        "split; 0: only at the end; null: none",
        json_schema_extra=FREE,
    )
    max_skips: PositiveInt = Field(
        5,
        description="steps in a row that may be skipped because loss or gradient is not finite",
        json_schema_extra=FREE,
    )
    hang_timeout_s: float = Field(
        20.0,
        ge=1,
        description="seconds without a sign of life of a rank, or without progress in a step, "
        "after which the job ends; a step may always take 10 times the longest before it. A file "
        "system that stalls for longer silences ranks that read themselves (data.workers=0)",
        json_schema_extra=FREE,
    )
