"""Memory in percent of the device: by cause, what tensors take and what the allocator reserved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures.bars import BarPart, BarRow, left_out, rows, some
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.panels import MOST, Footnotes, PanelPoint, PointPanel, of_points
from hpcgeo_analysis.formatting import gib, listed, percent, times
from hpcgeo_analysis.points import KINDS, StudyPoint
from hpcgeo_analysis.styles import style

#: Causes of memory with their colours; together they are what tensors take at the peak.
CAUSES = {
    "parameters_bytes": ("parameters", "var(--part-parameters)"),
    "frozen_bytes": ("not trained", "var(--part-frozen)"),
    "gradients_bytes": ("gradients", "var(--part-gradients)"),
    "optimizer_bytes": ("optimizer", "var(--part-optimizer)"),
    "gathered_bytes": ("gathered units", "var(--part-gathered)"),
    "activations_bytes": ("activations", "var(--part-activations)"),
    "batch_bytes": ("batch", "var(--part-data)"),
    "other_bytes": ("other", "var(--part-other)"),
}
WHOLE = ("tensors, not split", "var(--part-compute)")
BEYOND = {
    "reserved": ("reserved beyond them", "var(--part-unused)"),
    "resident": ("rest of the process", "var(--part-unused)"),
}
#: An axis in percent ends at the whole device where a bar takes more than this of it.
SMALL_USE = 60.0
#: From this factor on two amounts are worth a sentence.
APART = 1.02
#: From this share a device is as good as full.
FULL = 0.9


@dataclass(frozen=True, eq=False)
class Held:
    """The memory of a point: its peaks by kind and its causes, in bytes."""

    row: PanelPoint

    @property
    def point(self) -> StudyPoint:
        return self.row.point

    @property
    def kind(self) -> str:
        """The peak that decides whether it fits, of those known."""
        return next(iter(self.point.held), "allocated")

    @cached_property
    def peak(self) -> int:
        return next(iter(self.point.held.values()), 0) or sum(split(self.point).values())

    @cached_property
    def parts(self) -> list[tuple[tuple[str, str], int]]:
        """Name and colour of each part with its bytes; together they are the peak."""
        by_cause = split(self.point)
        known = [(CAUSES[cause], value) for cause, value in by_cause.items() if value]
        if not known:
            tensors = [value for kind, value in self.point.held.items() if kind in KINDS[2:]]
            known = [(WHOLE, min(tensors[0], self.peak))] if tensors else []
        beyond = self.peak - sum(value for _, value in known)
        more = BEYOND.get(self.kind, CAUSES["other_bytes"])
        return [*known, (more, beyond)] if beyond > 0 else known

    @property
    def limit(self) -> int | None:
        """What a device has."""
        return self.point.memory.limit_bytes if self.point.memory else None


def figure(study: Study) -> Figure:
    """Return bars of memory of every model, or how it is measured."""
    notes = Footnotes()
    shown = of_points(study, lambda point: point.held or split(point), notes)[:MOST]
    if not shown:
        hint = "To see memory by cause: hpcgeo-profile run RECIPE, whose records hold the peak."
        return Figure("memory", "Memory", missing=hint)
    known = [[Held(row) for row in panel.rows] for panel in shown]
    every = [held for own in known for held in own]
    used = {part for held in every for part, _ in held.parts}
    kinds = dict.fromkeys(held.kind for held in every)
    axis = _axis(every)
    return Figure(
        "memory",
        _claim(every),
        panels=tuple(_draw(*both, axis) for both in zip(shown, known, strict=True)),
        legend=tuple(look for look in (*CAUSES.values(), WHOLE, *BEYOND.values()) if look in used),
        caption=f"Peak of the worst device; the number is {' or '.join(kinds)} memory.",
        sentences=tuple(_sentences(every)),
        footnotes=notes.all,
    )


def split(point: StudyPoint) -> dict[str, int]:
    """Return the known bytes of a point by cause."""
    found = point.memory
    return {cause: value for cause in CAUSES if (value := getattr(found, cause, None)) is not None}


@dataclass(frozen=True)
class Axis:
    """The axis of all panels: in percent where every device's memory is known, else in GiB."""

    percent: bool
    most: float
    words: str
    several: bool

    def length(self, held: Held, value: float) -> float:
        """Return bytes in units of the axis."""
        return 100 * value / (held.limit or 1) if self.percent else value / 2**30


