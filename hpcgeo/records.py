"""The profile record: one JSON line that says what was measured, of what, where and how.

A file of records is JSON lines; records are appended, never changed. Three kinds are never mixed:
``measured`` (this code, from a clock), ``published`` (read from a paper) and ``predicted`` (by
arithmetic). Two records may stand on one axis where their `key` agrees.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcgeo import options as options_of
from hpcgeo.errors import InputError

#: What counts something: no file makes it larger than an integer of the machine.
Count = Annotated[int, Field(lt=2**63)]

MISSING = "not recorded"
#: What bands and chip of a mixture are.
SEVERAL = "of several data sets"

#: A record is noisy where (p90 - p10) / median of its step time, or of its tokens per second,
#: exceeds this.
NOISY = 0.25

#: The parts of a run, as `hpcgeo.config.RunConfig` joins them, beside those of its objective.
_PARTS: dict[str, tuple[type[options_of.Part], ...]] = {
    "run": (options_of.Place,),
    "model": (options_of.Model,),
    "data": (options_of.Data, options_of.Mixture),
    "parallel": (options_of.Parallel,),
    "optim": (options_of.Optim,),
    "train": (options_of.Train,),
    "checkpoint": (options_of.Checkpoint,),
    "launch": (options_of.Launch,),
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

#: Entries of a key that a point knows only once it has started.
UNSTARTED = ("device", "software", "environment")


class Part(BaseModel):
    """A strict, immutable piece of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(Part):
    """Median and spread of a list of measurements, with the measurements themselves."""

    median: float
    p10: float
    p90: float
    values: list[float] = []

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        p10, median, p90 = np.percentile(np.asarray(values, dtype=float), [10, 50, 90])
        return cls(median=float(median), p10=float(p10), p90=float(p90), values=list(values))

    @property
    def relative(self) -> float:
        """(p90 - p10) / median."""
        return (self.p90 - self.p10) / self.median


class Phases(Part):
    """Seconds of a step by phase, of the mean rank: means of the middle half of the steps."""

    step_s: float = Field(description="the whole step of the mean rank; phases and rest sum to it")
    data_wait_s: float = Field(description="no batch was there, and a device had nothing to do")
    host_to_device_s: float = Field(description="batch to the device, views of it, noise of masks")
    forward_s: float
    backward_s: float = Field(description="with the collectives it waits for")
    optimizer_s: float = Field(description="norm of the gradient, clipping and update")
    other_s: float = Field(description="the rest of the step")


class Activity(Part):
    """What a device did in a traced step, in seconds, mean of ranks; all but `comm_s` sum to it."""

    step_s: float
    compute_s: float = Field(description="at least one operator or kernel runs")
    exposed_comm_s: float = Field(description="a collective runs, and no compute")
    data_wait_s: float
    host_to_device_s: float = Field(description="copies with nothing beside them")
    idle_s: float = Field(description="nothing runs: the host prepares work (launch-bound)")
    comm_s: float = Field(description="a collective runs, compute beside it or not")


class Traffic(Part):
    """The collectives of a step of one kind, over one kind of group, with messages of one size."""

    collective: str = Field(description="all_reduce, all_gather, reduce_scatter, broadcast, ...")
    group: str = Field(description="axis of the mesh, e.g. dp_shard, or world")
    ranks: Count = Field(description="in the group")
    message_bytes: Count = Field(
        description="of a call: the whole tensor, that is what all_gather puts out and "
        "reduce_scatter takes in"
    )
    calls: float = Field(description="per step")
    seconds: float = Field(description="per step, until completion, mean of ranks")
    transfer_s: float | None = Field(
        None, description="of a call on the rank that came last, so without waiting for others"
    )
    algorithm_bytes_per_s: float | None = Field(None, description="message_bytes / transfer_s")
    bus_bytes_per_s: float | None = Field(
        None, description="the same times 2 (n - 1) / n for all_reduce, (n - 1) / n for the others"
    )


class Wait(Part):
    """How long ranks waited for others before collectives, in seconds per step."""

    seconds: list[float] = Field(description="by rank; a straggler waits least")
    straggler: Count | None = Field(None, description="the latest rank, if any is late")
    host: str | None = Field(None, description="of the straggler")
    late_s: float | None = Field(
        None, description="how much longer the upper half of the ranks waits than the straggler"
    )
    late_ranks: Count | None = Field(None, description="how many ranks are late, with it")


