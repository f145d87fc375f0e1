"""Memory of a device by cause, against what it has."""

from collections.abc import Sequence

from hpcgeo.records import Memory
from hpcgeo_analysis import charts
from hpcgeo_analysis.charts import Bar
from hpcgeo_analysis.growth import file_name, marked
from hpcgeo_analysis.plots import CAUSES, REST, Plot
from hpcgeo_analysis.points import Point
from hpcgeo_analysis.scaling import Comparison, Scaled
from hpcgeo_analysis.sections import Block, Section, Study
from hpcgeo_analysis.tables import (
    Table,
    line,
    text,
    valued,
    whole,
    without_constant,
    without_empty,
)
from hpcgeo_analysis.words import counted, gib, listed, percent, times

#: Causes of memory, with their colours; together they are the peak of what tensors take.
CAUSE = {
    "parameters_bytes": ("parameters", CAUSES[0][0]),
    "gradients_bytes": ("gradients", CAUSES[3][0]),
    "optimizer_bytes": ("optimizer", CAUSES[2][0]),
    "gathered_bytes": ("gathered units", CAUSES[4][0]),
    "activations_bytes": ("activations", CAUSES[5][0]),
    "other_bytes": ("other", REST[0]),
}
_PEAKS = {
    "peak_allocated_bytes": "allocated",
    "peak_active_bytes": "active",
    "peak_reserved_bytes": "reserved",
    "peak_resident_bytes": "resident",
    "limit_bytes": "limit",
}
#: Memory further apart than this is worth a sentence; so is more than this share of the limit.
APART, FULL = 1.02, 0.9


def section(study: Study) -> Section:
    """Return stacked memory, tables, and who needs least."""
    blocks = []
    for comparison in study.once:
        tables = []
        known = [s for s in comparison.scaled if _known(s.point)]
        if known:
            tables = [_table(known)]
        plots = _plots(comparison, known) if comparison.number in study.drawn else []
        blocks.append(Block(comparison.title, sentences(comparison), plots, tables))
    intro = "On the rank that holds most, at its peak. GiB = 2^30 bytes."
    return Section("memory", "Memory", intro, [b for b in blocks if not b.empty])


def memory(point: Point) -> Memory | None:
    """Return memory by cause of the repeat that took most."""
    found = point.all(lambda record: record.memory)
    return max(found, key=peak, default=None)


def peak(memory: Memory) -> int:
    """Return the most that is known of a peak, for an order; 0 where nothing is."""
    values = (
        *(memory.peak_reserved_bytes, memory.peak_allocated_bytes, memory.peak_active_bytes),
        memory.peak_resident_bytes,
    )
    return next((value for value in values if value), 0)


def split(memory: Memory) -> dict[str, int]:
    """Return the known bytes by cause."""
    return {key: value for key in CAUSE if (value := getattr(memory, key)) is not None}


def _known(point: Point) -> bool:
    found = memory(point)
    return bool(point.memory_bytes or (found and (peak(found) or split(found))))


def _plots(comparison: Comparison, known: Sequence[Scaled]) -> list[Plot]:
    chosen = charts.some(known)
    if len(chosen) < 2:
        return []
    bars = []
    causes = [*CAUSE.values(), ("not split by cause", REST[0])]
    for scaled in chosen:
        found = memory(scaled.point)
        by_cause = split(found) if found else {}
        rest = 0 if by_cause else (scaled.point.memory_bytes or (peak(found) if found else 0))
        parts = [*(by_cause.get(key, 0) / 2**30 for key in CAUSE), rest / 2**30]
        bars.append(
            Bar(f"{scaled.line} · {scaled.point.devices:,}", parts, bool(scaled.point.mark))
        )
    used = [place for place in range(len(causes)) if any(bar.parts[place] for bar in bars)]
    bars = [Bar(bar.label, [bar.parts[place] for place in used], bar.marked) for bar in bars]
    limits = {m.limit_bytes for s in chosen if (m := memory(s.point)) and m.limit_bytes}
    sources = sorted({s.point.memory_source for s in chosen if s.point.memory_source})
    below = comparison.subtitle + (f". {listed(sources)}" if len(causes) - 1 in used else "")
    if len(chosen) < len(known):
        below += ". Smallest, middle and largest number of devices"
    return [
        charts.stacked(
            f"memory-{file_name(comparison)}",
            f"Memory: {comparison.title}",
            below,
            bars,
            [causes[place] for place in used],
            "GiB per device",
            limit=limits.pop() / 2**30 if len(limits) == 1 else None,
        )
    ]


