"""Drawings of scores: each with its interval by encoder, and against size and cost."""

from collections.abc import Callable, Iterator, Sequence

from hpcgeo.scores import Score
from hpcgeo_analysis.figures import axes
from hpcgeo_analysis.figures.axes import SMALL, WIDTH, DrawnLine, Place, fitted, headed
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.formatting import counted
from hpcgeo_analysis.scores.answers import lead
from hpcgeo_analysis.scores.board import ScoreBoard, ScoreColumn, amount, apart, shown, span
from hpcgeo_analysis.scores.laws import ScalingLaw, laws
from hpcgeo_analysis.styles import LineStyle
from hpcgeo_analysis.svg import MARKS, Canvas, Scale, element, mark, path, tip, width

#: Pixels of a row, from the top to the first, and of the plot of a panel with two axes.
ROW, TOP, HEIGHT = 31.0, 32.0, 184.0

#: Encoders and sentences that are shown, the best; the table has all.
MOST, SENTENCES = 16, 6
#: Encoders that have colour and name where all are drawn, the best.
LABELLED = 10

#: Colours of encoders, those of lines elsewhere: with as many marks none looks like another.
_COLOURS = ("ddp", "full-shard", "hybrid-1", "zero2", "shard-grad-op", "no-shard", "hybrid-3")
_BESIDE = {"random": "random weights", "samples": "samples"}


def looks(board: ScoreBoard) -> dict[str, LineStyle]:
    """Return how encoders look, the same in every figure."""
    names = [row.name for row in board.rows if row.first.whose == "encoder"]
    marks = [*MARKS]
    return {
        name: LineStyle(_COLOURS[n % len(_COLOURS)], marks[n % len(marks)], "")
        for n, name in enumerate(names)
    }


# Intervals -------------------------------------------------------------------------------------


def by_encoder(board: ScoreBoard) -> Figure | None:
    """Return every score with its interval, a panel for each column."""
    columns = [column for column in board.columns if column.encoders]
    if not columns:
        return None
    held = [
        (name, score, column)
        for column in columns
        for name, score in column.encoders
        if lead(score, "random")
    ]
    ahead = [one for one in held if (one[1].leads["random"][1] or 0) > 0]
    title = "Scores by encoder, with intervals of 95 %"
    if held:
        title = f"{len(ahead)} of {len(held)} scores are significantly ahead of random weights"
    behind = [
        f"{name} on {column.title}: {lead(score, over)}."
        for over in _BESIDE
        for column in columns
        for name, score in column.encoders
        if lead(score, over) and (score.leads[over][1] or 0) <= 0
    ]
    more = len(behind) - SENTENCES
    return Figure(
        "scores",
        title,
        tuple(_intervals(column, looks(board)) for column in columns),
        caption="Bars: 95 % intervals over resamples of the scored split. Dashed: random weights "
        "of the same architecture. Dotted: the samples themselves. Axes do not begin at zero.",
        sentences=(
            *behind[:SENTENCES],
            *([f"{more} more in the rows of the table."] if more > 0 else []),
        ),
    )


def _intervals(column: ScoreColumn, look: dict[str, LineStyle]) -> str:
    some = column.encoders[:MOST]
    canvas = headed(TOP + ROW * len(some) + 24, column.title, _below(column, len(some)))
    x = _scale([score for _, score in some], column, 6, WIDTH - 6)
    bottom = TOP + ROW * len(some)
    for value in x.ticks(5):
        canvas.add(path([(x(value), TOP + 6), (x(value), bottom)], class_="grid"))
        canvas.text(x(value), bottom + 14, f"{value:g}", "muted", "middle", SMALL)
    for number, (name, score) in enumerate(some):
        _row(canvas, x, TOP + ROW * number, column, name, score, look[name])
    said = ", ".join(f"{name} {shown(s.value)} ({span(s)})" for name, s in some)
    return canvas.svg(f"{column.title}, {column.first.metric} by encoder, best first: {said}")


