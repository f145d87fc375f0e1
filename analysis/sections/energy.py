"""Energy and CO2 per million images, from counters; what no counter saw is not measured."""

from collections import defaultdict
from collections.abc import Sequence

from hpcgeo.measured import Energy
from hpcgeo.records import Record
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.formatting import counted, digits, listed, times
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.tables import Table, line, number, text, valued, whole, without_constant

#: Joules of a kWh, over a million images.
JOULES = 3.6e6 / 1e6


def section(study: Study) -> Section:
    """Return energy of every comparison, and who needs least."""
    blocks = []
    for comparison in study.once:
        known = [scaled for scaled in comparison.scaled if energy(scaled.point)]
        if known:
            blocks.append(ReportBlock(comparison.title, _least(known), (), [_table(known)]))
    missing = "Not measured: no record holds what a counter of energy saw."
    return Section("energy", "Energy and CO2 per million images", "", blocks, missing)


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


def _least(known: Sequence[Scaled]) -> list[str]:
    """Return who needs least on the most devices, among what one counter saw alike."""
    alike: dict[tuple[int, str, str], list[tuple[Energy, Scaled]]] = defaultdict(list)
    for scaled in known:
        found = energy(scaled.point)
        assert found
        alike[scaled.point.devices, found.source, found.covers].append((found, scaled))
    most = max(alike, key=lambda key: (len(alike[key]) > 1, key[0]))
    ranked = sorted(alike[most], key=lambda pair: pair[0].joules_per_image)
    least, best = ranked[0]
    co2 = carbon(least)
    words = f", {digits(co2)} kg of CO2" if co2 is not None else ""
    sentence = (
        f"On {counted(most[0], 'device')} {best.name} needs "
        f"{digits(least.joules_per_image)} J an image: {digits(kwh(least))} kWh{words} per million "
        f"images ({most[1]}, {most[2]})"
    )
    if len(ranked) > 1:
        last, worst = ranked[-1]
        ratio = last.joules_per_image / least.joules_per_image
        sentence += f"; {worst.name} needs {times(ratio)} of that, the most of the {len(ranked)} "
        sentence += "measured"
    return [f"{sentence}."]


def _table(known: Sequence[Scaled]) -> Table:
    rows, factors = [], []
    for scaled in known:
        found = energy(scaled.point)
        assert found
        co2 = carbon(found)
        if found.grid_g_per_kwh is not None:
            source = found.grid_source or "source not recorded"
            factors.append(f"{found.grid_g_per_kwh:g} g/kWh ({source})")
        rows.append(
            [
                line(scaled),
                whole(scaled.point.devices),
                valued(digits, found.joules_per_image),
                valued(digits, kwh(found)),
                number("no grid factor" if co2 is None else digits(co2), co2),
                text(found.source),
                text(found.covers),
            ]
        )
    head = ["strategy", "devices", "J an image", "kWh", "kg CO2", "counter", "covers"]
    notes = [f"CO2 with {listed(sorted(set(factors)))}."] if factors else []
    table = Table("Energy of measured steps; kWh and CO2 per million images", head, rows, notes)
    return without_constant(table, ("counter", "covers"))
