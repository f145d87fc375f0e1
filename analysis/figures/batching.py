"""Samples of unequal length: real tokens per second, and what padding costs."""

from collections.abc import Iterator, Sequence

from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.figures.bars import BarPart, BarRow, left_out, rivals, rows
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.panels import MOST, Footnotes, PanelPoint, PointPanel, of_points, told
from hpcgeo_analysis.formatting import counted, listed, percent, rate
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.styles import style

TOKENS = ("tokens of samples", "var(--part-compute)")
PADDING = ("padding", "var(--part-unused)")


def figure(study: Study) -> Figure | None:
    """Return bars of tokens per second of every model; None where nothing is of unequal length."""
    notes = Footnotes()
    shown = of_points(study, lambda point: point.tokens_per_s, notes)[:MOST]
    if not shown:
        return None
    every = [row.scaled for panel in shown for row in panel.rows]
    return Figure(
        "batching",
        _claim(every),
        panels=tuple(map(_draw, shown)),
        legend=(TOKENS, PADDING),
        caption="Tokens per second of all devices; a thin line from p10 to p90.",
        sentences=tuple(_padded([row for panel in shown for row in panel.rows])),
        footnotes=notes.all,
    )


def padding(point: StudyPoint) -> float | None:
    """Return the fraction of what is computed that is padding."""
    return point.median(lambda record: record.padding)


def _draw(panel: PointPanel) -> str:
    bars = []
    for row in rivals(panel.rows, lambda row: row.point.devices, lambda row: -_rate(row.scaled)):
        own, share = _rate(row.scaled), padding(row.point) or 0.0
        parts = [
            BarPart(own, TOKENS[1], f"{rate(own)} tokens/s"),
            BarPart(own * share / (1 - share), PADDING[1], f"padding: {percent(share)}"),
        ]
        spread = row.point.tokens_range
        bars.append(BarRow(row.line, style(row.line), row.label, rate(own), parts, "", spread))
    said = [f"{bar.label} {bar.value} and {bar.parts[1].tip}" for bar in bars]
    return rows(
        panel.title,
        panel.below + left_out(len(panel.rows) - len(bars)),
        bars,
        lambda value: f"{value:,.0f}",
        axis="tokens/s",
        alt=f"Tokens per second of {panel.title}. {listed(said)}.",
        model=panel.model,
    )


def _claim(every: Sequence[Scaled]) -> str:
    """Return who computes most tokens on the most devices with a rival, and who ties."""
    row = _clear(every)
    best = max(row, key=_rate)
    tied = [other.line for other in row if other is not best and _tied(best.point, other.point)]
    on = counted(best.point.devices, "device")
    if tied:
        names = [best.line, *tied]
        layouts = {scaled.point.layout for scaled in row}
        if len(layouts) == 1:
            names = [name.removeprefix(best.point.layout).strip() or name for name in names]
        return f"{listed(names)} tie in tokens per second, on {on}"
    return f"{best.line} computes most tokens per second, on {on}"


def _padded(every: Sequence[PanelPoint]) -> Iterator[str]:
    """Yield who pads most."""
    most = max(every, key=lambda row: padding(row.point) or 0.0)
    share = padding(most.point)
    if share:
        yield f"Up to {percent(share)} of what is computed is padding: {most.name}."


def _clear(every: Sequence[Scaled]) -> list[Scaled]:
    """Return the points on the most devices where several were measured, the clear ones if any."""
    row = rivals(every, lambda scaled: scaled.point.devices, lambda scaled: -_rate(scaled))
    return [scaled for scaled in row if not told(scaled)] or row


def _rate(scaled: Scaled) -> float:
    return scaled.point.tokens_per_s or 0.0


def _tied(best: StudyPoint, other: StudyPoint) -> bool:
    if best.tokens_range is None or other.tokens_range is None:
        return False
    return other.tokens_range[1] >= best.tokens_range[0]
