"""How a figure looks: colours of lines and causes, size, title, legend; drawn once, as SVG."""

import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcgeo_analysis.comparisons import Comparison, rank

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
REST = ("#a9b1ba", "#6d7783")

#: Colours of causes, in the order of `OTHERS`' use: blue, orange, green, sky, pink, yellow.
CAUSES = tuple(
    COLOURS[name]
    for name in ("DDP", "FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD", "ZERO1")
)

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)))

#: Inches: width of a figure, height of its axes, margins, a line of text.
WIDTH, HEIGHT, RIGHT, FOOT, LINE = 5.3, 2.7, 0.15, 0.45, 0.17

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are text, also those with dollars
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
    """A figure: its name, what it shows in words, and its SVG."""

    name: str
    alt: str
    svg: str


class LineStyles:
    """Colour, marker and dash of every line of a report; the same in all its figures."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        lines = {s.line: s.point.first for comparison in comparisons for s in comparison.scaled}
        order = sorted(lines, key=lambda line: rank(line, lines[line].strategy))
        strategies = dict.fromkeys(lines[line].strategy for line in order)
        foreign = [strategy for strategy in strategies if strategy not in COLOURS]
        #: Colour on a light and on a dark page.
        self.pair: dict[str, tuple[str, str]] = {}
        self.marker: dict[str, str] = {}
        self.dash: dict[str, Any] = {}
        used: dict[tuple[str, str], int] = {}
        for place, line in enumerate(order):
            pair = _pair(line, lines[line].strategy, foreign)
            again = used[pair] = used.get(pair, -1) + 1
            self.pair[line] = pair
            self.marker[line] = MARKERS[place % len(MARKERS)]
            self.dash[line] = DASHES[again % len(DASHES)]

    @property
    def variables(self) -> dict[str, tuple[str, str]]:
        """Every colour of lines and causes as it is drawn, with both of its pages."""
        pairs = dict.fromkeys([*self.pair.values(), *CAUSES, REST, *OTHERS])
        return {pair[0]: pair for pair in pairs}


def _pair(line: str, strategy: str, foreign: Sequence[str]) -> tuple[str, str]:
    if strategy not in COLOURS:
        return OTHERS[foreign.index(strategy) % len(OTHERS)]
    group = rank(line, strategy)[2]
    if group < 2:
        return COLOURS[strategy]
    return GROUPS[(group.bit_length() - 2) % len(GROUPS)]


def render(
    name: str,
    title: str,
    subtitle: str,
    alt: str,
    plot: Callable[[Axes], list[Artist] | None],
    *,
    height: float = HEIGHT,
    left: float = 0.72,
) -> Plot:
    """Return a figure with one pair of axes, title above, below it what `plot` returns or labels.

    Every place is known beforehand in inches: a layout that measures text costs more than drawing.
    """
    titles = textwrap.wrap(title, 62)
    subtitles = textwrap.wrap(subtitle, 74)
    top = LINE * (len(titles) * 1.1 + len(subtitles)) + 0.16
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's font may have it
        figure = Figure(figsize=(WIDTH, 1))
        axes = figure.add_axes((0, 0, 1, 1))
        handles = plot(axes) or axes.get_legend_handles_labels()[0]
        labels = [str(handle.get_label()) for handle in handles]
        columns = 2 if all(len(label) < 34 for label in labels) else 1
        rows = -(-sum(1 + label.count("\n") for label in labels) // columns)
        foot = FOOT + LINE * rows + (0.1 if rows else 0)
        whole = height + top + foot
        figure.set_size_inches(WIDTH, whole)
        axes.set_position(
            (left / WIDTH, foot / whole, (WIDTH - left - RIGHT) / WIDTH, height / whole)
        )
        if labels:
            figure.legend(
                handles,
                labels,
                loc="lower left",
                bbox_to_anchor=(0.01, 0),
                ncols=columns,
                fontsize=8,
                labelspacing=0.25,
                columnspacing=1.2,
                handlelength=2.4,
            )
        first = 1 - 0.08 / whole
        figure.text(*(0.015, first, "\n".join(titles)), va="top", fontsize=9.5, fontweight="bold")
        below = first - LINE * 1.1 * len(titles) / whole
        figure.text(*(0.015, below, "\n".join(subtitles)), va="top", fontsize=8, color=MUTED)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return Plot(name, f"{title}. {alt}", svg.getvalue())
