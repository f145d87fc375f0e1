"""The figures: throughput, efficiency, memory; one colour per strategy in all of them."""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from hpcgeo_analysis.findings import memory_sources
from hpcgeo_analysis.scaling import Comparison, Scaled, rank
from hpcgeo_analysis.words import counted, rate

INK, MUTED, GRID, PAPER = "#1b1f24", "#59636e", "#d5dae0", "#fefefe"

#: Colours that stay apart for colour-blind eyes (Okabe and Ito 2008; Tol 2021): light, dark page.
COLOURS = {
    "DDP": ("#0072b2", "#4b9fe0"),
    "NO_SHARD": ("#56b4e9", "#a5d8f7"),
    "SHARD_GRAD_OP": ("#009e73", "#2fc79a"),
    "FULL_SHARD": ("#d55e00", "#f5854a"),
    "HYBRID_SHARD": ("#cc79a7", "#e3a3c6"),
    "ZERO1": ("#e69f00", "#f0b93a"),
    "ZERO2": ("#7d7a1f", "#b9b548"),
    "ZERO3": ("#882255", "#c65b93"),
}
#: HYBRID_SHARD by group size 2, 4, 8, ...; a group of 1 has the strategy's own colour.
GROUPS = (
    ("#a2387c", "#d066a9"),
    ("#7b4fb5", "#ab8fe6"),
    ("#4f2350", "#f3d3ea"),
    ("#d58be0", "#bf6fcb"),
)
OTHERS = (("#44546a", "#9fb0c8"), ("#7a5c3e", "#c4a07a"), ("#5a5a5a", "#b4b4b4"))

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)))

SHADES = (1.0, 0.7, 0.48, 0.3, 0.15)

#: Numbers of devices from which axes become logarithmic: largest over smallest.
WIDE = 8

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "svg.fonttype": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Plot:
    """A figure, as a file and as text of a page."""

    name: str
    alt: str
    png: bytes
    svg: str