def _row(
    canvas: Canvas,
    x: Scale,
    top: float,
    column: ScoreColumn,
    name: str,
    score: Score,
    look: LineStyle,
) -> None:
    value, middle = score.value or 0.0, top + 23
    right = canvas.text(WIDTH, top + 12, shown(value), anchor="end", font=10.5, bold=True).left
    canvas.text(0, top + 12, fitted(name, right - 6, 10.5), font=10.5)
    for whose, dash in (("random", "4 2"), ("samples", "1.5 2")):
        beside = column.beside(score, whose)
        if beside is not None:
            line = {"class_": "limit", "style": f"stroke:var(--muted);stroke-dasharray:{dash}"}
            ends = [(x(beside), middle - 5), (x(beside), middle + 6)]
            words = tip(f"{_BESIDE[whose]}: {shown(beside)}")
            canvas.add(element("g", path(ends, **line) + words))
    if score.low is not None and score.high is not None:
        ends = [(x(score.low), middle), (x(score.high), middle)]
        style = f"stroke:{look.css};stroke-width:3;opacity:.55"
        canvas.add(path(ends, class_="range", style=style))
    words = f"{name}: {shown(value)}, {span(score)}"
    canvas.add(mark(look.mark, x(value), middle, tip(words), style=f"fill:{look.css}"))


def _below(column: ScoreColumn, count: int) -> str:
    better = "" if column.sign > 0 else ", lower is better"
    more = len(column.encoders) - count
    return f"{column.first.metric}{better}{f'; {more} more in the table' if more else ''}"


def _scale(scores: Sequence[Score], column: ScoreColumn, start: float, end: float) -> Scale:
    """Return a scale that holds scores, their intervals, and what stands beside them."""
    ends = [e for s in scores for e in (s.value, s.low, s.high) if e is not None]
    ends += [b for s in scores for w in _BESIDE if (b := column.beside(s, w)) is not None]
    room = 0.04 * (max(ends) - min(ends)) or 0.05
    return Scale(min(ends) - room, max(ends) + room, start, end)


# Size and cost ---------------------------------------------------------------------------------

Size = Callable[[Score], float | None]
#: Figures of what a model costs, not its pretraining.
OF_SIZE = ("size", "compute")


def by_size(board: ScoreBoard) -> Figure | None:
    """Return scores against parameters, where encoders of a column differ in them."""
    return _against(
        board, "size", lambda score: score.parameters, "Fewest parameters", " parameters"
    )


def by_cost(board: ScoreBoard) -> Figure | None:
    """Return scores against the FLOPs of a forward of an image."""
    return _against(board, "compute", lambda score: score.flops, "Least compute", "FLOPs an image")


def by_flops(board: ScoreBoard) -> Figure | None:
    """Return scores against the FLOPs of the pretraining."""
    return _against(
        board, "pretraining-flops", _of_pretraining("flops"), "Least pretraining", "FLOPs"
    )


def by_node_hours(board: ScoreBoard) -> Figure | None:
    """Return scores against the node-hours of the pretraining."""
    hours = _of_pretraining("node_hours")
    return _against(board, "pretraining-hours", hours, "Fewest node-hours", " node-hours")


def by_energy(board: ScoreBoard) -> Figure | None:
    """Return scores against the energy of the pretraining."""
    return _against(board, "pretraining-energy", _of_pretraining("kwh"), "Least energy", " kWh")


def _of_pretraining(name: str) -> Size:
    return lambda score: getattr(score.pretraining, name, None)


def _against(board: ScoreBoard, anchor: str, size: Size, least: str, unit: str) -> Figure | None:
    columns = [c for c in board.columns if len({size(s) for _, s in c.encoders} - {None}) > 1]
    if not columns:
        return None
    claims = [_least(column, size, unit) for column in columns]
    found = [
        [*laws([score for _, score in column.encoders], size, of_size=anchor in OF_SIZE)]
        for column in columns
    ]
    fits = [
        f"{column.title}, {objective}: {law.words(unit.strip())}"
        for column, own in zip(columns, found, strict=True)
        for objective, law in own
    ]
    title = f"{least} level with the best: {claims[0]}"
    return Figure(
        anchor,
        title,
        tuple(
            _sized(column, size, unit.strip(), looks(board), [law for _, law in own])
            for column, own in zip(columns, found, strict=True)
        ),
        caption="Bars: 95 % intervals. Dashed: random weights of each size, and the samples."
        + " Grey: further encoders." * any(len(c.encoders) > LABELLED for c in columns)
        + " Power law: of the error, fitted, where it is shown." * bool(fits),
        sentences=(
            *(f"And {claim}." for claim in claims[1 : 1 + SENTENCES]),
            *(f"{fit}." for fit in fits),
        ),
    )


