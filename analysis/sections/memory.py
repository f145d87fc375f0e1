"""Memory of a device by cause, against what it has."""

from collections.abc import Sequence

from hpcgeo_analysis import charts
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.charts import Bar
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.formatting import counted, gib, listed, percent, times
from hpcgeo_analysis.plots import CAUSES, REST, Plot
from hpcgeo_analysis.points import KINDS, StudyPoint
from hpcgeo_analysis.sections.scaling import file_name, marked
from hpcgeo_analysis.tables import Table, line, valued, whole, without_constant, without_empty

#: Causes of memory, with their colours; together they are the peak of what tensors take.
CAUSE = {
    "parameters_bytes": ("parameters", CAUSES[0][0]),
    "gradients_bytes": ("gradients", CAUSES[3][0]),
    "optimizer_bytes": ("optimizer", CAUSES[2][0]),
    "gathered_bytes": ("gathered units", CAUSES[4][0]),
    "activations_bytes": ("activations", CAUSES[5][0]),
    "batch_bytes": ("batch", CAUSES[1][0]),
    "other_bytes": ("other", REST[0]),
}
#: Memory further apart than this is worth a sentence; so is more than this share of the limit.
APART, FULL = 1.02, 0.9


def section(study: Study) -> Section:
    """Return stacked memory, tables, and who needs least."""
    blocks = []
    for comparison in study.once:
        known = [s for s in comparison.scaled if s.point.held or split(s.point)]
        if known:
            plots = _plots(comparison, known) if comparison.number in study.plotted else []
            blocks.append(
                ReportBlock(comparison.title, sentences(comparison), plots, [_table(known)])
            )
    intro = (
        "On the rank that holds most, at its peak. GiB = 2^30 bytes. Reserved is taken from the "
        "device, active and allocated are used of it, resident is the process on the host."
    )
    return Section("memory", "Memory", intro, blocks)


def main_kind(scaled: Sequence[Scaled]) -> str:
    """Return the kind of peak that most points know; empty where none knows any."""
    kinds = dict.fromkeys([*KINDS, *(kind for s in scaled for kind in s.point.held)])
    counts = {kind: sum(kind in s.point.held for s in scaled) for kind in kinds}
    best = max(counts, key=lambda kind: counts[kind])
    return best if counts[best] else ""


def split(point: StudyPoint) -> dict[str, int]:
    """Return the known bytes of a point by cause."""
    found = point.memory
    return {key: value for key in CAUSE if (value := getattr(found, key, None)) is not None}


def _plots(comparison: Comparison, known: Sequence[Scaled]) -> list[Plot]:
    """Return bars by cause; where no point knows causes, of the one kind most points know."""
    kind = main_kind(known)
    causes = [*CAUSE.values()]
    by_cause = [scaled for scaled in known if split(scaled.point)]
    shown = by_cause or [scaled for scaled in known if kind in scaled.point.held]
    chosen = charts.some(shown)
    if len(chosen) < 2:
        return []
    if not by_cause:
        causes = [(f"{kind}, not split by cause", REST[0])]
    bars = []
    for scaled in chosen:
        found = split(scaled.point) if by_cause else {kind: scaled.point.held[kind]}
        parts = [found.get(key, 0) / 2**30 for key in (CAUSE if by_cause else (kind,))]
        bars.append(
            Bar(f"{scaled.line} · {scaled.point.devices:,}", parts, bool(scaled.point.mark))
        )
    shown = [place for place in range(len(causes)) if any(bar.parts[place] for bar in bars)]
    bars = [Bar(bar.label, [bar.parts[place] for place in shown], bar.marked) for bar in bars]
    limits = {m.limit_bytes for s in chosen if (m := s.point.memory) and m.limit_bytes}
    below = comparison.subtitle
    if len(chosen) < len(shown):
        below += ". Smallest, middle and largest number of devices"
    return [
        charts.stacked(
            f"memory-{file_name(comparison)}",
            f"Memory: {comparison.title}",
            below,
            bars,
            [causes[place] for place in shown],
            "GiB per device",
            limit=limits.pop() / 2**30 if len(limits) == 1 else None,
        )
    ]


