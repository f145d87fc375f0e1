"""Hand-made SVG: scales, shapes, and a canvas that knows where its words stand."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import pairwise, product
from typing import Any, NamedTuple

#: Pixels of usual words, and of a line of them.
FONT, LINE = 11.0, 14.0

#: Widths in em of the widest of the usual fonts (DejaVu Sans), rounded up.
_EMS = {
    0.3: "'Iijl",
    0.35: " ,./:;\\|·",
    0.4: "()-[]ft",
    0.45: "!r²",
    0.5: '"*J`',
    0.55: "csz",
    0.6: "?L_kvxy†\u2013",
    0.7: "ABEKPSVXYZ",
    0.75: "CNRU",
    0.8: "&DGHOQ",
    0.85: "#+<=>^w~\u00d7\u2212≥≤",
    0.9: "M",
    1.0: "%Wm…→",
    1.05: "@",
}
_EM = {letter: em for em, letters in _EMS.items() for letter in letters}
#: Of any other letter, and how much wider bold ones are.
_REST, _BOLD = 0.65, 1.12


class Ground(NamedTuple):
    """A rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Ground") -> bool:
        """Whether two rectangles share ground."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def near(self, place: tuple[float, float], most: float) -> bool:
        """Whether a place is at most so many pixels away."""
        return math.dist(place, self.edge(place)) <= most

    def edge(self, place: tuple[float, float]) -> tuple[float, float]:
        """Return the point of the rectangle that is nearest to a place."""
        x, y = place
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


def width(words: str, font: float = FONT, bold: bool = False) -> float:
    """Return how many pixels words take at most."""
    return sum(_EM.get(letter, _REST) for letter in words) * font * (_BOLD if bold else 1)


def box(
    x: float, y: float, words: str, anchor: str = "start", font: float = FONT, bold: bool = False
) -> Ground:
    """Return the ground of words whose base line is at y; `anchor` is start, middle or end."""
    long = width(words, font, bold)
    left = x - {"start": 0, "middle": long / 2, "end": long}[anchor]
    return Ground(left, y - 0.8 * font, left + long, y + 0.25 * font)


@dataclass(frozen=True)
class Scale:
    """Values become pixels, linearly or, with a `base`, logarithmically."""

    low: float
    high: float
    start: float
    end: float
    base: int = 0

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.base:
            low, high, at = math.log(low), math.log(high), math.log(value)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Return round values within the scale: at most about so many."""
        if self.base:
            return _powers(self.low, self.high, most)
        step = _round_step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= least * (1 - 1e-9))


def _powers(low: float, high: float, most: int) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in exponents for digit in digits]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def number(value: float) -> str:
    """Return a coordinate with a tenth of a pixel.

    >>> number(12.0), number(3.14159), number(-0.04)
    ('12', '3.1', '0')
    """
    return f"{round(value, 1) + 0:g}" if abs(value) < 1e5 else f"{value:.0f}"


