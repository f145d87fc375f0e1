"""How classes do: the confusion of the best encoder of each column, and a table of recalls."""

from hpcgeo.scores import Score
from hpcgeo_analysis.figures.axes import SMALL, WIDTH, fitted, headed
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.formatting import percent
from hpcgeo_analysis.scores.board import ScoreBoard, ScoreColumn
from hpcgeo_analysis.scores.figures import SENTENCES
from hpcgeo_analysis.svg import Canvas, element, tip, width
from hpcgeo_analysis.tables import Table, TableCell, text

#: Classes whose names are written; of more, where a pointer rests.
NAMED = 24
#: Pixels from the top to the first row, and the most that names of rows take.
TOP, NAMES = 34.0, 110.0


def confusions(board: ScoreBoard) -> Figure | None:
    """Return how often the best encoder of each column took each class for each."""
    best = [(c, *c.encoders[0]) for c in board.columns if c.encoders]
    drawn = [one for one in best if one[2].confusion and any(map(any, one[2].confusion))]
    if not drawn:
        return None
    said = [_worst(column, name, score) for column, name, score in drawn]
    return Figure(
        "confusion",
        said[0],
        tuple(_heat(column, name, score) for column, name, score in drawn),
        caption="Row: the true class. Column: what it was taken for. Strong: much of its row."
        + " Label subsets are added up." * any(len(score.values) > 1 for _, _, score in drawn),
        sentences=tuple(f"{sentence}." for sentence in said[1 : 1 + SENTENCES]),
    )


def _worst(column: ScoreColumn, name: str, score: Score) -> str:
    """Return which class is found least, and for what it is taken."""
    recalls = score.recalls or {}
    known = {label: recall for label, recall in recalls.items() if recall is not None}
    if min(known.values()) == 1:
        return f"{name} on {column.title} finds all of every class"
    least = min(known, key=lambda label: known[label])
    row = (score.confusion or ())[[*recalls].index(least)]
    wrong = {label: n for label, n in zip(recalls, row, strict=True) if label != least}
    most = max(wrong, key=lambda label: wrong[label])
    found = f"{name} on {column.title} finds {percent(known[least])} of {least}, its worst class"
    return f"{found}; {wrong[most]:,} of {sum(row):,} are taken for {most}"


def _heat(column: ScoreColumn, name: str, score: Score) -> str:
    labels, rows = [*(score.recalls or {})], score.confusion or ()
    named = len(labels) <= NAMED
    left = min(NAMES, max(width(label, SMALL) for label in labels) + 6) if named else 2.0
    side = min((WIDTH - left - 2) / len(labels), 26.0)
    canvas = headed(TOP + side * len(labels) + 6, column.title, name)
    for down, (truth, row) in enumerate(zip(labels, rows, strict=True)):
        top = TOP + side * down
        if named:
            words, base = fitted(truth, left - 6), top + side / 2 + 3.5
            canvas.text(left - 5, base, words, "muted", "end", min(SMALL, side + 1))
        for across, count in enumerate(row):
            if count:
                words = f"{truth} taken for {labels[across]}: {count:,} of {sum(row):,}"
                _cell(canvas, left + side * across, top, side, count / sum(row), words)
    ends = {"x": left, "y": TOP, "width": side * len(labels), "height": side * len(labels)}
    canvas.add(element("rect", class_="axis", **ends))
    return canvas.svg(f"Confusion of {name} on {column.title}: {_worst(column, name, score)}")


def _cell(canvas: Canvas, x: float, y: float, side: float, share: float, words: str) -> None:
    place = {"x": x, "y": y, "width": side - 0.5, "height": side - 0.5}
    strong = f"fill:var(--ddp);fill-opacity:{0.08 + 0.92 * share:.2f}"
    canvas.add(element("rect", tip(words), style=strong, **place))


def recalls(board: ScoreBoard) -> list[Table]:
    """Return a table for each column: a row a class, the recall of each row of the board."""
    found = []
    for column in board.columns:
        entries = [(name, score.recalls) for name, score in column.entries if score.recalls]
        labels = dict.fromkeys(label for _, by_class in entries for label in by_class or {})
        rows = [
            [text(label), *(_recall((by_class or {}).get(label)) for _, by_class in entries)]
            for label in labels
        ]
        if rows:
            head = ["class", *(name for name, _ in entries)]
            found.append(Table(f"Recall by class, {column.title}", head, rows))
    return found


def _recall(value: float | None) -> TableCell:
    return TableCell("", float("nan")) if value is None else TableCell(f"{value:.3f}", value)