def _table(known: Sequence[Scaled]) -> Table:
    rows = []
    for scaled in known:
        point = scaled.point
        found = memory(point) or Memory()
        row = [line(scaled), whole(point.devices), valued(gib, point.memory_bytes)]
        row.append(text(point.memory_source or "not measured"))
        row += [valued(gib, getattr(found, key)) for key in (*CAUSE, *_PEAKS)]
        rows.append([*row, valued(percent, used(found))])
    names = [name for name, _ in CAUSE.values()]
    head = ["strategy", "devices", "peak", "what", *names, *_PEAKS.values(), "of the limit"]
    table = without_empty(Table("Memory of a device in GiB", head, rows), head[2:])
    return without_constant(table, ("what", "limit"))


def used(found: Memory) -> float | None:
    """Return the share of the limit that was taken at the peak."""
    return peak(found) / found.limit_bytes if found.limit_bytes and peak(found) else None


def sentences(comparison: Comparison) -> list[str]:
    """Return who needs least, whose memory changes with the devices, who stands at the limit."""
    found = []
    for source in sources(comparison):
        known = [s for s in comparison.scaled if s.point.memory_source == source]
        counts = sorted({scaled.point.devices for scaled in known}, reverse=True)
        rows = ([s for s in known if s.point.devices == count] for count in counts)
        row = next((row for row in rows if len(row) > 1), None)
        if row is not None:
            found.append(_least(row, source))
        found += _change(comparison, source)
    return found + _cause(comparison) + _full(comparison)


def sources(comparison: Comparison) -> list[str]:
    """Return the kinds of memory that were measured, e.g. ``reserved``."""
    return sorted({s.point.memory_source for s in comparison.scaled if s.point.memory_source})


def _least(row: Sequence[Scaled], source: str) -> str:
    ordered = sorted(row, key=lambda scaled: scaled.point.memory_bytes or 0)
    least, most = ordered[0], ordered[-1]
    assert least.point.memory_bytes and most.point.memory_bytes
    ratio = most.point.memory_bytes / least.point.memory_bytes
    where = f"On {counted(least.point.devices, 'device')}"
    if ratio < APART:
        return (
            f"{where} {source} memory differs by less than {percent(APART - 1)} between "
            f"strategies: {gib(least.point.memory_bytes)} GiB per rank."
        )
    return (
        f"{where} {least.name} needs least {source} memory, {gib(least.point.memory_bytes)} GiB "
        f"per rank; {most.name} most, {gib(most.point.memory_bytes)} GiB ({times(ratio)})."
    )


def _change(comparison: Comparison, source: str) -> list[str]:
    parts = []
    for name, members in comparison.lines.items():
        ends = [s for s in members if s.point.memory_source == source]
        known = [scaled.point for scaled in ends]
        if len(known) < 2 or not known[0].memory_bytes or not known[-1].memory_bytes:
            continue
        ratio = known[-1].memory_bytes / known[0].memory_bytes
        if not 0.8 <= ratio <= 1.25:
            parts.append(
                f"{marked(name, (ends[0], ends[-1]))} from "
                f"{gib(known[0].memory_bytes)} GiB on {known[0].devices:,} to "
                f"{gib(known[-1].memory_bytes)} GiB on {known[-1].devices:,}"
            )
    if not parts:
        return []
    shrinks = " (the micro-batch changes with them)" if comparison.mode == "strong" else ""
    changes = f"{source.capitalize()} memory per rank changes with the devices{shrinks}"
    return [f"{changes}: {listed(parts)}."]


def _cause(comparison: Comparison) -> list[str]:
    """Return what takes most on the most devices, line by line."""
    most = comparison.devices[-1]
    parts: dict[str, list[str]] = {}
    for scaled in comparison.scaled:
        found = memory(scaled.point) if scaled.point.devices == most else None
        by_cause = split(found) if found else {}
        total = sum(by_cause.values())
        if total:
            key = max(by_cause, key=lambda cause: by_cause[cause])
            share = percent(by_cause[key] / total)
            parts.setdefault(CAUSE[key][0], []).append(f"{scaled.name} ({share})")
    if not parts:
        return []
    said = [f"{cause} under {listed(lines)}" for cause, lines in parts.items()]
    return [f"On {counted(most, 'device')} most is taken by {'; '.join(said)}."]


def _full(comparison: Comparison) -> list[str]:
    shares = [(used(m), s) for s in comparison.scaled if (m := memory(s.point))]
    known = [(share, scaled) for share, scaled in shares if share is not None]
    share, most = max(known, key=lambda pair: pair[0], default=(0.0, None))
    if most is None or share < FULL:
        return []
    on = counted(most.point.devices, "device")
    return [f"{most.name} on {on} takes {percent(share)} of what a device has."]
