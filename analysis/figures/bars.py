"""Rows of bars: words above each bar, its parts stacked, one axis below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hpcgeo_analysis.figures.axes import SMALL, WIDTH, fitted, headed
from hpcgeo_analysis.styles import LineStyle
from hpcgeo_analysis.svg import Canvas, Scale, element, mark, path, tip, width

#: Pixels of a bar, and of a row with its words.
BAR, ROW = 10.0, 31.0

#: Bars of a panel.
MOST = 16

Item = TypeVar("Item")


@dataclass(frozen=True)
class BarPart:
    """A part of a bar: its length, the CSS value of its colour, its name and value in words."""

    length: float
    colour: str
    tip: str


@dataclass(frozen=True)
class BarRow:
    """A bar: whose it is, in words to the left and to the right, and its parts.

    Attributes:
        owner: the line by whose name a page hides it; `model` the model, where a panel has several.
        look: of the line.
        badge: a warning beside the value.
        range: a thin line from a value to another: what is known of the spread.
    """

    owner: str
    look: LineStyle
    label: str
    value: str
    parts: Sequence[BarPart]
    badge: str = ""
    range: tuple[float, float] | None = None
    model: str = ""


def some(
    known: Sequence[Item], size: Callable[[Item], int], order: Callable[[Item], float]
) -> list[Item]:
    """Return what bars are drawn of, the largest size first: all, or the ends of the sizes.

    Args:
        known: in any order.
        size: by which they are grouped, as devices.
        order: within a size, ascending.
    """
    sizes = sorted({size(one) for one in known})
    if len(known) > MOST:
        sizes = [sizes[0], sizes[-1]] if len(sizes) > 1 else sizes
    chosen = [one for one in known if size(one) in sizes]
    return sorted(chosen, key=lambda one: (-size(one), order(one)))[:MOST]


def rivals(
    known: Sequence[Item], size: Callable[[Item], int], order: Callable[[Item], float]
) -> list[Item]:
    """Return those of the largest size that several have; of the largest, if none has.

    Args:
        known: in any order.
        size: as devices.
        order: of what is returned, ascending.
    """
    sizes = [size(one) for one in known]
    shared = [count for count in sizes if sizes.count(count) > 1]
    return sorted((one for one in known if size(one) == max(shared or sizes)), key=order)[:MOST]


def left_out(count: int) -> str:
    """Return how many points have no bar, as the end of a line."""
    return f"; {count:,} more in the table" if count else ""


def rows(
    title: str,
    below: str,
    bars: Sequence[BarRow],
    ticks: Callable[[float], str],
    *,
    axis: str,
    most: float | None = None,
    limit: float | None = None,
    alt: str,
    model: str = "",
) -> str:
    """Return a panel of bars.

    Args:
        title: in bold.
        below: what is alike in all bars, muted.
        bars: from top to bottom.
        ticks: how a value of the axis is said.
        axis: what the axis counts.
        most: the end of the axis; by default that of the data.
        limit: a line that bars should not reach.
        alt: what the panel shows, in words.
        model: by whose name a page hides the panel.
    """
    top = 36.0 if below else 20.0
    canvas = headed(top + ROW * len(bars) + 22, title, below)
    ends = [sum(part.length for part in bar.parts) for bar in bars]
    ends += [bar.range[1] for bar in bars if bar.range]
    x = Scale(0, most or max(ends) or 1.0, 1, WIDTH - 1)
    bottom = top + ROW * len(bars)
    _axis(canvas, x, top, bottom, ticks, axis)
    for number, bar in enumerate(bars):
        with canvas.group(data_line=bar.owner, data_model=bar.model):
            _row(canvas, x, top + ROW * number, bar)
            if limit is not None:
                at = top + ROW * number + 13
                canvas.add(path([(x(limit), at), (x(limit), at + BAR + 4)], class_="limit"))
    return canvas.svg(alt, data_model=model)


def _axis(
    canvas: Canvas,
    x: Scale,
    top: float,
    bottom: float,
    words: Callable[[float], str],
    axis: str,
) -> None:
    y = bottom + 13
    right = WIDTH - width(axis, SMALL) - 6
    for value in x.ticks(5):
        canvas.add(path([(x(value), top + 14), (x(value), bottom)], class_="grid"))
        label, at = words(value), x(value)
        half = width(label, SMALL) / 2
        anchor = "start" if at < half else "middle"
        if at + (half if anchor == "middle" else 2 * half) <= right:
            canvas.text(at, y, label, "muted", anchor, SMALL)
    canvas.text(WIDTH, y, axis, "muted", "end", SMALL)


def _row(canvas: Canvas, x: Scale, top: float, bar: BarRow) -> None:
    words = top + 11
    right = canvas.text(WIDTH, words, bar.value, anchor="end", font=10.5, bold=True).left
    if bar.badge:
        ground = canvas.text(right - 9, words, bar.badge, "badge", "end", SMALL)
        place = {"x": ground.left - 4, "width": ground.right - ground.left + 8, "y": top + 1.5}
        canvas.add(element("rect", height=12.5, rx=3, class_="badge", **place))
        right = ground.left - 4
    canvas.add(mark(bar.look.mark, 5, words - 3.5, style=f"fill:{bar.look.css}"))
    canvas.text(13, words, fitted(bar.label, right - 19, 10.5), font=10.5)
    at = 0.0
    for part in bar.parts:
        start, end = x(at), x(at + part.length)
        at += part.length
        if end - start < 0.05:
            continue
        place = {"x": start, "y": top + 15.0, "width": end - start, "height": BAR}
        canvas.add(element("rect", tip(part.tip), **place, style=f"fill:{part.colour}"))
    if bar.range:
        middle = top + 15 + BAR / 2
        canvas.add(path([(x(bar.range[0]), middle), (x(bar.range[1]), middle)], class_="range"))