class Look:
    """Colour, marker, dash and shade of every line of a report; the same in all its figures."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        lines = {s.line: s.point for comparison in comparisons for s in comparison.scaled}
        order = sorted(lines, key=lambda line: rank(line, lines[line].strategy))
        foreign = list(
            dict.fromkeys(
                lines[line].strategy for line in order if lines[line].strategy not in COLOURS
            )
        )
        #: Colour on a light and on a dark page.
        self.pair: dict[str, tuple[str, str]] = {}
        self.marker: dict[str, str] = {}
        self.dash: dict[str, Any] = {}
        self.shade: dict[str, float] = {}
        used: dict[tuple[str, str], int] = {}
        for place, line in enumerate(order):
            pair = _pair(line, lines[line].strategy, foreign)
            again = used[pair] = used.get(pair, -1) + 1
            self.pair[line] = pair
            self.marker[line] = MARKERS[place % len(MARKERS)]
            self.dash[line] = DASHES[again % len(DASHES)]
            self.shade[line] = SHADES[again % len(SHADES)]


def _pair(line: str, strategy: str, foreign: Sequence[str]) -> tuple[str, str]:
    if strategy not in COLOURS:
        return OTHERS[foreign.index(strategy) % len(OTHERS)]
    group = rank(line, strategy)[2]
    if group < 2:
        return COLOURS[strategy]
    return GROUPS[(group.bit_length() - 2) % len(GROUPS)]


def throughput(comparison: Comparison, look: Look, name: str) -> Plot | None:
    """Return images per second against devices, with the ideal line where there are several."""
    timed = [scaled for scaled in comparison.scaled if scaled.point.images_per_s]
    if not timed:
        return None
    counts = sorted({scaled.point.devices for scaled in timed})

    def draw(axes: Axes) -> None:
        if len(counts) > 1:
            _ideal(axes, timed, counts)
            for line in comparison.lines:
                members = [s for s in comparison.lines[line] if s.point.images_per_s]
                _line(axes, look, line, members, _throughput_of)
            _device_axis(axes, counts)
            if _is_wide(counts):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter(FuncFormatter(_plain))
                axes.yaxis.set_minor_formatter(NullFormatter())
            else:
                axes.set_ylim(bottom=0)
                axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        else:
            _bars(axes, look, comparison, timed, "images_per_s", 1.0)
        axes.set_ylabel("throughput of all devices (images/s)")

    alt = f"Throughput in images per second against number of devices. {_summary(timed)}"
    return _render(f"throughput-{name}", "Throughput", comparison, timed, alt, draw)


def efficiency(comparison: Comparison, look: Look, name: str) -> Plot | None:
    """Return the efficiency of each line against its own smallest run."""
    known = [scaled for scaled in comparison.scaled if scaled.efficiency is not None]
    if not known:
        return None
    counts = sorted({scaled.point.devices for scaled in known})
    bases = {scaled.base.devices for scaled in known if scaled.base}

    def draw(axes: Axes) -> None:
        axes.axhline(1, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, label="ideal: 100 %")
        for line in comparison.lines:
            members = [s for s in comparison.lines[line] if s.efficiency is not None]
            if members and members[0].base:
                own = f" (base: {members[0].base.devices})" if len(bases) > 1 else ""
                _line(axes, look, line, members, _efficiency_of, own)
        _device_axis(axes, counts)
        top = max((scaled.high or scaled.efficiency or 0) for scaled in known)
        axes.set_ylim(0, max(1.1, 1.05 * top))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        base = f"{counted(min(bases), 'device')}" if len(bases) == 1 else "each line's smallest run"
        axes.set_ylabel(f"images/s per device, relative to {base}")

    ends = [line[-1] for line in comparison.lines.values() if line[-1].efficiency is not None]
    parts = [f"{s.line} {s.efficiency:.0%} on {s.point.devices}" for s in ends if s.efficiency]
    alt = f"Efficiency against number of devices, ideal is 100 %. {'; '.join(parts)}."
    return _render(
        f"efficiency-{name}",
        "Efficiency",
        comparison,
        known,
        alt,
        draw,
    )


def memory(comparison: Comparison, look: Look, name: str) -> list[Plot]:
    """Return peak memory by strategy, one figure for each kind of memory measured."""
    plots = []
    for source in memory_sources(comparison):
        known = [scaled for scaled in comparison.scaled if scaled.point.memory_source == source]

        def draw(axes: Axes, known: list[Scaled] = known, source: str = source) -> None:
            _bars(axes, look, comparison, known, "memory_bytes", 2.0**-30)
            axes.set_ylabel(f"peak {source} memory, worst rank (GiB)")

        parts = [
            f"{s.line} on {s.point.devices}: {(s.point.memory_bytes or 0) / 2**30:.3g} GiB"
            for s in known
        ]
        alt = f"Peak {source} memory of the worst rank by strategy. {'; '.join(parts)}."
        suffix = f"-{source}" if len(memory_sources(comparison)) > 1 else ""
        plot = _render(f"memory-{name}{suffix}", "Memory by strategy", comparison, known, alt, draw)
        plots.append(plot)
    return plots


def _plain(value: float, _: int | None = None) -> str:
    """Return a tick's label without an exponent."""
    return f"{value:,.0f}" if value >= 1 and value == round(value) else f"{value:g}"


def _throughput_of(scaled: Scaled) -> tuple[float, float | None, float | None]:
    assert scaled.point.images_per_s is not None
    return scaled.point.images_per_s, scaled.point.low, scaled.point.high


def _efficiency_of(scaled: Scaled) -> tuple[float, float | None, float | None]:
    assert scaled.efficiency is not None
    return scaled.efficiency, scaled.low, scaled.high


def _line(
    axes: Axes,
    look: Look,
    line: str,
    members: Sequence[Scaled],
    value_of: Callable[[Scaled], tuple[float, float | None, float | None]],
    suffix: str = "",
) -> None:
    if not members:
        return
    colour = look.pair[line][0]
    at = [scaled.point.devices for scaled in members]
    values = [value_of(scaled) for scaled in members]
    axes.plot(
        at,
        [value for value, _, _ in values],
        color=colour,
        linestyle=look.dash[line],
        linewidth=1.8,
        marker=look.marker[line],
        markersize=6.5,
        markeredgecolor=colour,
        label=line + suffix,
    )
    for place, (value, low, high), scaled in zip(at, values, members, strict=True):
        if low is not None and high is not None:
            below, above = max(value - low, 0), max(high - value, 0)
            axes.errorbar(place, value, [[below], [above]], color=colour, capsize=3, linewidth=1.1)
        if scaled.noisy:
            axes.plot(
                [place],
                [value],
                marker=look.marker[line],
                markersize=7.5,
                markerfacecolor=PAPER,
                markeredgecolor=colour,
                markeredgewidth=1.6,
                linestyle="none",
            )


