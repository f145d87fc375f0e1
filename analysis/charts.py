"""The kinds of figures: lines against devices, stacked bars, curves against message size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.formatting import counted, percent, rate, size
from hpcgeo_analysis.plots import CAUSES, INK, LINE, MUTED, PAPER, LineStyles, Plot, render

#: Numbers of devices from which axes become logarithmic: largest over smallest.
WIDE = 8
#: Bars of one figure; of more numbers of devices the smallest, middle and largest are drawn.
BARS = 24

HATCH = "////"

Range = tuple[float, float] | None


@dataclass(frozen=True)
class Bar:
    """One bar: its label, the length of its parts, whether its point bears a mark, and the range of
    the first part.
    """

    label: str
    parts: Sequence[float]
    marked: bool = False
    range: Range = None


def throughput(comparison: Comparison, styles: LineStyles, name: str) -> Plot | None:
    """Return images per second against devices with the ideal line, or nothing for one number."""
    timed = [scaled for scaled in comparison.scaled if scaled.point.images_per_s]
    counts = sorted({scaled.point.devices for scaled in timed})
    if len(counts) < 2:
        return None

    def plot(axes: Axes) -> None:
        _ideal(axes, timed, counts)
        for members in comparison.lines.values():
            known = [s for s in members if s.point.images_per_s]
            _line(axes, styles, known, lambda s: s.point.images_per_s, lambda s: s.point.range)
        _device_axis(axes, counts)
        if _is_wide(counts):
            _log_axis(axes, "y", _plain)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_ylabel(f"all devices, {comparison.noun}/s")
        _hollow(axes, timed)

    most = [s for s in timed if s.point.devices == counts[-1]]
    parts = [f"{s.name} {rate(s.point.images_per_s)}" for s in most]
    on = counted(counts[-1], "device")
    alt = f"{comparison.noun.capitalize()} per second against devices. On {on}: "
    title = f"Throughput: {comparison.title}"
    alt += f"{'; '.join(parts)}."
    return render(f"throughput-{name}", title, comparison.subtitle, alt, plot, left=0.9)


def efficiency(comparison: Comparison, styles: LineStyles, name: str) -> Plot | None:
    """Return the efficiency of each line against its own smallest run."""
    known = [scaled for scaled in comparison.scaled if scaled.efficiency is not None]
    if not known:
        return None
    counts = sorted({scaled.point.devices for scaled in known})
    bases = {scaled.base.devices for scaled in known if scaled.base}

    def plot(axes: Axes) -> None:
        axes.axhline(1, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="ideal: 100 %")
        for members in comparison.lines.values():
            own = [s for s in members if s.efficiency is not None]
            suffix = f" (base: {own[0].base.devices})" if own and own[0].base else ""
            _line(axes, styles, own, _efficiency, _range, suffix if len(bases) > 1 else "")
        _device_axis(axes, counts)
        top = max((scaled.high or scaled.efficiency or 0) for scaled in known)
        axes.set_ylim(0, max(1.1, 1.05 * top))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f} %"))
        base = counted(min(bases), "device") if len(bases) == 1 else "each line's smallest run"
        axes.set_ylabel(f"per device, against {base}")
        _hollow(axes, known)

    ends = [line[-1] for line in comparison.lines.values() if line[-1].efficiency is not None]
    parts = [f"{s.name} {percent(s.efficiency)} on {s.point.devices:,}" for s in ends]
    alt = f"Efficiency against devices, ideal is 100 %. {'; '.join(parts)}."
    title = f"Efficiency: {comparison.title}"
    return render(f"efficiency-{name}", title, comparison.subtitle, alt, plot)


def some(known: Sequence[Scaled]) -> list[Scaled]:
    """Return points for bars: all, or those on the smallest, middle and largest number."""
    if len(known) <= BARS:
        return list(known)
    counts = sorted({scaled.point.devices for scaled in known})
    chosen = {counts[0], counts[len(counts) // 2], counts[-1]}
    return [scaled for scaled in known if scaled.point.devices in chosen][:BARS]


def stacked(
    name: str,
    title: str,
    subtitle: str,
    bars: Sequence[Bar],
    causes: Sequence[tuple[str, str]],
    axis: str,
    *,
    limit: float | None = None,
) -> Plot:
    """Return horizontal bars stacked by cause, (name, colour) each; `limit` draws a line."""

    def plot(axes: Axes) -> list[Artist]:
        ends, handles = _bars(axes, bars, causes)
        if limit is not None:
            axes.axvline(limit, color=INK, linewidth=1.4)
            handles.append(Line2D([], [], color=INK, label=f"limit: {_plain(limit)}"))
        if any(bar.marked for bar in bars):
            label = "* noisy or still getting faster"
            handles.append(Patch(facecolor=MUTED, edgecolor=PAPER, hatch=HATCH, label=label))
        axes.set_yticks([])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(0, (max([*ends, limit or 0]) or 1) * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_xlabel(axis)
        return handles

    longest = max(len(bar.label) + 2 * bar.marked for bar in bars)
    parts = [
        f"{bar.label}: "
        + ", ".join(
            f"{what} {_plain(float(f'{part:.3g}'))}"
            for (what, _), part in zip(causes, bar.parts, strict=True)
            if part
        )
        for bar in bars
    ]
    alt = f"Bars stacked by cause, {axis}. {'; '.join(parts)}."
    height = max(0.8, LINE * 1.25 * len(bars) + 0.1)
    return render(
        *(name, title, subtitle, alt, plot), height=height, left=min(2.4, 0.3 + 0.072 * longest)
    )


@dataclass(frozen=True)
class BandwidthCurve:
    """Points (message bytes, bytes per second) under one label; `joined` by a line or not."""

    label: str
    points: Sequence[tuple[float, float]]
    joined: bool = True


def curves(name: str, title: str, subtitle: str, found: Sequence[BandwidthCurve]) -> Plot:
    """Return bandwidth against message size, both logarithmic."""
    colours = [light for light, _ in CAUSES]

    def plot(axes: Axes) -> None:
        for place, curve in enumerate(found):
            colour = colours[place % len(colours)]
            axes.plot(
                [at for at, _ in curve.points],
                [value for _, value in curve.points],
                color=colour,
                linestyle="-" if curve.joined else "none",
                marker="o" if curve.joined else "D",
                markersize=3.5 if curve.joined else 5,
                markerfacecolor=colour if curve.joined else PAPER,
                label=curve.label,
            )
        for which in ("x", "y"):
            _log_axis(
                axes, which, lambda value, _=None: size(value).replace(".00", "").replace(".0", "")
            )
        axes.set_xlabel("message")
        axes.set_ylabel("bus bandwidth, bytes/s")

    best = [f"{c.label} up to {size(max(value for _, value in c.points))}/s" for c in found]
    alt = f"Bus bandwidth against message size. {'; '.join(best)}."
    return render(name, title, subtitle, alt, plot, left=0.95)


def _bars(
    axes: Axes, bars: Sequence[Bar], causes: Sequence[tuple[str, str]]
) -> tuple[list[float], list[Artist]]:
    """Draw bars with labels and ranges; return where each ends, and the legend of causes."""
    # One collection a cause and plain text: bars, ticks and containers cost many times that.
    left = [0.0] * len(bars)
    handles: list[Artist] = []
    for number, (cause, colour) in enumerate(causes):
        ends = [at + bar.parts[number] for at, bar in zip(left, bars, strict=True)]
        for hatch, here in _by_mark(bars):
            boxes = [_box(left[place], ends[place], place) for place in here]
            fill = {"facecolors": colour, "edgecolors": PAPER, "linewidths": 0, "hatch": hatch}
            axes.add_collection(PolyCollection(boxes, **fill), autolim=False)
        handles.append(Patch(color=colour, label=cause))
        left = ends
    words: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    for place, bar in enumerate(bars):
        if bar.range:
            axes.hlines(place, *bar.range, color=INK, linewidth=1.2)
        axes.text(-0.012, place, bar.label + " *" * bar.marked, fontsize=8, **words)
    return left, handles


def _by_mark(bars: Sequence[Bar]) -> list[tuple[str | None, list[int]]]:
    plain = [place for place, bar in enumerate(bars) if not bar.marked]
    marked = [place for place, bar in enumerate(bars) if bar.marked]
    return [(hatch, here) for hatch, here in ((None, plain), (HATCH, marked)) if here]


def _box(start: float, end: float, place: int) -> list[tuple[float, float]]:
    low, high = place - 0.37, place + 0.37
    return [(start, low), (end, low), (end, high), (start, high)]


def _efficiency(scaled: Scaled) -> float | None:
    return scaled.efficiency


def _range(scaled: Scaled) -> Range:
    return None if scaled.low is None or scaled.high is None else (scaled.low, scaled.high)


def _plain(value: float, _: int | None = None) -> str:
    """Return a tick's label without an exponent."""
    return f"{value:,.0f}" if value >= 1 and value == round(value) else f"{value:g}"


