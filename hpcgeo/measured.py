"""What a field of a record declares of itself, and the parts of a record that were measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

#: What counts something: no file makes it larger than an integer of the machine.
Count = Annotated[int, Field(lt=2**63)]

#: Units by the suffix of a name, the longest first.
UNITS = {"flops_per_s": "FLOP/s", "bytes_per_s": "B/s", "_per_s": "1/s", "_s": "s", "_bytes": "B"}
UNITS |= {"_flops": "FLOP", "_per_kwh": "g/kWh"}

#: What names the type of a field that is neither text nor a number.
_NESTED = ("list", "dict", "tuple", "hpcgeo")

#: Marks a number that is never zero; one that was not measured is None.
ABOVE_ZERO = "above zero"


@dataclass(frozen=True)
class Shown:
    """How a field is shown. Without this mark it stands in the section of other fields.

    Attributes:
        section: of the report.
        unit: by default what the suffix of the field's name says.
        label: by default the field's name.
    """

    section: str = "other"
    unit: str = ""
    label: str = ""


@dataclass(frozen=True)
class Told:
    """What is declared of a field.

    Attributes:
        above_zero: a number is; without it, zero or above.
        plain: it is text, a number or a truth, so a column of a table can hold it.
    """

    name: str
    section: str
    unit: str
    label: str
    above_zero: bool
    plain: bool
    description: str


@cache
def told(kind: type[BaseModel]) -> dict[str, Told]:
    """Return what is declared of each field of a record, or of a part of one."""
    found = {}
    for name, field in kind.model_fields.items():
        shown = next((mark for mark in field.metadata if isinstance(mark, Shown)), Shown())
        unit = shown.unit or next((u for end, u in UNITS.items() if name.endswith(end)), "")
        label = shown.label or name.replace("_", " ")
        above_zero = ABOVE_ZERO in field.metadata
        plain = not any(
            word in str(field.annotation) for word in ("list", "dict", "tuple", "hpcgeo")
        )
        text = field.description or ""
        found[name] = Told(name, shown.section, unit, label, above_zero, plain, text)
    return found


class RecordPart(BaseModel):
    """A strict, immutable piece of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(RecordPart):
    """Median and spread of a list of measurements, with the measurements themselves."""

    median: Annotated[float, ABOVE_ZERO]
    p10: Annotated[float, ABOVE_ZERO]
    p90: Annotated[float, ABOVE_ZERO]
    values: list[FiniteFloat] = []

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        p10, median, p90 = np.percentile(np.asarray(values, dtype=float), [10, 50, 90])
        return cls(median=float(median), p10=float(p10), p90=float(p90), values=list(values))

    @property
    def relative(self) -> float:
        """(p90 - p10) / median."""
        return (self.p90 - self.p10) / self.median


class Phases(RecordPart):
    """Seconds of a step by phase, of the mean rank: means of the middle half of the steps."""

    step_s: float = Field(description="the whole step of the mean rank; phases and rest sum to it")
    data_wait_s: float = Field(description="no batch was there, and a device had nothing to do")
    augmentation_s: float = Field(
        0.0, description="random views, unless reader processes make them, and noise of masks"
    )
    collate_s: float = Field(0.0, description="tokens made of samples, of a mixture")
    host_to_device_s: float = Field(
        description="batch to the device; in records without the two before those as well"
    )
    forward_s: float
    teacher_s: float = Field(0.0, description="features of a teacher, no part of the forward")
    backward_s: float = Field(description="with the collectives it waits for")
    optimizer_s: float = Field(description="norm of the gradient, clipping and update")
    other_s: float = Field(description="the rest of the step")


class Activity(RecordPart):
    """What a device did in a traced step, in seconds, mean of ranks; all but `comm_s` sum to it."""

    step_s: float
    compute_s: float = Field(description="at least one operator or kernel runs")
    exposed_comm_s: float = Field(description="a collective runs, and no compute")
    data_wait_s: float
    host_to_device_s: float = Field(description="copies with nothing beside them")
    idle_s: float = Field(description="nothing runs: the host prepares work (launch-bound)")
    comm_s: float = Field(description="a collective runs, compute beside it or not")


class Traffic(RecordPart):
    """The collectives of a step of one kind, over one kind of group, with messages of one size."""

    collective: str = Field(description="all_reduce, all_gather, reduce_scatter, broadcast, ...")
    group: str = Field(description="axis of the mesh, e.g. dp_shard, or world")
    ranks: Annotated[Count, ABOVE_ZERO] = Field(description="in the group")
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


class Transfer(RecordPart):
    """One point of the curve of a collective."""

    collective: Literal["all_reduce", "all_gather", "reduce_scatter"]
    group: Literal["pair", "node", "all"]
    ranks: Count
    nodes: Count
    message_bytes: Count = Field(description="as in `Traffic`")
    seconds: Spread = Field(description="of a call, slowest rank")
    algorithm_bytes_per_s: float
    bus_bytes_per_s: float


class Wait(RecordPart):
    """How long ranks waited for others before collectives, in seconds per step."""

    seconds: list[FiniteFloat] = Field(description="by rank; a straggler waits least")
    straggler: Count | None = Field(None, description="the latest rank, if any is late")
    host: str | None = Field(None, description="of the straggler")
    late_s: float | None = Field(
        None, description="how much longer the upper half of the ranks waits than the straggler"
    )
    late_ranks: Count | None = Field(None, description="how many ranks are late, with it")


class Memory(RecordPart):
    """Bytes by cause on the rank that holds most, at its peak; what is not known is None."""

    parameters_bytes: Count | None = None
    frozen_bytes: Count | None = Field(
        None, description="parameters that are not trained: a teacher, a backbone under LoRA"
    )
    gradients_bytes: Count | None = None
    optimizer_bytes: Count | None = None
    gathered_bytes: Count | None = Field(None, description="units gathered from their shards")
    activations_bytes: Count | None = None
    batch_bytes: Count | None = Field(None, description="a micro-batch, its views, and making them")
    other_bytes: Count | None = Field(None, description="buffers, temporaries, what has no name")
    peak_allocated_bytes: Count | None = Field(None, description="tensors at their peak")
    peak_active_bytes: Count | None = Field(None, description="with what the allocator rounds up")
    peak_reserved_bytes: Count | None = Field(None, description="taken from the device")
    peak_resident_bytes: Count | None = Field(None, description="of the process, on the host")
    limit_bytes: Count | None = Field(None, description="that a rank may have")
    phase: str | None = Field(None, description="of the step in which the causes are at their peak")


class Energy(RecordPart):
    """Energy of the measured steps, of a training run of all of one start, and its carbon."""

    source: str = Field(description="nvml, amdsmi, pm_counters, rocm-smi or rapl")
    covers: str = Field(description="what the counter sees, e.g. '4 GPUs of each of 2 nodes'")
    joules: Annotated[float, ABOVE_ZERO] = Field(
        description="of all nodes, while the images were trained on"
    )
    images: Annotated[Count, ABOVE_ZERO] = Field(description="trained on in that time")
    grid_g_per_kwh: float | None = Field(None, description="grams of CO2 per kWh of the grid")
    grid_source: str | None = None

    @property
    def joules_per_image(self) -> float:
        return self.joules / self.images


class CrossCheck(RecordPart):
    """The same figures by two paths in the same steps: bookkeeping, and the trace as a file."""

    step_s: tuple[float, float]
    comm_s: tuple[float, float]
    calls: tuple[float, float] = Field(description="collectives per step")
