"""Two axes, lines between marks, labels at the ends of lines: what figures of lines share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hpcgeo_analysis.styles import LineStyle
from hpcgeo_analysis.svg import Canvas, Ground, Scale, apart, box, element, mark, path, tip, width

#: Pixels: a panel, and the words of its ticks and labels, and of its title.
WIDTH, SMALL, TITLE = 360.0, 10.0, 12.5
#: Pixels between the labels of two lines, and the most that one takes.
STEP, LABEL = 12.5, 134.0


@dataclass(frozen=True)
class Place:
    """A value on a line; `tip` says it in words, a hollow mark that it is not like the others."""

    x: float
    y: float
    tip: str
    low: float | None = None
    high: float | None = None
    hollow: bool = False


@dataclass(frozen=True)
class DrawnLine:
    """The places of a line, its label and its look; a `baseline` is thin, dashed and has no marks.

    `owner` is the name by which a page hides it.
    """

    label: str
    owner: str
    look: LineStyle
    places: Sequence[Place]
    baseline: bool = False
    joined: bool = True


def headed(height: float, title: str, below: str = "") -> Canvas:
    """Return a panel with its title in bold and, muted, what is alike in it."""
    canvas = Canvas(WIDTH, height)
    canvas.text(0, 12, fitted(title, WIDTH, TITLE, bold=True), font=TITLE, bold=True)
    if below:
        canvas.text(0, 27, fitted(below, WIDTH), "muted", font=SMALL)
    return canvas


def horizontal(
    canvas: Canvas, y: Scale, x: Scale, ticks: Iterable[float], words: Callable[[float], str]
) -> None:
    """Draw the lines of a grid with their values to the left."""
    for value in ticks:
        at = y(value)
        canvas.add(path([(x.start, at), (x.end, at)], class_="grid"))
        canvas.text(x.start - 5, at + 3.5, words(value), "muted", "end", SMALL)


def below(
    canvas: Canvas, y: Scale, x: Scale, ticks: Sequence[float], words: Callable[[float], str]
) -> None:
    """Draw the axis below with its values; those without room are left out, the last never."""
    bottom = y.start
    canvas.add(path([(x.start, bottom), (x.end, bottom)], class_="axis"))
    taken: list[Ground] = []
    for value in [*ticks[-1:], *ticks[:-1]]:
        at = x(value)
        canvas.add(path([(at, bottom), (at, bottom + 4)], class_="axis"))
        ground = box(at, bottom + 15, words(value), "middle", SMALL)
        wide = Ground(ground.left - 4, ground.top, ground.right + 4, ground.bottom)
        if not any(wide.meets(other) for other in taken):
            taken.append(ground)
            canvas.text(at, bottom + 15, words(value), "muted", "middle", SMALL)


def named(canvas: Canvas, y: Scale, x: Scale, last: float, words: str, name: str) -> None:
    """Write what the axis below counts, to the right of its last value."""
    at = max(x(last) + width(words, SMALL) / 2, x.end) + 7
    canvas.text(at, y.start + 15, name, "muted", font=SMALL)


def draw(canvas: Canvas, x: Scale, y: Scale, curves: Sequence[DrawnLine]) -> None:
    """Draw lines with their marks and spreads, the baselines first, and label their ends."""
    ends = [y(curve.places[-1].y) for curve in curves]
    spots = apart(ends, STEP, min(y.end, y.start) + 2, max(y.start, y.end) - 2)
    order = sorted(range(len(curves)), key=lambda place: not curves[place].baseline)
    for place in order:
        curve = curves[place]
        with canvas.group(data_line=curve.owner):
            _line(canvas, x, y, curve)
            _label(canvas, x, y, curve, spots[place])


def _line(canvas: Canvas, x: Scale, y: Scale, curve: DrawnLine) -> None:
    colour = curve.look.css
    points = [(x(place.x), y(place.y)) for place in curve.places]
    if curve.joined and len(points) > 1:
        dash = f";stroke-dasharray:{curve.look.dash}" if curve.look.dash else ""
        css = "baseline" if curve.baseline else "line"
        canvas.add(path(points, class_=css, style=f"stroke:{colour}{dash}"))
    for place, (left, top) in zip(curve.places, points, strict=True):
        if place.low is not None and place.high is not None and place.low < place.high:
            ends = [(left, y(place.low)), (left, y(place.high))]
            canvas.add(path(ends, class_="leader", style=f"stroke:{colour};opacity:1"))
        if curve.baseline:
            invisible = {"r": 4, "fill": "transparent"}
            canvas.add(element("circle", tip(place.tip), cx=left, cy=top, **invisible))
            continue
        canvas.add(_mark(curve, place, left, top, tip(place.tip)))


def _mark(curve: DrawnLine, place: Place, x: float, y: float, body: str = "") -> str:
    css, what = ("hollow", "stroke") if place.hollow else ("", "fill")
    look = {"class_": css, "style": f"{what}:{curve.look.css}"}
    return mark(curve.look.mark, x, y, body, **look)


def _label(canvas: Canvas, x: Scale, y: Scale, curve: DrawnLine, at: float) -> None:
    last = curve.places[-1]
    start, end = x(last.x), x.end + 8
    leads = start < x.end - 1 or abs(at - y(last.y)) > 2
    if leads and curve.joined:
        bend = [(start + 5, y(last.y)), (max(start + 5, x.end + 1), y(last.y)), (end - 1, at)]
        canvas.add(path(bend, class_="leader", style=f"stroke:{curve.look.css}"))
    css = "muted" if curve.baseline else ""
    if not curve.baseline:
        canvas.add(_mark(curve, last, end + 4, at))
        end += 9
    canvas.text(end + 2, at + 3.5, fitted(curve.label, canvas.width - end - 2), css, font=SMALL)


def fitted(words: str, room: float, font: float = SMALL, bold: bool = False) -> str:
    """Return words, cut where they are wider than the room."""
    if width(words, font, bold) <= room:
        return words
    while words and width(words + "…", font, bold) > room:
        words = words[:-1]
    return words + "…"


def label_room(labels: Iterable[str]) -> float:
    """Return the pixels that labels at the ends of lines take, at most `LABEL`."""
    return min(LABEL, max((width(label, SMALL) for label in labels), default=0.0) + 21)
