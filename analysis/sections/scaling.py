"""Weak and strong scaling: throughput with ideal lines, efficiency, and where it is lost."""

import re
from collections import defaultdict
from collections.abc import Sequence

from hpcgeo_analysis import charts, messages
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.formatting import counted, listed, nodes, percent, rate, span
from hpcgeo_analysis.tables import (
    Table,
    TableCell,
    footnotes,
    line,
    number,
    whole,
    without_constant,
    without_empty,
)
from hpcgeo_analysis.winners import LineLoss, losses


def section(study: Study) -> Section:
    """Return figures, tables and sentences of every comparison."""
    blocks = []
    for comparison in study.comparisons:
        plots = []
        if comparison.number in study.plotted:
            name = file_name(comparison)
            figures = (
                charts.throughput(comparison, study.styles, name),
                charts.efficiency(comparison, study.styles, name),
            )
            plots = [plot for plot in figures if plot]
        blocks.append(ReportBlock(comparison.title, kept(comparison), plots, [_table(comparison)]))
    intro = (
        "Efficiency is throughput per device against the smallest run of the same line. The ideal "
        "line goes on with what a device does in the fastest of the smallest runs."
    )
    return Section("scaling", "Weak and strong scaling", intro, blocks)


def file_name(comparison: Comparison) -> str:
    """Return the end of the names of a comparison's figures."""
    return f"{comparison.number}-{re.sub(r'[^A-Za-z0-9_.]+', '_', comparison.model)}"


def kept(comparison: Comparison) -> list[str]:
    """Return how much of its throughput per device each line keeps, and where it loses it."""
    ends: dict[tuple[int, int], list[Scaled]] = defaultdict(list)
    single, untimed, breaks = list[str](), list[str](), list[str]()
    lost = [loss for loss in losses(comparison) if loss.breaks]
    for name, members in comparison.lines.items():
        known = [scaled for scaled in members if scaled.efficiency is not None]
        if not known:
            timed = any(scaled.point.images_per_s for scaled in members)
            (single if timed else untimed).append(name)
            continue
        assert known[0].base is not None
        ends[known[0].base.devices, known[-1].point.devices].append(known[-1])
        breaks += _loss([loss for loss in lost if loss.after.line == name], len(known) == 2)
    sentences = []
    for (base, top), lasts in sorted(ends.items()):
        best_first = sorted(lasts, key=lambda scaled: -(scaled.efficiency or 0))
        parts = [f"{marked(s.line, _ends(comparison, s))} {_share(s)}" for s in best_first]
        own = "its own run" if len(parts) == 1 else "their own runs"
        sentences.append(
            f"From {base:,} to {counted(top, 'device')} ({comparison.mode} scaling), throughput "
            f"per device kept of {own} on {base:,}: {listed(parts)}."
        )
    if len({base for base, _ in ends}) > 1:
        sentences.append("Efficiencies against runs of different size are not comparable.")
    sentences += breaks
    if single and len(comparison.devices) > 1:
        verb = "was" if len(single) == 1 else "were"
        sentences.append(
            f"{listed(single)} {verb} measured at one number of devices only: no efficiency "
            "is claimed."
        )
    if untimed:
        sentences.append(f"{listed(untimed)} {'was' if len(untimed) == 1 else 'were'} not timed.")
    return sentences


def _ends(comparison: Comparison, last: Scaled) -> list[Scaled]:
    """Return the two points an efficiency rests on."""
    return [s for s in comparison.lines[last.line] if s is last or s.point is last.base]


def _share(scaled: Scaled) -> str:
    words = percent(scaled.efficiency)
    if scaled.low is not None and scaled.high is not None and scaled.low <= 1 <= scaled.high:
        return f"{words} (within noise of ideal)"
    return words


def _loss(lost: Sequence[LineLoss], said: bool) -> list[str]:
    """Return where a line loses much between neighbouring sizes, with its messages there.

    Args:
        said: what the line keeps is said already.
    """
    sentences = []
    for loss in lost:
        before, after = loss.before, loss.after
        first, second = before.point, after.point
        where = nodes(first.nodes, second.nodes, (first.devices, second.devices))
        change = messages.change(first, second)
        if change or not said:
            name = marked(after.line, (before, after))
            sentences.append(
                f"{name} loses {percent(loss.share)} of its throughput per device between "
                f"{where}, from {percent(before.efficiency)} to {percent(after.efficiency)} of its "
                f"smallest run{change}."
            )
    return sentences


def marked(line: str, shown: Sequence[Scaled]) -> str:
    """Return a line with the marks of all points that a sentence rests on."""
    marks = {mark for scaled in shown if scaled.line == line for mark in scaled.point.marks}
    return f"{line} ({listed(sorted(marks))})" if marks else line


def _table(comparison: Comparison) -> Table:
    best: dict[int, float] = {}
    for scaled in comparison.scaled:
        count = scaled.point.devices
        best[count] = max(best.get(count, 0.0), scaled.point.images_per_s or 0.0)
    speed = f"{comparison.noun}/s"
    head = ["strategy", "devices", speed, "p10 to p90", f"{speed} per device"]
    head += ["of the fastest", "efficiency", "its range", "against", "nodes", "micro-batch"]
    head += ["accumulation", "runs"]
    predicted = comparison.context["kind"] == "predicted"
    if predicted:
        best = {}  # no clock says which is fastest
    rows = [_row(scaled, best.get(scaled.point.devices)) for scaled in comparison.scaled]
    notes = footnotes(comparison.scaled)
    table = Table(f"Throughput and efficiency: {comparison.fixed}", head, rows, notes)
    table = without_empty(table, ("p10 to p90", "its range"))
    same = ["against", "nodes", "micro-batch", "accumulation", "runs"]
    return without_constant(table, [*same, *(["of the fastest"] if predicted else [])])


def _row(scaled: Scaled, best: float | None) -> list[TableCell]:
    point, record = scaled.point, scaled.point.first
    share = point.images_per_s / best if point.images_per_s and best else None
    low, high = point.range or (None, None)
    against = scaled.base.devices if scaled.base else None
    extent = None if scaled.low is None else f"{percent(scaled.low)} to {percent(scaled.high)}"
    return [
        line(scaled),
        whole(point.devices),
        number(rate(point.images_per_s), point.images_per_s, "best" if share == 1 else ""),
        number(span(low, high), low),
        number(rate(point.per_device), point.per_device),
        number("not ranked" if best is None else percent(share), share),
        number(
            percent(scaled.efficiency)
            if scaled.efficiency is not None
            else ("no claim" if point.images_per_s else "not measured"),
            scaled.efficiency,
        ),
        number(extent or "none given", scaled.low),
        number(counted(against, "device") if against else "one size only", against),
        whole(point.nodes),
        whole(record.micro_batch),
        whole(record.accumulate),
        whole(len(point.records)),
    ]
