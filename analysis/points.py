"""Repeats of one configuration on one number of devices are joined to a point."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from statistics import median
from typing import TypeVar

from pydantic import BaseModel

from hpcgeo.measured import Memory, Spread, Told, told
from hpcgeo.records import NOISY, Record

Value = TypeVar("Value")

#: What must agree between two points of one comparison: the names of `Record.key`, in its order.
CONTEXT = (
    *("kind", "machine", "device", "model", "objective", "bands", "chip", "dtype", "recompute"),
    *("data", "communication", "transport", "torch", "software", "environment", "options"),
)


#: Phases of a step that the closed form of memory describes: activations are held.
HOLDING = ("forward", "backward")

#: Kinds of a peak of memory, the one that decides whether a model fits first; never mixed.
KINDS = ("reserved", "resident", "allocated", "active")


@dataclass(frozen=True, eq=False)
class StudyPoint:
    """The repeats of one configuration on one number of devices; None is not measured.

    Of repeats, times and rates are the median of their medians, memory is the highest.
    """

    context: tuple[str, ...]
    records: tuple[Record, ...]
    #: The highest FLOP/s that the study measured as the peak of its device at its dtype.
    measured_peak: float | None = None

    @property
    def first(self) -> Record:
        """A record of it, for what all of them share."""
        return self.records[0]

    @property
    def layout(self) -> str:
        return self.first.layout

    @property
    def devices(self) -> int:
        return self.first.world_size

    @property
    def nodes(self) -> int:
        return self.first.nodes

    @property
    def candidate(self) -> bool:
        """Whether it trains: it scales, and may be the best; else something was left out."""
        return not self.first.bare

    @property
    def baseline(self) -> bool:
        """Whether its ranks exchanged nothing: what compute alone reaches, and no training run."""
        return self.first.communication == "off"

    @property
    def notes(self) -> tuple[str, ...]:
        """What its records note for a reader."""
        return tuple(dict.fromkeys(note for record in self.records for note in record.notes))

    def all(self, of: Callable[[Record], Value | None]) -> list[Value]:
        """Return what `of` finds in each repeat that has it."""
        return [value for value in map(of, self.records) if value is not None]

    def median(self, of: Callable[[Record], float | None]) -> float | None:
        """Return the median of what `of` finds in each repeat that has it."""
        values = self.all(of)
        return median(values) if values else None

    def typical(self, name: str) -> dict[str, float] | None:
        """Return a part of the repeat whose step is the median of those that have it, whole."""
        known = sorted((r for r in self.records if getattr(r, name)), key=_step_s)
        return vars(getattr(known[(len(known) - 1) // 2], name)) if known else None

    def same(self, of: Callable[[Record], Value | None]) -> Value | None:
        """Return what the repeats agree on; None where they do not, or have nothing."""
        values = self.all(of)
        return values[0] if values and all(value == values[0] for value in values) else None

    @cached_property
    def images_per_s(self) -> float | None:
        return self.median(_images_per_s)

    @cached_property
    def step_s(self) -> float | None:
        return self.median(lambda record: record.step_s.median if record.step_s else None)

    @cached_property
    def step_range(self) -> tuple[float, float] | None:
        """From the lowest p10 to the highest p90 of the repeats; None of one step alone."""
        return _extent(self.all(lambda record: record.step_s))

    @cached_property
    def range(self) -> tuple[float, float] | None:
        """Images per second as the spread of all repeats allows; None where there is none."""
        rates = self.all(_images_per_s)
        if not rates or (self.step_range is None and len(rates) < 2):
            return None
        low, high = min(rates), max(rates)
        if self.step_range:
            low = min(low, self.first.global_batch / self.step_range[1])
            high = max(high, self.first.global_batch / self.step_range[0])
        return low, high

    @cached_property
    def tokens_per_s(self) -> float | None:
        """Tokens per second, without padding."""
        return self.median(lambda r: r.tokens_per_s.median if r.tokens_per_s else None)

    @cached_property
    def tokens_range(self) -> tuple[float, float] | None:
        """From the lowest p10 to the highest p90 of the repeats; None of one step alone."""
        return _extent(self.all(lambda record: record.tokens_per_s))

    @property
    def per_device(self) -> float | None:
        """Images per second of one device."""
        return None if self.images_per_s is None else self.images_per_s / self.devices

    @property
    def rounding(self) -> float:
        """Half a unit of the last digit of a rate that was printed; 0 of one from a clock."""
        if self.first.kind != "published" or self.images_per_s is None:
            return 0.0
        exponent = Decimal(repr(self.images_per_s)).normalize().as_tuple().exponent
        return 0.5 * 10.0 ** min(0, int(exponent))

    @cached_property
    def noisy(self) -> bool:
        """Whether the steps of a repeat, or of all of them together, spread too far."""
        if any(record.noisy for record in self.records):
            return True
        extent, middle = self.step_range, self.step_s
        if self.tokens_per_s:  # where steps differ in their tokens, so do their times
            extent, middle = self.tokens_range, self.tokens_per_s
        return (
            extent is not None and middle is not None and ((extent[1] - extent[0]) / middle > NOISY)
        )

    @cached_property
    def marks(self) -> list[str]:
        """What a reader must know wherever the point appears; nothing where all is well."""
        settling = any(record.stable is False for record in self.records)
        return ["noisy"] * self.noisy + ["still getting faster"] * settling

    @cached_property
    def mark(self) -> str:
        return ", ".join(self.marks)

    @cached_property
    def memory_bytes(self) -> int | None:
        """Peak memory of the worst rank; None where repeats measured different things."""
        if self.memory_source is None:
            return None
        return max(self.all(lambda record: record.peak_memory_bytes))

    @cached_property
    def memory_source(self) -> str | None:
        """What was measured as memory: reserved (device), resident (host) or not recorded."""
        return self.same(
            lambda record: (record.memory_source or "unnamed") if record.peak_memory_bytes else None
        )

    @cached_property
    def memory(self) -> Memory | None:
        """Memory by cause of the repeat that took most."""
        return max(self.all(lambda record: record.memory), key=_taken, default=None)

    @cached_property
    def predicted_memory(self) -> Memory | None:
        """What the closed form says of `memory`."""
        return next((r.predicted_memory for r in self.records if r.memory == self.memory), None)

    @property
    def predictable(self) -> bool:
        """Whether `memory` is of a phase that the closed form describes."""
        return self.memory is not None and self.memory.phase in HOLDING

    @cached_property
    def held(self) -> dict[str, int]:
        """The known peaks in bytes, by kind, in the order of `KINDS`."""
        kinds = {kind: getattr(self.memory, f"peak_{kind}_bytes", None) for kind in KINDS}
        if self.memory_source:  # of all steps and ranks, `memory` of one
            kinds[self.memory_source] = self.memory_bytes
        return {kind: value for kind, value in kinds.items() if value}

    @cached_property
    def parameters(self) -> int | None:
        return max(self.all(lambda record: record.parameters), default=None)


def points(records: Sequence[Record]) -> list[StudyPoint]:
    """Return the points of all records that did not fail, repeats joined."""
    groups: dict[tuple[tuple[str, ...], tuple[str | int, ...]], list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "ok":
            sizes = (record.world_size, record.nodes, record.micro_batch, record.accumulate)
            place = (record.strategy, record.layout, *sizes, record.global_batch)
            groups[tuple(record.key.values()), place].append(record)
    peaks: dict[tuple[str, str, str], float] = {}
    for record in (record for group in groups.values() for record in group):
        if record.peak_source == "measured" and record.peak_flops_per_s:
            peaks[_chip(record)] = max(peaks.get(_chip(record), 0.0), record.peak_flops_per_s)
    return [
        StudyPoint(key[0], tuple(group), peaks.get(_chip(group[0])))
        for key, group in sorted(groups.items())
    ]


def _chip(record: Record) -> tuple[str, str, str]:
    """Return what has one peak."""
    return record.machine, record.device, record.dtype


def _extent(spreads: Sequence[Spread]) -> tuple[float, float] | None:
    if not spreads or (len(spreads) == 1 and len(spreads[0].values) == 1):
        return None
    return min(spread.p10 for spread in spreads), max(spread.p90 for spread in spreads)


def _taken(memory: Memory) -> int:
    values = (getattr(memory, f"peak_{kind}_bytes") for kind in KINDS)
    return next((value for value in values if value), 0)


def _step_s(record: Record) -> float:
    return record.step_s.median if record.step_s else 0.0


def _images_per_s(record: Record) -> float | None:
    if record.images_per_s is None and record.step_s is not None:
        return record.global_batch / record.step_s.median
    return record.images_per_s


def median_of(point: StudyPoint, name: str) -> object:
    """Return a field of the repeats: the median of numbers, else what they agree on."""
    values = point.all(lambda record: getattr(record, name))
    if values and all(type(value) in (int, float) for value in values):
        return values[0] if len(values) == 1 else median(values)
    return point.same(lambda record: getattr(record, name))


def declared(record: Record) -> dict[str, Told]:
    """Return what the fields of a record declare."""
    kind: type[BaseModel] = type(record)
    return told(kind)
