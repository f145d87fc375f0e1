"""Memory in percent of the device: by cause, what tensors take and what the allocator reserved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.figures.bars import BarPart, BarRow, rows, some
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.panels import MOST, Footnotes, PointPanel, of_points
from hpcgeo_analysis.formatting import counted, gib, listed, percent
from hpcgeo_analysis.points import KINDS, StudyPoint
from hpcgeo_analysis.styles import style

#: Causes of memory with their colours; together they are what tensors take at the peak.
CAUSES = {
    "parameters_bytes": ("parameters", "var(--part-parameters)"),
    "gradients_bytes": ("gradients", "var(--part-gradients)"),
    "optimizer_bytes": ("optimizer", "var(--part-optimizer)"),
    "gathered_bytes": ("gathered units", "var(--part-gathered)"),
    "activations_bytes": ("activations", "var(--part-activations)"),
    "other_bytes": ("other", "var(--part-other)"),
}
WHOLE = ("tensors, not split", "var(--part-compute)")
BEYOND = ("reserved or resident beyond", "var(--part-unused)")
#: An axis in percent ends at the whole device where a bar takes more than this of it.
SMALL_USE = 60.0
#: From this share a device is as good as full.
FULL = 0.9


@dataclass(frozen=True, eq=False)
class Held:
    """The memory of a point: its peaks by kind and its causes, in bytes."""

    scaled: Scaled
    label: str

    @property
    def point(self) -> StudyPoint:
        return self.scaled.point

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
        return [*known, (BEYOND, beyond)] if beyond > 0 else known

    @property
    def limit(self) -> int | None:
        """What a device has."""
        return self.point.memory.limit_bytes if self.point.memory else None

    @property
    def name(self) -> str:
        on = counted(self.point.devices, "device")
        return f"{self.scaled.line} of {self.point.first.model} on {on}"


def figure(study: Study) -> Figure:
    """Return bars of memory of every model, or how it is measured."""
    notes = Footnotes()
    shown = of_points(study, lambda point: point.held or split(point), notes)[:MOST]
    if not shown:
        hint = "To see memory by cause: hpcgeo-profile run RECIPE, whose records hold the peak."
        return Figure("memory", "Memory", missing=hint)
    known = [[Held(*row) for row in panel.rows] for panel in shown]
    every = [held for own in known for held in own]
    used = {part for held in every for part, _ in held.parts}
    kinds = dict.fromkeys(held.kind for held in every)
    return Figure(
        "memory",
        _claim(every),
        panels=tuple(_draw(*both, len(kinds) > 1) for both in zip(shown, known, strict=True)),
        legend=tuple(look for look in (*CAUSES.values(), WHOLE, BEYOND) if look in used),
        caption=f"Peak of the worst device; the number is {' or '.join(kinds)} memory.",
        sentences=tuple(_sentences(every)),
        footnotes=notes.all,
    )


def split(point: StudyPoint) -> dict[str, int]:
    """Return the known bytes of a point by cause."""
    found = point.memory
    return {cause: value for cause in CAUSES if (value := getattr(found, cause, None)) is not None}


def used(point: StudyPoint) -> float | None:
    """Return the share of the device that was taken: reserved there, or resident on a host."""
    found, peaks = point.memory, point.held
    taken = peaks.get("reserved", peaks.get("resident"))
    return taken / found.limit_bytes if found and found.limit_bytes and taken else None


def _draw(panel: PointPanel, known: Sequence[Held], several: bool) -> str:
    limits = {held.limit for held in known}
    limit = limits.pop() if len(limits) == 1 else None
    unit = limit / 100 if limit else 2**30
    chosen = some(known, lambda held: held.point.devices, lambda held: held.peak)
    bars = []
    for held in chosen:
        parts = [
            BarPart(value / unit, colour, f"{name}: {gib(value)} GiB")
            for (name, colour), value in held.parts
        ]
        value = f"{gib(held.peak)} GiB{f' {held.kind}' * several}"
        line = held.scaled.line
        bars.append(BarRow(line, style(line), held.label, value, parts))
    most = max(sum(part.length for part in bar.parts) for bar in bars)
    whole = limit is not None and most > SMALL_USE
    said = [f"{bar.label} {bar.value}: {listed([part.tip for part in bar.parts])}" for bar in bars]
    left = len(known) - len(bars)
    return rows(
        panel.model,
        panel.below + f"; {counted(left, 'point')} between them in the table" * bool(left),
        bars,
        lambda value: f"{value:g} %" if limit else f"{value:g}",
        axis=f"of {gib(limit)} GiB a device" if limit else "GiB a device",
        most=max(most, 100.0) if whole else None,
        limit=100.0 if whole else None,
        alt=f"Peak memory of {panel.model}. {'; '.join(said)}.",
        model=panel.model,
    )


def _claim(known: Sequence[Held]) -> str:
    """Return who stands at the limit of a device, or that nobody does."""
    shares = [(share, held) for held in known if (share := used(held.point)) is not None]
    if not shares:
        return "Memory of a device"
    share, held = max(shares, key=lambda pair: pair[0])
    if share >= FULL:
        return f"{held.name} fills a device"
    return f"Nothing takes more than {percent(share)} of a device"


def _sentences(known: Sequence[Held]) -> Iterator[str]:
    """Yield who needs least, and the cause that takes most."""
    for model in dict.fromkeys(held.point.first.model for held in known):
        own = [held for held in known if held.point.first.model == model]
        for kind in KINDS:
            alike = [held for held in own if kind in held.point.held]
            counts = sorted({held.point.devices for held in alike}, reverse=True)
            rivals = [[h for h in alike if h.point.devices == count] for count in counts]
            row = next((row for row in rivals if len({h.scaled.line for h in row}) > 1), None)
            if row is not None:
                least = min(row, key=lambda held: held.point.held[kind])
                value = gib(least.point.held[kind])
                yield f"{least.name} needs least {kind} memory: {value} GiB."
                break
    yield from _largest(known)


def _largest(known: Sequence[Held]) -> Iterator[str]:
    """Yield the cause that takes the largest share of what tensors take."""
    found = []
    for held in known:
        by_cause = split(held.point)
        whole = sum(by_cause.values())
        found += [(value / whole, cause, held) for cause, value in by_cause.items() if whole]
    if found:
        share, cause, held = max(found, key=lambda one: one[0])
        name = CAUSES[cause][0]
        yield f"{name.capitalize()} take up to {percent(share)} of what tensors hold: {held.name}."