def _line(
    axes: Axes,
    styles: LineStyles,
    members: Sequence[Scaled],
    value_of: Callable[[Scaled], float | None],
    range_of: Callable[[Scaled], Range],
    suffix: str = "",
) -> None:
    if not members:
        return
    line = members[0].line
    colour, marker = styles.pair[line][0], styles.marker[line]
    at = [scaled.point.devices for scaled in members]
    values = [value_of(scaled) or 0.0 for scaled in members]
    style = {"color": colour, "linewidth": 1.7, "linestyle": styles.dash[line]}
    axes.plot(at, values, **style, marker=marker, markersize=5.5, label=line + suffix)
    ranges = [
        range_of(scaled) or (value, value) for scaled, value in zip(members, values, strict=True)
    ]
    lows, highs = [low for low, _ in ranges], [high for _, high in ranges]
    if lows != highs:
        axes.vlines(at, lows, highs, color=colour, linewidth=1.1)
    hollow = [(x, y) for x, y, s in zip(at, values, members, strict=True) if s.point.mark]
    if hollow:
        axes.plot(
            *zip(*hollow, strict=True),
            ls="none",
            marker=marker,
            ms=6.5,
            mfc=PAPER,
            mec=colour,
            mew=1.5,
        )


def _hollow(axes: Axes, shown: Sequence[Scaled]) -> None:
    marks = sorted({mark for s in shown for mark in s.point.mark.split(", ") if mark})
    if marks:
        label = f"not filled: {' or '.join(marks)}"
        axes.add_line(Line2D([], [], marker="o", mfc=PAPER, mec=INK, ls="none", label=label))


def _ideal(axes: Axes, timed: Sequence[Scaled], counts: Sequence[int]) -> None:
    first = [scaled for scaled in timed if scaled.point.devices == counts[0]]
    best = max(first, key=lambda scaled: scaled.point.images_per_s or 0)
    slope = best.point.per_device or 0.0
    label = f"ideal: {rate(slope)} a device"
    ideal = [slope * count for count in counts]
    axes.plot(counts, ideal, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label=label)


def _is_wide(counts: Sequence[int]) -> bool:
    return counts[-1] / counts[0] >= WIDE


def _device_axis(axes: Axes, counts: Sequence[int]) -> None:
    if _is_wide(counts):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xlabel("devices (= ranks)")


def _log_axis(axes: Axes, which: str, words: Callable[..., str]) -> None:
    low, high = axes.dataLim.intervalx if which == "x" else axes.dataLim.intervaly
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(words))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