def _table(known: Sequence[Scaled]) -> Table:
    kinds = list(dict.fromkeys([*KINDS, *(kind for s in known for kind in s.point.held)]))
    rows = []
    for scaled in known:
        point = scaled.point
        peaks, by_cause, found = point.held, split(point), point.memory
        row = [
            line(scaled),
            whole(point.devices),
            *(valued(gib, peaks.get(kind)) for kind in kinds),
        ]
        row += [valued(gib, by_cause.get(key)) for key in CAUSE]
        row += [valued(gib, found.limit_bytes if found else None), valued(percent, used(point))]
        rows.append(row)
    names = [name for name, _ in CAUSE.values()]
    head = ["strategy", "devices", *kinds, *names, "limit", "of the limit"]
    table = without_empty(Table("Memory of a device in GiB", head, rows), head[2:])
    return without_constant(table, ("limit",))


def used(point: StudyPoint) -> float | None:
    """Return the share of the limit that was taken, reserved on a device or resident on a host."""
    found, peaks = point.memory, point.held
    taken = peaks.get("reserved", peaks.get("resident"))
    return taken / found.limit_bytes if found and found.limit_bytes and taken else None


def sentences(comparison: Comparison) -> list[str]:
    """Return who needs least, whose memory changes with the devices, who stands at the limit."""
    found = []
    kind = main_kind(comparison.scaled)
    if kind:
        known = [s for s in comparison.scaled if kind in s.point.held]
        counts = sorted({scaled.point.devices for scaled in known}, reverse=True)
        rows = ([s for s in known if s.point.devices == count] for count in counts)
        row = next((row for row in rows if len(row) > 1), None)
        if row is not None:
            found.append(_least(row, kind))
        found += _change(comparison, kind)
    return found + _cause(comparison) + _full(comparison)


def _least(row: Sequence[Scaled], kind: str) -> str:
    ordered = sorted(row, key=lambda scaled: scaled.point.held[kind])
    least, most = ordered[0], ordered[-1]
    low, high = least.point.held[kind], most.point.held[kind]
    where = f"On {counted(least.point.devices, 'device')}"
    if high / low < APART:
        return (
            f"{where} {kind} memory differs by less than {percent(APART - 1)} between the "
            f"{len(row)} measured: {gib(low)} GiB per rank."
        )
    return (
        f"{where} {least.name} needs least {kind} memory of the {len(row)} measured, {gib(low)} "
        f"GiB per rank; {most.name} most, {gib(high)} GiB ({times(high / low)})."
    )


def _change(comparison: Comparison, kind: str) -> list[str]:
    parts = []
    for name, members in comparison.lines.items():
        known = [scaled for scaled in members if kind in scaled.point.held]
        if len(known) < 2:
            continue
        first, last = known[0].point, known[-1].point
        if not 0.8 <= last.held[kind] / first.held[kind] <= 1.25:
            parts.append(
                f"{marked(name, (known[0], known[-1]))} from {gib(first.held[kind])} GiB on "
                f"{first.devices:,} to {gib(last.held[kind])} GiB on {last.devices:,}"
            )
    if not parts:
        return []
    shrinks = " (the micro-batch changes with them)" if comparison.mode == "strong" else ""
    changes = f"{kind.capitalize()} memory per rank changes with the devices{shrinks}"
    return [f"{changes}: {listed(parts)}."]


def _cause(comparison: Comparison) -> list[str]:
    """Return what takes most on the most devices, line by line."""
    most = comparison.devices[-1]
    parts: dict[str, list[str]] = {}
    for scaled in comparison.scaled:
        by_cause = split(scaled.point) if scaled.point.devices == most else {}
        total = sum(by_cause.values())
        if total:
            key = max(by_cause, key=lambda cause: by_cause[cause])
            share = percent(by_cause[key] / total)
            parts.setdefault(CAUSE[key][0], []).append(
                f"{scaled.name} ({share} of {gib(total)} GiB)"
            )
    if not parts:
        return []
    said = [f"{cause} under {listed(lines)}" for cause, lines in parts.items()]
    return [f"On {counted(most, 'device')} most is taken by {'; '.join(said)}."]


def _full(comparison: Comparison) -> list[str]:
    shares = [(used(scaled.point), scaled) for scaled in comparison.scaled]
    known = [(share, scaled) for share, scaled in shares if share is not None]
    share, most = max(known, key=lambda pair: pair[0], default=(0.0, None))
    if most is None or share < FULL:
        return []
    on = counted(most.point.devices, "device")
    has = most.point.memory.limit_bytes if most.point.memory else None
    return [f"{most.name} on {on} takes {percent(share)} of the {gib(has)} GiB of a device."]