def element(name: str, body: str = "", **attributes: Any) -> str:
    """Return an element; `_` in the name of an attribute is `-`, a trailing one falls, None and
    empty values are left out.

    Args:
        name: of the element.
        body: its content as markup.
        attributes: text is escaped, floats are coordinates.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return f"<{name}{said}>{body}</{name}>" if body else f"<{name}{said}/>"


def _value(value: object) -> str:
    return number(value) if isinstance(value, float) else escape(str(value))


def tip(words: str) -> str:
    """Return what is shown where a pointer rests, as the content of an element."""
    return element("title", escape(words))


def path(points: Iterable[tuple[float, float]], **attributes: Any) -> str:
    """Return a line through points."""
    d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return element("path", d=d, **attributes)


#: Marks of lines around (0, 0): the same ground, so that none looks more important.
MARKS = {
    "circle": "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z",
    "square": "M-3 -3h6v6h-6z",
    "up": "M0 -4l3.9 6.8h-7.8z",
    "down": "M0 4l3.9 -6.8h-7.8z",
    "diamond": "M0 -4.3l4.3 4.3l-4.3 4.3l-4.3 -4.3z",
    "cross": "M-3.8 -1.4h2.4v-2.4h2.8v2.4h2.4v2.8h-2.4v2.4h-2.8v-2.4h-2.4z",
    "pentagon": "M0 -4l3.9 2.8l-1.5 4.6h-4.8l-1.5 -4.6z",
    "left": "M-4 0l6.8 -3.9v7.8z",
    "right": "M4 0l-6.8 -3.9v7.8z",
}


def mark(name: str, x: float, y: float, body: str = "", **attributes: Any) -> str:
    """Return a mark of `MARKS` at a place."""
    place = f"translate({number(x)} {number(y)})"
    return element("path", body, d=MARKS[name], transform=place, **attributes)


class Canvas:
    """A drawing of fixed size in pixels, scaled by the page; it keeps the ground of its words."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.boxes: list[Ground] = []
        self._parts: list[str] = []

    def add(self, *parts: str) -> None:
        """Draw elements over what is there."""
        self._parts += parts

    def text(
        self,
        x: float,
        y: float,
        words: str,
        css: str = "",
        anchor: str = "start",
        font: float = FONT,
        bold: bool = False,
        **attributes: Any,
    ) -> Ground:
        """Write words at a base line and return their ground."""
        ground = box(x, y, words, anchor, font, bold)
        self.boxes.append(ground)
        css = " ".join(filter(None, [css, "bold" if bold else ""]))
        shown: dict[str, Any] = {"x": float(x), "y": float(y), "class_": css, **attributes}
        shown["text_anchor"] = anchor if anchor != "start" else None
        shown["style"] = f"font-size:{font:g}px" if font != FONT else None
        self.add(element("text", escape(words), **shown))
        return ground

    def free(self, ground: Ground) -> bool:
        """Whether no words stand there, and it lies inside of the drawing."""
        inside = ground.left >= 0 and ground.top >= 0
        inside = inside and ground.right <= self.width and ground.bottom <= self.height
        return inside and not any(ground.meets(other) for other in self.boxes)

    @contextmanager
    def group(self, alone: bool = False, **attributes: Any) -> Iterator[None]:
        """Put what is drawn within into a group.

        Args:
            alone: it is never seen with what follows, so its words keep no ground.
            attributes: of the group.
        """
        outer, self._parts = self._parts, []
        kept = list(self.boxes)
        yield
        outer.append(element("g", "".join(self._parts), **attributes))
        self._parts = outer
        if alone:
            self.boxes = kept

    def svg(self, label: str, **attributes: Any) -> str:
        """Return the drawing; `label` says in words what it shows."""
        view = f"0 0 {number(self.width)} {number(self.height)}"
        fixed: dict[str, Any] = {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": view,
            "class_": "figure",
        }
        fixed |= {"role": "img", "aria_label": label}
        return element("svg", "\n".join(self._parts), **fixed, **attributes)


def nearest(
    canvas: Canvas,
    words: str,
    around: tuple[float, float],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
    font: float = FONT,
    bold: bool = False,
    reach: int = 60,
) -> tuple[float, float] | None:
    """Return the base line of centred words near a place, where they meet no others.

    Args:
        canvas: the drawing, whose words are kept clear of.
        words: to be placed.
        around: the place.
        lines: that words should not cross, if that can be helped.
        font: of the words.
        bold: whether they are.
        reach: how far away they may stand, in pixels.

    Returns:
        None where there is no room.
    """
    best: tuple[float, tuple[float, float]] | None = None
    segments = [pair for line in lines for pair in pairwise(line)]
    for far, x_off, y_off in _around(reach):
        if best is not None and far >= best[0]:
            break
        x, y = around[0] + x_off, around[1] + 0.3 * font + y_off
        ground = box(x, y, words, "middle", font, bold)
        wide = Ground(ground.left - 2, ground.top, ground.right + 2, ground.bottom)
        if not canvas.free(wide):
            continue
        crossed = sum(_crosses(ground, *segment) for segment in segments)
        cost = far + 14 * crossed
        if best is None or cost < best[0]:
            best = cost, (x, y)
    return best[1] if best else None


@cache
def _around(reach: int) -> list[tuple[float, int, int]]:
    """Return offsets with their distances, the nearest first; above and below count more."""
    steps = range(-reach, reach + 1, 4)
    return sorted((math.hypot(x, 1.3 * y), x, y) for x, y in product(steps, steps))


def _crosses(ground: Ground, start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Whether a segment runs through a rectangle, by cutting it at the four sides."""
    first, last = 0.0, 1.0
    for at, to, low, high in (
        (start[0], end[0], ground.left, ground.right),
        (start[1], end[1], ground.top, ground.bottom),
    ):
        if at == to:
            if not low <= at <= high:
                return False
            continue
        near, far = sorted(((low - at) / (to - at), (high - at) / (to - at)))
        first, last = max(first, near), min(last, far)
    return first <= last


def apart(wanted: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Return places at least a step apart, each as near to its wanted one as that allows.

    Neighbours that are too near are pooled and spread around their mean, which is least squares.

    >>> apart([10, 11, 50], 10, 0, 60)
    [5.5, 15.5, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    pools: list[tuple[float, int]] = []  # sum of wanted starts, how many
    for number_of, place in enumerate(order):
        pools.append((wanted[place] - number_of * step, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            (total, count), (more, others) = pools[-2:]
            pools[-2:] = [(total + more, count + others)]
    starts = [total / count for total, count in pools for _ in range(count)]
    top = high - (len(wanted) - 1) * step
    found = [0.0] * len(wanted)
    for number_of, (place, start) in enumerate(zip(order, starts, strict=True)):
        found[place] = max(low, min(start, top)) + number_of * step
    return found