def _least(column: ScoreColumn, size: Size, unit: str) -> str:
    """Return the smallest encoder that is the best of those whose size is known, or whose interval
    overlaps its."""
    known = [(v, n, s) for n, s in column.encoders if (v := size(s)) is not None]
    best = known[0][2]
    value, name, _ = min(
        (one for one in known if one[2] is best or apart(best, one[2]) is False),
        key=lambda one: one[0],
    )
    others = len(column.encoders) - len(known)
    beside = f"; not known of {counted(others, 'encoder')}" if others else ""
    return f"{name} on {column.title}, {amount(value)}{unit}{beside}"


def _sized(
    column: ScoreColumn,
    size: Size,
    axis: str,
    look: dict[str, LineStyle],
    found: Sequence[ScalingLaw],
) -> str:
    some = [(n, s, v) for n, s in column.encoders if (v := size(s)) is not None]
    lines = [
        DrawnLine(_cut(name), "", look[name], [_place(name, score, value)], joined=False)
        for name, score, value in some[:LABELLED]
    ]
    fits = [
        DrawnLine(
            "power law", "", LineStyle("muted", "circle", ""), _along(law, axis), baseline=True
        )
        for law in found
        if law.low > 0
    ]
    lines = [*_beside(column, some), *fits, *lines]
    values = [value for _, _, value in some]
    canvas = headed(TOP + HEIGHT + 36, column.title, _below(column, len(column.encoders)))
    left, right = 38.0, WIDTH - axes.label_room(line.label for line in lines) - 10
    x = Scale(min(values) / 1.25, max(values) * 1.25, left, right, 10)
    y = _scale([score for _, score, _ in some], column, TOP + HEIGHT, TOP + 8)
    axes.horizontal(canvas, y, x, y.ticks(5), lambda value: f"{value:g}")
    axes.below(canvas, y, x, x.ticks(4), _round)
    canvas.text(left, y.start + 30, axis, "muted", font=SMALL)
    for name, score, value in some[LABELLED:]:
        place = _place(name, score, value)
        words, style = tip(place.tip), "stroke:var(--muted)"
        canvas.add(mark("circle", x(place.x), y(place.y), words, class_="hollow", style=style))
    axes.draw(canvas, x, y, lines)
    said = ", ".join(f"{name} {shown(s.value)} at {amount(v)}" for name, s, v in some)
    return canvas.svg(f"{column.title}, {column.first.metric} against {axis}: {said}")


def _cut(name: str) -> str:
    """Return a name cut in its middle where it is long: runs often differ in their ends."""
    room = axes.LABEL - 21
    if width(name, SMALL) <= room:
        return name
    half = len(name) // 2
    while width(f"{name[:half]}…{name[-half:]}", SMALL) > room:
        half -= 1
    return f"{name[:half]}…{name[-half:]}"


def _round(value: float) -> str:
    """Return a round value of an axis.

    >>> _round(10e6), _round(2.5e9)
    ('10 M', '2.5 G')
    """
    number, *unit = amount(value).split()
    return " ".join([f"{float(number):g}", *unit])


def _along(law: ScalingLaw, axis: str) -> list[Place]:
    return [Place(cost, score, law.words(axis)) for cost, score in law.places()]


def _place(name: str, score: Score, value: float) -> Place:
    words = f"{name}: {shown(score.value)}, {span(score)}, {amount(value)}"
    return Place(float(value), score.value or 0.0, words, score.low, score.high)


def _beside(column: ScoreColumn, some: Sequence[tuple[str, Score, float]]) -> Iterator[DrawnLine]:
    """Yield what stands beside encoders, a place for each size."""
    for whose, label in _BESIDE.items():
        found = {v: b for _, s, v in some if (b := column.beside(s, whose)) is not None}
        places = [Place(float(v), b, f"{label}: {shown(b)}") for v, b in sorted(found.items())]
        if places:
            yield DrawnLine(label, "", LineStyle("muted", "circle", ""), places, baseline=True)
