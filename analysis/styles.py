"""How lines, causes and words look in every figure: one hue a family, one mark a strategy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpcgeo_analysis.svg import mark

#: Of each strategy: the letter of the winner map, its mark, colour on a light and on a dark page; a
#: hue is a family: copies blue, shards orange, groups green, DeepSpeed violet; red is for loss.
_ROWS = {
    "DDP": ("D", "circle", "#1257a8", "#7db8ff"),
    "NO_SHARD": ("N", "square", "#4a90d9", "#3f8ae0"),
    "SHARD_GRAD_OP": ("G", "up", "#b07a00", "#ffcf70"),
    "FULL_SHARD": ("F", "diamond", "#d4600a", "#f08c3c"),
    "ZERO0": ("Z0", "circle", "#b48ae0", "#7a50b5"),
    "ZERO1": ("Z1", "left", "#9a66cf", "#9468cc"),
    "ZERO2": ("Z2", "right", "#7a45b8", "#b58bea"),
    "ZERO3": ("Z3", "cross", "#54258e", "#d3b8fb"),
    "ZERO3_HPZ": ("P", "pentagon", "#3a1266", "#ece0ff"),
}
#: Strategies of groups that share the ramp: letter and mark.
_GROUPED = {"HYBRID_SHARD": ("H", "down"), "HYBRID_SHARD_ZERO2": ("HG", "pentagon")}
#: Groups by their size 1 or 2, 4, 8, 16, and above: the larger the stronger.
_RAMP = (
    ("#45b896", "#23876a"),
    ("#1f9471", "#3fb48f"),
    ("#0d6b4f", "#74dab9"),
    ("#06432f", "#b4f3de"),
    ("#021f15", "#e8fff8"),
)
_OTHER = ("#6b7280", "#9aa5b4")
#: Dashes of the second, third, ... line of one strategy in a panel.
_DASHES = ("", "7 3", "2.5 2.5", "8 2.5 2 2.5")

#: Parts of a step or of memory, which are no lines: light and dark.
_PARTS = {
    "compute": ("#8fb4d9", "#4d7fae"),
    "exchange": ("#d9534f", "#e8706b"),
    "copies": ("#e0b23f", "#c79a2c"),
    "data": ("#7a9e3f", "#9cc05c"),
    "idle": ("#c9cfd6", "#49525d"),
    "parameters": ("#3f78b5", "#5a96d6"),
    "frozen": ("#8a6fb0", "#a98fd0"),
    "gradients": ("#86b6e3", "#2f5f93"),
    "optimizer": ("#4e9d84", "#4aa98d"),
    "gathered": ("#d98b45", "#d98b45"),
    "activations": ("#e6c35c", "#bd9b3a"),
    "other": ("#b6bdc6", "#6d7783"),
    "unused": ("#e3e7ec", "#333c46"),
}


@dataclass(frozen=True)
class LineStyle:
    """How a line looks: the name of its colour's variable, its mark, letter and dash."""

    colour: str
    mark: str
    letter: str
    dash: str = ""

    @property
    def css(self) -> str:
        """The colour as a value of CSS."""
        return f"var(--{self.colour})"


def style(line: str, again: int = 0) -> LineStyle:
    """Return how a line looks.

    Args:
        line: its name, which begins with the layout, e.g. ``HYBRID_SHARD(8)``.
        again: how many lines of the same layout stand beside it already.
    """
    dash = _DASHES[again % len(_DASHES)]
    found = re.match(r"(\w+)(?:\((\d+)\))?", line)
    name, group = (found[1], int(found[2] or 0)) if found else (line, 0)
    size = f"{group or ''}"
    if name in _GROUPED:
        letter, mark_of = _GROUPED[name]
        return LineStyle(f"hybrid-{_step(group)}", mark_of, letter + size, dash)
    if name in _ROWS:
        letter, mark_of, *_ = _ROWS[name]
        return LineStyle(name.lower().replace("_", "-"), mark_of, letter + size, dash)
    return LineStyle("other-line", "circle", name[:1].upper() or "?", dash)


def _step(group: int) -> int:
    return min(max(group.bit_length() - 2, 0), len(_RAMP) - 1)


def key(line: str, again: int = 0) -> str:
    """Return the mark of a line as a drawing of 12 x 12 pixels, for a legend or a table."""
    look = style(line, again)
    drawn = mark(look.mark, 6, 6, style=f"fill:{look.css}")
    return f'<svg class="key" viewBox="0 0 12 12" aria-hidden="true">{drawn}</svg>'


def _colours() -> Mapping[str, tuple[str, str]]:
    lines = {name.lower().replace("_", "-"): row[2:4] for name, row in _ROWS.items()}
    ramp = {f"hybrid-{place}": pair for place, pair in enumerate(_RAMP)}
    parts = {f"part-{name}": pair for name, pair in _PARTS.items()}
    return {**lines, **ramp, "other-line": _OTHER, **parts, **_PAGE}


#: Colours of the page that figures use.
_PAGE = {
    "paper": ("#ffffff", "#171c22"),
    "ink": ("#1b1f24", "#e8ecf1"),
    "muted": ("#59636e", "#a0abb8"),
    "grid": ("#dfe3e8", "#2f3842"),
    "warn": ("#9a5200", "#ffc46b"),
    "loss": ("#c8102e", "#ff6b7a"),
}

_RULES = """
svg.figure { display: block; width: 100%; height: auto; overflow: visible; }
svg.figure text { fill: var(--ink); font: 11px system-ui, -apple-system, "Segoe UI",
  "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums; }
svg.figure .muted { fill: var(--muted); }
svg.figure .bold { font-weight: 600; }
svg.figure .loss { fill: var(--loss); font-weight: 600; paint-order: stroke; stroke: var(--paper);
  stroke-width: 3px; stroke-linejoin: round; }
svg.figure .grid { stroke: var(--grid); stroke-width: 1; fill: none; }
svg.figure .axis { stroke: var(--muted); stroke-width: 1; fill: none; }
svg.figure .ideal { stroke: var(--muted); stroke-width: 1.2; stroke-dasharray: 4 3; fill: none; }
svg.figure .line { fill: none; stroke-width: 1.9; stroke-linejoin: round; }
svg.figure .baseline { fill: none; stroke-width: 1; stroke-dasharray: 3 3; opacity: .8; }
svg.figure .leader { fill: none; stroke-width: .8; opacity: .7; }
svg.figure .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg.figure .points { fill: none; stroke: var(--loss); stroke-width: .7; }
svg.figure .hollow { fill: var(--paper); stroke-width: 1.6; }
svg.figure .limit { stroke: var(--ink); stroke-width: 1.4; fill: none; }
svg.figure .range { stroke: var(--ink); stroke-width: 1.2; fill: none; }
svg.figure text.badge { fill: var(--warn); }
svg.figure rect.badge { fill: none; stroke: var(--warn); stroke-width: 1; }
.off { display: none; }
svg.key { width: .75em; height: .75em; vertical-align: -.04em; margin-right: .4em; }
.panels { display: grid; gap: 1rem 1.6rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
"""


def css() -> str:
    """Return the style sheet of figures: colours of both pages as variables, and the classes."""
    found = _colours()
    light = "".join(f"--{name}:{pair[0]};" for name, pair in found.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in found.items())
    return (
        f":root{{{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{_RULES}"
    )
