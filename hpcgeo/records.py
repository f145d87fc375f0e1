"""The profile record: one JSON line that says what was measured, of what, where and how.

A file of records is JSON lines; records are appended, never changed. Three kinds are never mixed:
``measured`` (this code, from a clock), ``published`` (read from a paper) and ``predicted`` (by
arithmetic). Two records may stand on one axis where their `key` agrees but for `SOFT`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from hpcgeo import job_options
from hpcgeo import options as options_of
from hpcgeo.errors import InputError
from hpcgeo.json_lines import TornError, append_line, lines, parsed
from hpcgeo.log import log
from hpcgeo.measured import (
    ABOVE_ZERO,
    Activity,
    Count,
    CrossCheck,
    Energy,
    Memory,
    Phases,
    RecordPart,
    Shown,
    Spread,
    Traffic,
    Transfer,
    Wait,
)
from hpcgeo.variables import of

MISSING = "not recorded"
#: What bands and chip of a mixture are.
SEVERAL = "of several data sets"

#: A record is noisy where (p90 - p10) / median of its step time, or of its tokens per second,
#: exceeds this.
NOISY = 0.25

#: The parts of a run, as `hpcgeo.config.RunConfig` joins them, beside those of its objective.
_PARTS: dict[str, tuple[type[options_of.OptionGroup], ...]] = {
    "run": (job_options.RunPlace,),
    "model": (options_of.Model,),
    "data": (options_of.Data, options_of.Mixture),
    "parallel": (options_of.Parallel,),
    "optim": (options_of.Optim,),
    "train": (options_of.Train,),
    "checkpoint": (job_options.Checkpoint,),
    "launch": (job_options.Launch,),
}

#: Options of the resolved configuration that do not make two points unlike: those so marked, and
#: those that stand above this layer.
NEUTRAL = (
    *("seed", "objective.name", "objective.patience"),
    *(
        f"{name}.{option}"
        for name, parts in _PARTS.items()
        for part in parts
        for option in part.marked("neutral")
    ),
)
_NEUTRAL_PARTS = tuple(
    f"{name}." for name, parts in _PARTS.items() if all("neutral" in part.marks for part in parts)
)

#: Versions beside torch that change speed.
SOFTWARE = ("cuda", "hip", "nccl", "rccl", "deepspeed")

#: Entries of a key that mark a point which differs in them from its line, and do not part them.
SOFT = ("torch", "software", "environment")

#: Entries of a key that a point knows only once it has started.
UNSTARTED = ("device", "transport", "software", "environment")


class Record(RecordPart):
    """One point of a scaling study. A field that was not measured is None, never zero."""

    schema_version: Annotated[Literal[1, 2], Shown("made")] = Field(
        2, description="2 adds fields to 1; a larger is refused"
    )
    schema_minor: Annotated[Count, Shown("omissions")] = Field(
        0, description="of a larger, fields that are not known are left out, and that is said"
    )
    kind: Annotated[Literal["measured", "published", "predicted"], Shown("head")]
    status: Annotated[Literal["ok", "failed", "out_of_memory"], Shown("omissions")] = "ok"
    error: Annotated[str | None, Shown("omissions")] = Field(
        None, description="why the point failed, in one line"
    )

    machine: Annotated[str, Shown("head")]
    device: Annotated[str, Shown("head")] = Field(
        description="what one rank drives, e.g. 'AMD EPYC, 1 thread'"
    )
    hosts: Annotated[list[str], Shown("made")] = Field([])
    nodes: Annotated[Count, Shown("scaling"), ABOVE_ZERO]
    world_size: Annotated[Count, Shown("scaling"), ABOVE_ZERO] = Field(
        description="ranks = devices"
    )

    model: Annotated[str, Shown("head")]
    parameters: Annotated[Count | None, Shown("scaling")] = Field(
        None, description="trained parameters, encoder and decoder"
    )
    objective: Annotated[str, Shown("head")]
    bands: Annotated[Count | None, Shown("head")] = None
    chip: Annotated[tuple[Count, Count] | None, Shown("head")] = Field(
        None, description="height, width in pixels; None: samples of several sizes"
    )
    strategy: Annotated[str, Shown("scaling")]
    group_size: Annotated[Count | None, Shown("scaling")] = None
    dtype: Annotated[str, Shown("head")]
    micro_batch: Annotated[Count, Shown("scaling"), ABOVE_ZERO]
    accumulate: Annotated[Count, Shown("scaling"), ABOVE_ZERO]
    global_batch: Annotated[Count, Shown("scaling"), ABOVE_ZERO]
    data: Annotated[str, Shown("head")] = Field(
        description="shards, synthetic (generated), or cached: the first batches, kept in memory"
    )
    recompute: Annotated[str, Shown("head")] = Field(
        MISSING, description="none, full, selective, or every k-th block"
    )
    communication: Annotated[Literal["on", "off"], Shown("head")] = Field(
        "on", description="off: ranks exchange no gradients, so it is no training"
    )

    warmup_steps: Annotated[Count | None, Shown("made")] = Field(
        None, description="steps discarded before measuring"
    )
    stable: Annotated[bool | None, Shown("omissions")] = Field(
        None, description="whether steps had stopped getting faster"
    )
    images_per_s: Annotated[float | None, Shown("scaling"), ABOVE_ZERO] = Field(
        None, description="all ranks; global_batch / median step"
    )
    tokens_per_s: Annotated[Spread | None, Shown("batching")] = Field(
        None, description="of each step, all ranks, without padding"
    )
    padding: Annotated[float | None, Shown("batching")] = Field(
        None, ge=0, lt=1, description="padding / (padding + tokens), median"
    )
    step_s: Annotated[Spread | None, Shown("steps")] = Field(
        None, description="seconds per step, slowest rank"
    )
    data_wait_s: Annotated[float | None, Shown("steps")] = Field(
        None, description="median wait for data per step: of the host, slowest rank"
    )
    comm_s: Annotated[float | None, Shown("steps")] = Field(
        None, description="seconds per step in which a collective runs"
    )
    phases: Annotated[Phases | None, Shown("steps")] = None
    activity: Annotated[Activity | None, Shown("steps")] = None
    traffic: Annotated[list[Traffic], Shown("collectives")] = Field([])
    wait: Annotated[Wait | None, Shown("stragglers")] = None
    cross_check: CrossCheck | None = None
    peak_memory_bytes: Annotated[Count | None, Shown("memory"), ABOVE_ZERO] = Field(
        None, description="worst rank"
    )
    memory_source: Annotated[str | None, Shown("memory")] = Field(
        None, description="'reserved' (device) or 'resident' (host)"
    )
    memory: Annotated[Memory | None, Shown("memory")] = None
    predicted_memory: Annotated[Memory | None, Shown("predictions")] = Field(
        None, description="by `hpcgeo.plan`, in closed form"
    )
    model_flops: Annotated[float | None, Shown("mfu"), ABOVE_ZERO] = Field(
        None, description="forward + backward per step, all ranks"
    )
    counted_flops: Annotated[float | None, Shown("mfu"), ABOVE_ZERO] = Field(
        None, description="of a step as executed, recompute included, all ranks, by counting"
    )
    executed_flops: Annotated[float | None, Shown("mfu"), ABOVE_ZERO] = Field(
        None, description="the same in closed form"
    )
    peak_flops_per_s: Annotated[float | None, Shown("mfu"), ABOVE_ZERO] = Field(
        None, description="of one device, at this dtype"
    )
    peak_source: Annotated[str | None, Shown("mfu")] = Field(
        None, description="'measured' or 'tabled'"
    )
    mfu: Annotated[float | None, Shown("mfu"), ABOVE_ZERO] = None
    hfu: Annotated[float | None, Shown("mfu"), ABOVE_ZERO] = Field(
        None, description="as mfu, of the executed FLOPs"
    )
    product_flops_per_s: Annotated[float | None, Shown("mfu"), ABOVE_ZERO] = Field(
        None, description="of one device: a matrix product in the same run, all ranks at once"
    )
    energy: Annotated[Energy | None, Shown("energy")] = None

    versions: Annotated[dict[str, str], Shown("made")] = Field({})
    driver: Annotated[str | None, Shown("made")] = None
    environment: Annotated[dict[str, str], Shown("head")] = Field(
        {}, description="variables that change speed"
    )
    commit: Annotated[str | None, Shown("made")] = None
    dirty: Annotated[bool | None, Shown("omissions")] = None
    command: Annotated[str | None, Shown("made")] = None
    created: Annotated[str, Shown("made")] = Field(description="UTC, ISO 8601")
    source: Annotated[str | None, Shown("made")] = Field(
        None, description="where a published point was read"
    )
    notes: Annotated[list[str], Shown("omissions")] = Field(
        [], description="what a reader must know wherever the point appears"
    )
    config: Annotated[dict[str, Any] | None, Shown("head")] = Field(
        None, description="the resolved RunConfig"
    )

    @property
    def layout(self) -> str:
        """The strategy with its group size, e.g. ``HYBRID_SHARD(2)``."""
        return f"{self.strategy}({self.group_size})" if self.group_size else self.strategy

    @property
    def key(self) -> dict[str, str]:
        """What must agree between two points on one axis, beside micro-batch or global batch.

        `transport` is empty on one node, which has no network, and agrees with any; of `SOFT` a
        difference marks a point.
        """
        unknown = SEVERAL if self.mixed else MISSING
        return {
            "kind": self.kind,
            "machine": self.machine,
            "device": self.device,
            "model": self.model,
            "objective": self.objective,
            "bands": unknown if self.bands is None else str(self.bands),
            "chip": unknown if self.chip is None else f"{self.chip[0]} x {self.chip[1]}",
            "dtype": self.dtype,
            "recompute": self.recompute,
            "data": self.data,
            "communication": self.communication,
            "transport": pairs(of(self.environment, "transport")) if self.nodes > 1 else "",
            "torch": self.versions.get("torch", MISSING),
            "software": software(self),
            "environment": pairs(of(self.environment, "tuning")),
            "options": MISSING if self.config is None else json.dumps(options(self.config)),
        }

    @property
    def surroundings(self) -> dict[str, str]:
        """Versions, driver and variables that may change speed, by name."""
        return {"torch": self.versions.get("torch", MISSING), **_versions(self)} | of(
            self.environment, "tuning"
        )

    @property
    def mixed(self) -> bool:
        """Whether its samples are those of several data sets, unlike in size."""
        data = (self.config or {}).get("data")
        return isinstance(data, dict) and "tasks" in data

    @property
    def bare(self) -> bool:
        """Whether communication or reading was left out of its steps, to see what they cost."""
        return self.communication == "off" or self.data == "cached"

    @property
    def noisy(self) -> bool:
        """Whether the step times spread too far to be trusted.

        Where steps differ in their tokens, so do their times: then it is tokens per second.
        """
        pace = self.tokens_per_s or self.step_s
        return pace is not None and pace.relative > NOISY


class LinksRecord(RecordPart):
    """What `hpcgeo-profile collectives` measured: one JSON line in a file ``links*.jsonl``."""

    schema_version: Literal[1] = 1
    kind: Literal["measured", "published"]
    machine: str
    device: str
    hosts: list[str] = Field([])
    nodes: Count
    world_size: Count
    backend: str = Field(description="gloo, nccl")
    transfers: list[Transfer]
    versions: dict[str, str] = Field({})
    driver: str | None = None
    environment: dict[str, str] = Field({})
    commit: str | None = None
    dirty: bool | None = None
    command: str | None = None
    created: str = Field(description="UTC, ISO 8601")
    source: str | None = None


Line = TypeVar("Line", Record, LinksRecord)


def software(made: Record | LinksRecord) -> str:
    """Return the versions beside torch that change speed, and the driver, as text."""
    return pairs(_versions(made))


def _versions(made: Record | LinksRecord) -> dict[str, str]:
    found = {name: made.versions[name] for name in SOFTWARE if name in made.versions}
    return found | ({"driver": made.driver} if made.driver else {})


def pairs(named: Mapping[str, str]) -> str:
    """Return names with their values as text."""
    return ", ".join(f"{name} {value}" for name, value in sorted(named.items())) or MISSING


def options(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the dotted options of a resolved configuration that make two points unlike."""
    return {
        key: value
        for key, value in sorted(_flat(config or {}).items())
        if key not in NEUTRAL and not key.startswith(_NEUTRAL_PARTS)
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def append(path: Path, record: Record | LinksRecord) -> None:
    """Append one line to a file of records, in one write; a line torn before it stays alone."""
    append_line(path, record.model_dump_json())


def read(
    paths: Iterable[Path],
    torn: Callable[[str], None] | None = None,
    newer: Callable[[str], None] | None = None,
) -> list[Record]:
    """Return all records of files and folders (searched for ``records*.jsonl``, ``record.json``).

    Args:
        torn: told of a line that is not JSON, which is then left out; None: it is an error.
        newer: told of each field that a record of a newer minor version has beside ours, and that
            is left out; None: it is an error.

    Raises:
        InputError: nothing there, a record of a newer version, or a line that is not a record; the
            message names file and line.
    """
    return _read(Record, paths, ("record.json", "records*.jsonl"), torn, newer)


def read_on(paths: Iterable[Path], newer: Callable[[str], None] | None = None) -> list[Record]:
    """Return all records as `read` does, without lines torn by a job that was killed.

    Raises:
        InputError: as `read`; there is no line but torn ones.
    """
    torn: list[str] = []
    found = read(paths, torn.append, newer)
    if torn and not found:
        raise InputError(torn[0])
    if torn:
        more = f", and {len(torn) - 1:,} more lines" if len(torn) > 1 else ""
        log.warning("%s%s: left out", torn[0], more)
    return found


def read_links(paths: Iterable[Path]) -> list[LinksRecord]:
    """Return what was measured of collectives in files and folders (``links*.jsonl``).

    Raises:
        InputError: as `read`.
    """
    return _read(LinksRecord, paths, ("links*.jsonl",))


def _read(
    kind: type[Line],
    paths: Iterable[Path],
    patterns: Sequence[str],
    torn: Callable[[str], None] | None = None,
    newer: Callable[[str], None] | None = None,
) -> list[Line]:
    found = []
    for place, line in lines(paths, patterns):
        try:
            found.append(parsed(kind, line, place, newer))
        except TornError as error:
            if torn is None:
                raise
            torn(str(error))
    return found