class Memory(Part):
    """Bytes by cause on the rank that holds most, at its peak; what is not known is None."""

    parameters_bytes: Count | None = None
    gradients_bytes: Count | None = None
    optimizer_bytes: Count | None = None
    gathered_bytes: Count | None = Field(None, description="units gathered from their shards")
    activations_bytes: Count | None = None
    other_bytes: Count | None = Field(None, description="buffers, temporaries, what has no name")
    peak_allocated_bytes: Count | None = Field(None, description="tensors at their peak")
    peak_active_bytes: Count | None = Field(None, description="with what the allocator rounds up")
    peak_reserved_bytes: Count | None = Field(None, description="taken from the device")
    peak_resident_bytes: Count | None = Field(None, description="of the process, on the host")
    limit_bytes: Count | None = Field(None, description="that a rank may have")


class Energy(Part):
    """Energy of the measured steps, and its carbon."""

    source: str = Field(description="nvml, amdsmi, pm_counters, rocm-smi or rapl")
    covers: str = Field(description="what the counter sees, e.g. '4 GPUs of each of 2 nodes'")
    joules: float = Field(description="of all nodes, during the measured steps")
    images: Count = Field(description="trained on in that time")
    grid_g_per_kwh: float | None = Field(None, description="grams of CO2 per kWh of the grid")
    grid_source: str | None = None

    @property
    def joules_per_image(self) -> float:
        return self.joules / self.images


class CrossCheck(Part):
    """The same figures by two paths in the same steps: bookkeeping, and the trace as a file."""

    step_s: tuple[float, float]
    comm_s: tuple[float, float]
    calls: tuple[float, float] = Field(description="collectives per step")


class Record(Part):
    """One point of a scaling study. A field that was not measured is None, never zero."""

    schema_version: Literal[1, 2] = Field(2, description="2 adds fields to 1")
    kind: Literal["measured", "published", "predicted"]
    status: Literal["ok", "failed", "out_of_memory"] = "ok"
    error: str | None = Field(None, description="why the point failed, in one line")

    machine: str
    device: str = Field(description="what one rank drives, e.g. 'AMD EPYC, 1 thread'")
    hosts: list[str] = []
    nodes: Count
    world_size: Count = Field(description="ranks = devices")

    model: str
    parameters: Count | None = Field(None, description="trained parameters, encoder and decoder")
    objective: str
    bands: Count | None = None
    chip: tuple[Count, Count] | None = Field(
        None, description="height, width in pixels; None: samples of several sizes"
    )
    strategy: str
    group_size: Count | None = None
    dtype: str
    micro_batch: Count
    accumulate: Count
    global_batch: Count
    data: str = Field(
        description="shards, synthetic (generated), or held: the first batches, held in memory"
    )
    recompute: str = Field(MISSING, description="none, full, selective, or every k-th block")
    communication: Literal["on", "off"] = Field("on", description="off: collectives do nothing")

    warmup_steps: Count | None = Field(None, description="steps discarded before measuring")
    stable: bool | None = Field(None, description="whether steps had stopped getting faster")
    images_per_s: float | None = Field(None, description="all ranks; global_batch / median step")
    tokens_per_s: Spread | None = Field(
        None, description="of each step, all ranks, without padding"
    )
    padding: float | None = Field(
        None, ge=0, lt=1, description="padding / (padding + tokens), median"
    )
    step_s: Spread | None = Field(None, description="seconds per step, slowest rank")
    data_wait_s: float | None = Field(
        None, description="median wait for data per step: of the host, slowest rank"
    )
    comm_s: float | None = Field(None, description="seconds per step in which a collective runs")
    phases: Phases | None = None
    activity: Activity | None = None
    traffic: list[Traffic] = []
    wait: Wait | None = None
    cross_check: CrossCheck | None = None
    peak_memory_bytes: Count | None = Field(None, description="worst rank")
    memory_source: str | None = Field(None, description="'reserved' (device) or 'resident' (host)")
    memory: Memory | None = None
    predicted_memory: Memory | None = Field(None, description="by `hpcgeo.plan`, in closed form")
    model_flops: float | None = Field(None, description="forward + backward per step, all ranks")
    counted_flops: float | None = Field(
        None, description="of a step as executed, recompute included, all ranks, by counting"
    )
    executed_flops: float | None = Field(None, description="the same in closed form")
    peak_flops_per_s: float | None = Field(None, description="of one device, at this dtype")
    peak_source: str | None = Field(None, description="'measured' or 'tabled'")
    mfu: float | None = None
    hfu: float | None = Field(None, description="as mfu, of the executed FLOPs")
    product_flops_per_s: float | None = Field(
        None, description="of one device: a matrix product in the same run, all ranks at once"
    )
    energy: Energy | None = None

    versions: dict[str, str] = {}
    driver: str | None = None
    environment: dict[str, str] = Field({}, description="variables that change speed")
    commit: str | None = None
    dirty: bool | None = None
    command: str | None = None
    created: str = Field(description="UTC, ISO 8601")
    source: str | None = Field(None, description="where a published point was read")
    config: dict[str, Any] | None = Field(None, description="the resolved RunConfig")

    @property
    def layout(self) -> str:
        """The strategy with its group size, e.g. ``HYBRID_SHARD(2)``."""
        return f"{self.strategy}({self.group_size})" if self.group_size else self.strategy

    @property
    def key(self) -> dict[str, str]:
        """What must agree between two points on one axis, beside micro-batch or global batch."""
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
            "torch": self.versions.get("torch", MISSING),
            "software": software(self),
            "environment": pairs(self.environment),
            "options": MISSING if self.config is None else json.dumps(options(self.config)),
        }

    @property
    def mixed(self) -> bool:
        """Whether its samples are those of several data sets, unlike in size."""
        data = (self.config or {}).get("data")
        return isinstance(data, dict) and "tasks" in data

    @property
    def bare(self) -> bool:
        """Whether communication or reading was left out of its steps, to see what they cost."""
        return self.communication == "off" or self.data == "held"

    @property
    def noisy(self) -> bool:
        """Whether the step times spread too far to be trusted.

        Where steps differ in their tokens, so do their times: then it is tokens per second.
        """
        pace = self.tokens_per_s or self.step_s
        return pace is not None and pace.relative > NOISY


