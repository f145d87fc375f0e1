"""Energy and CO2 per million images, from counters."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcgeo.measured import Energy
from hpcgeo.records import Record
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures.bars import BarPart, BarRow, left_out, rivals, rows
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.panels import MOST, Footnotes, PanelPoint, PointPanel, of_points
from hpcgeo_analysis.formatting import digits, listed
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.styles import style
from hpcgeo_analysis.winners import LEVEL

#: Joules of a kWh, over a million images.
JOULES = 3.6e6 / 1e6


@dataclass(frozen=True)
class Spent:
    """What a point spent, and what it is called."""

    row: PanelPoint
    energy: Energy

    @property
    def point(self) -> StudyPoint:
        return self.row.point


def figure(study: Study) -> Figure:
    """Return bars of kWh per million images of every model, or how energy is measured."""
    notes = Footnotes()
    shown = of_points(study, energy, notes)[:MOST]
    if not shown:
        hint = (
            "For energy: run where a counter can be read, NVML, AMD SMI, pm_counters or RAPL; "
            "hpcgeo-profile records it."
        )
        return Figure("energy", "Energy", missing=hint)
    known = [_spent(panel) for panel in shown]
    every = [own for panel in known for own in panel]
    return Figure(
        "energy",
        _claim(every),
        panels=tuple(_draw(*both) for both in zip(shown, known, strict=True)),
        caption=f"kWh per million images. {_counters(every)}.",
        sentences=tuple(_carbon(every)),
        footnotes=notes.all,
    )


def energy(point: StudyPoint) -> Energy | None:
    """Return the median joules per image of the repeats; None where counters saw other things."""
    first = point.same(_counter) and point.all(lambda record: record.energy)[0]
    if not first:
        return None
    each = point.median(lambda record: record.energy and record.energy.joules_per_image)
    return first.model_copy(update={"joules": (each or 0.0) * first.images})


def _counter(record: Record) -> tuple[str, str] | None:
    return (record.energy.source, record.energy.covers) if record.energy else None


def kwh(found: Energy) -> float:
    """Return kWh per million images."""
    return found.joules_per_image / JOULES


def carbon(found: Energy) -> float | None:
    """Return kg of CO2 per million images; None without a grid factor."""
    return None if found.grid_g_per_kwh is None else kwh(found) * found.grid_g_per_kwh / 1000


def _spent(panel: PointPanel) -> list[Spent]:
    return [Spent(row, found) for row in panel.rows if (found := energy(row.point))]


def _counters(every: Sequence[Spent]) -> str:
    """Return what was read, and what it covers where that is the same for all."""
    sources = listed(list(dict.fromkeys(own.energy.source for own in every)))
    covers = {own.energy.covers for own in every}
    return f"Read by {sources}" + (f", which sees {covers.pop()}" if len(covers) == 1 else "")


def _draw(panel: PointPanel, known: Sequence[Spent]) -> str:
    bars = []
    for own in rivals(known, lambda own: own.point.devices, lambda own: kwh(own.energy)):
        co2 = carbon(own.energy)
        more = f", {digits(co2)} kg CO2" if co2 is not None else ""
        tip = f"{digits(own.energy.joules_per_image)} J an image{more}"
        part = BarPart(kwh(own.energy), style(own.row.line).css, tip)
        value = digits(kwh(own.energy))
        bars.append(BarRow(own.row.line, style(own.row.line), own.row.label, value, [part]))
    said = [f"{bar.label} {bar.value}" for bar in bars]
    return rows(
        panel.title,
        panel.below + left_out(len(known) - len(bars)),
        bars,
        lambda value: f"{value:g}",
        axis="kWh",
        alt=f"kWh per million images of {panel.title}. {listed(said)}.",
        model=panel.model,
    )


def _claim(every: Sequence[Spent]) -> str:
    """Return who needs least on the most devices and who ties, among what a counter saw alike."""
    alike: dict[tuple[int, str, str, str], list[Spent]] = defaultdict(list)
    for own in every:
        found = own.energy
        key = (own.point.devices, own.point.first.model, found.source, found.covers)
        alike[key].append(own)
    row = alike[max(alike, key=lambda key: (len(alike[key]) > 1, key[0]))]
    least = min(row, key=lambda own: kwh(own.energy))
    tied = [own for own in row if kwh(own.energy) < (1 + LEVEL) * kwh(least.energy)]
    if len(row) == 1:
        return f"Energy of {least.row.name}"
    if len(tied) == 1:
        return f"{least.row.name} needs least energy"
    where = least.row.name.removeprefix(f"{least.row.line} of ")
    return f"{len(tied)} of {len(row)} points tie for the least energy of {where}"


def _carbon(every: Sequence[Spent]) -> Iterator[str]:
    """Yield the factors of the grid, each with its source."""
    factors = dict.fromkeys(
        (own.energy.grid_g_per_kwh, own.energy.grid_source or "source not recorded")
        for own in every
        if own.energy.grid_g_per_kwh is not None
    )
    for grams, source in factors:
        yield f"CO2 is that of {grams:g} g/kWh ({source})."