def _axis(every: Sequence[Held]) -> Axis:
    limits = {held.limit for held in every}
    several = len({held.kind for held in every}) > 1
    if None in limits:
        return Axis(False, max(held.peak for held in every) / 2**30, "GiB a device", several)
    most = max(100 * held.peak / (held.limit or 1) for held in every)
    words = f"of {gib(max(filter(None, limits)))} GiB" if len(limits) == 1 else "of a device"
    return Axis(True, max(most, 100.0) if most > SMALL_USE else most, words, several)


def _draw(panel: PointPanel, known: Sequence[Held], axis: Axis) -> str:
    chosen = _ends(known)
    bars = []
    for held in some(chosen, lambda held: held.point.devices, lambda held: held.peak):
        parts = [
            BarPart(axis.length(held, value), colour, f"{name}: {gib(value)} GiB")
            for (name, colour), value in held.parts
        ]
        value = f"{gib(held.peak)} GiB{f' {held.kind}' * axis.several}"
        line = held.row.line
        bars.append(BarRow(line, style(line), held.row.label, value, parts))
    said = [f"{bar.label} {bar.value}: {listed([part.tip for part in bar.parts])}" for bar in bars]
    return rows(
        panel.title,
        panel.below + left_out(len(known) - len(bars)),
        bars,
        lambda value: f"{value:g} %" if axis.percent else f"{value:g}",
        axis=axis.words,
        most=axis.most,
        limit=100.0 if axis.percent and axis.most >= 100 else None,
        alt=f"Peak memory of {panel.title}. {'; '.join(said)}.",
        model=panel.model,
    )


def _ends(known: Sequence[Held]) -> list[Held]:
    """Return of each line its points on the fewest and on the most devices."""
    lines: dict[str, list[Held]] = {}
    for held in known:
        lines.setdefault(held.row.line, []).append(held)
    found = []
    for own in lines.values():
        counts = {held.point.devices for held in own}
        found += [held for held in own if held.point.devices in (min(counts), max(counts))]
    return found


def _claim(known: Sequence[Held]) -> str:
    """Return who fills a device, or that nobody does."""
    shares = [(held.peak / held.limit, held) for held in known if held.limit]
    if not shares:
        return "Memory of a device"
    share, held = max(shares, key=lambda pair: pair[0])
    if share >= FULL:
        return f"{held.row.name} fills a device"
    assert held.limit
    return f"Nothing takes more than {percent(share)} of the {gib(held.limit)} GiB a device has"


def _sentences(known: Sequence[Held]) -> Iterator[str]:
    """Yield what the allocator takes beyond tensors, who needs least, and the largest cause."""
    grown = [
        (held.point.held["reserved"] / held.point.held["allocated"], held)
        for held in known
        if {"reserved", "allocated"} <= {*held.point.held}
    ]
    factor, most = max(grown, key=lambda one: one[0], default=(0.0, None))
    if most:
        yield f"Reserved is up to {times(factor)} of allocated: {most.row.name}."
    if len({held.point.first.model for held in known}) == 1:
        yield from _least(known)
    yield from _largest(known)


def _least(known: Sequence[Held]) -> Iterator[str]:
    """Yield who needs least on the most devices with a rival, where that is not next to nothing."""
    order = [*KINDS, *(held.kind for held in known)]
    places = {(-held.point.devices, order.index(held.kind)) for held in known}
    for devices, kind in ((place, order[kind]) for place, kind in sorted(places)):
        row = [held for held in known if (-held.point.devices, held.kind) == (devices, kind)]
        least, most = (end(row, key=lambda held: held.peak) for end in (min, max))
        if len({held.row.line for held in row}) > 1:
            if most.peak > APART * least.peak:
                yield f"{least.row.name} needs least {kind} memory: {gib(least.peak)} GiB."
            return


def _largest(known: Sequence[Held]) -> Iterator[str]:
    """Yield the cause that takes the largest share of what tensors take."""
    found = []
    for held in known:
        by_cause = split(held.point)
        whole = sum(by_cause.values())
        found += [(value / whole, cause, held) for cause, value in by_cause.items() if whole]
    if found:
        share, cause, held = max(found, key=lambda one: one[0])
        name, most = CAUSES[cause][0], percent(share)
        yield f"Up to {most} of what tensors hold is {name}: {held.row.name}."