class Transfer(Part):
    """One point of the curve of a collective."""

    collective: Literal["all_reduce", "all_gather", "reduce_scatter"]
    group: Literal["pair", "node", "all"]
    ranks: Count
    nodes: Count
    message_bytes: Count = Field(description="as in `Traffic`")
    seconds: Spread = Field(description="of a call, slowest rank")
    algorithm_bytes_per_s: float
    bus_bytes_per_s: float


class Links(Part):
    """What `hpcgeo-profile collectives` measured: one JSON line in a file ``links*.jsonl``."""

    schema_version: Literal[1] = 1
    kind: Literal["measured", "published"]
    machine: str
    device: str
    hosts: list[str] = []
    nodes: Count
    world_size: Count
    backend: str = Field(description="gloo, nccl")
    transfers: list[Transfer]
    versions: dict[str, str] = {}
    driver: str | None = None
    environment: dict[str, str] = {}
    commit: str | None = None
    dirty: bool | None = None
    command: str | None = None
    created: str = Field(description="UTC, ISO 8601")
    source: str | None = None


Line = TypeVar("Line", Record, Links)


def software(made: Record | Links) -> str:
    """Return the versions beside torch that change speed, and the driver, as text."""
    found = {name: made.versions[name] for name in SOFTWARE if name in made.versions}
    return pairs(found | ({"driver": made.driver} if made.driver else {}))


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


def append(path: Path, record: Record | Links) -> None:
    """Append one line to a file of records, in one write; a line torn before it stays alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = size > 0 and file.read(1) != b"\n"
        file.write(b"\n" * torn + record.model_dump_json().encode() + b"\n")
        os.fsync(file.fileno())


class TornError(InputError):
    """A line that is no JSON, as a crash or a full disk leaves it."""


def read(paths: Iterable[Path], torn: Callable[[str], None] | None = None) -> list[Record]:
    """Return all records of files and folders (searched for ``records*.jsonl``, ``record.json``).

    Args:
        torn: told of a line that is not JSON, which is then left out; None: it is an error.

    Raises:
        InputError: nothing there, or a line that is not a record; the message names file and line.
    """
    return _read(Record, paths, ("record.json", "records*.jsonl"), torn)


def read_links(paths: Iterable[Path]) -> list[Links]:
    """Return what was measured of collectives in files and folders (``links*.jsonl``).

    Raises:
        InputError: as `read`.
    """
    return _read(Links, paths, ("links*.jsonl",))


def _read(
    kind: type[Line],
    paths: Iterable[Path],
    patterns: Sequence[str],
    torn: Callable[[str], None] | None = None,
) -> list[Line]:
    found: list[Line] = []
    for path in paths:
        if path.is_dir():
            files = [file for pattern in patterns for file in sorted(path.rglob(pattern))]
            if not files:
                raise InputError(f"{path}: no {' or '.join(patterns)} below this folder")
        elif path.is_file():
            files = [path]
        else:
            raise InputError(f"{path}: no such file or folder of records")
        for file in files:
            found += _read_file(kind, file, torn)
    return found


def _read_file(kind: type[Line], path: Path, torn: Callable[[str], None] | None) -> list[Line]:
    records = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    records.append(_parsed(kind, line, f"{path}:{number}"))
                except TornError as error:
                    if torn is None:
                        raise
                    torn(str(error))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return records


def _parsed(kind: type[Line], line: bytes, place: str) -> Line:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise TornError(f"{place}: not JSON: {first['msg']}") from None
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{place}: not a record: {key}: {first['msg']}") from None