def _ideal(axes: Axes, timed: Sequence[Scaled], counts: Sequence[int]) -> None:
    first = [scaled for scaled in timed if scaled.point.devices == counts[0]]
    best = max(first, key=lambda scaled: scaled.point.images_per_s or 0)
    slope = best.point.per_device
    assert slope is not None
    axes.plot(
        counts,
        [slope * count for count in counts],
        color=MUTED,
        linestyle=(0, (4, 3)),
        linewidth=1.2,
        label=f"ideal: {rate(slope)} images/s per device\n({best.line} on {counts[0]:,})",
    )


def _bars(
    axes: Axes,
    look: Look,
    comparison: Comparison,
    known: Sequence[Scaled],
    column: str,
    unit: float,
) -> None:
    counts = sorted({scaled.point.devices for scaled in known})
    lines = [line for line in comparison.lines if any(s.line == line for s in known)]
    named: set[str] = set()
    for place, count in enumerate(counts):
        here = {s.line: s for s in known if s.point.devices == count}
        present = [line for line in lines if line in here]
        width = min(0.84 / max(len(lines), 1), 0.22)
        for offset, line in enumerate(present):
            point = here[line].point
            value = getattr(point, column) * unit
            at = place + (offset - (len(present) - 1) / 2) * width
            label = "" if line in named else line
            axes.bar(at, value, width * 0.92, label=label, **_fill(look, line, point.noisy))
            named.add(line)
            if column == "images_per_s" and point.low and point.high:
                reach = [[max(value - point.low, 0)], [max(point.high - value, 0)]]
                axes.errorbar(at, value, reach, color=INK, capsize=3, linewidth=1)
    axes.grid(False, axis="x")
    axes.set_xticks(range(len(counts)), [f"{count:,}" for count in counts])
    axes.set_xlim(-0.6, len(counts) - 0.4)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xlabel("devices (= ranks)")


def _fill(look: Look, line: str, noisy: bool) -> dict[str, Any]:
    colour = look.pair[line][0]
    face = (PAPER, 1.0) if noisy else (colour, look.shade[line])
    return {"facecolor": face, "edgecolor": colour, "hatch": "////" if noisy else None}


def _is_wide(counts: Sequence[int]) -> bool:
    return counts[-1] / counts[0] >= WIDE


def _device_axis(axes: Axes, counts: Sequence[int]) -> None:
    if _is_wide(counts):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xlabel("devices (= ranks)")


def _summary(timed: Sequence[Scaled]) -> str:
    most = max(scaled.point.devices for scaled in timed)
    parts = [
        f"{s.line} {rate(s.point.images_per_s)}{', noisy' if s.noisy else ''}"
        for s in timed
        if s.point.devices == most
    ]
    return f"On {counted(most, 'device')}: {'; '.join(parts)}."


def _render(
    name: str,
    what: str,
    comparison: Comparison,
    shown: Sequence[Scaled],
    alt: str,
    draw: Callable[[Axes], None],
) -> Plot:
    context = comparison.context
    title = f"{what}: {comparison.title}"
    subtitle = f"{context['machine']}, {context['device']}, {context['dtype']}; "
    subtitle += f"{counted(sum(len(s.point.rows) for s in shown), 'record')}, {context['kind']}"

    def draw_all(axes: Axes) -> None:
        draw(axes)
        if any(scaled.noisy for scaled in shown):
            label = "not filled: noisy step time"
            axes.add_line(Line2D([], [], marker="o", mfc=PAPER, mec=INK, ls="none", label=label))

    return render(name, title, subtitle, alt, draw_all)


def render(name: str, title: str, subtitle: str, alt: str, draw: Callable[[Axes], None]) -> Plot:
    """Return a figure with one pair of axes, its legend at the right."""
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=(9.4, 4.8), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=9)
        wrapped = "\n".join(textwrap.wrap(title, 100))
        figure.suptitle(wrapped, x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes.set_title("\n".join(textwrap.wrap(subtitle, 90)), loc="left", fontsize=9, color=MUTED)
        figure.draw_without_rendering()  # lays out once for both files
        figure.set_layout_engine("none")
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=144)
        figure.savefig(svg, format="svg", transparent=True)
    return Plot(name, f"{title}. {alt}", png.getvalue(), svg.getvalue())
