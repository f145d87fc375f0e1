"""What went most wrong: pictures of the samples that the best encoder of a column gets wrong."""

from collections.abc import Sequence

from hpcgeo.scores import Mistake
from hpcgeo_analysis.figures.axes import SMALL, WIDTH, fitted, headed
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.scores.board import ScoreBoard, ScoreColumn
from hpcgeo_analysis.svg import element, tip

#: Pictures of a row, and pixels from the top to the first one, and of the words below each.
ROW, TOP, WORDS = 4, 34.0, 27.0


def mistakes(board: ScoreBoard) -> Figure | None:
    """Return the worst mistakes of the best encoder of each column, on real samples."""
    best = [(column, *column.encoders[0]) for column in board.columns if column.encoders]
    found = [(column, name, score.mistakes) for column, name, score in best if score.mistakes]
    if not found:
        return None
    column, _, (worst, *_) = found[0]
    return Figure(
        "mistakes",
        f"The surest mistake on {column.title}: {worst.truth}, taken for {worst.taken_for}",
        tuple(_panel(column, name, some) for column, name, some in found),
        caption="Samples of the scored split that are surest taken for another class, the worst "
        "first. Below each: the true class, then what it was taken for.",
    )


def _panel(column: ScoreColumn, name: str, some: Sequence[Mistake]) -> str:
    side = WIDTH / ROW - 6
    height = side + WORDS
    canvas = headed(TOP + height * -(-len(some) // ROW) + 6, column.title, name)
    for number, one in enumerate(some):
        x = (number % ROW) * (side + 6)
        y = TOP + (number // ROW) * height
        words = f"sample {one.sample}: {one.truth}, taken for {one.taken_for}"
        place = {"x": x, "y": y, "width": side, "height": side}
        if one.picture:
            picture = f"data:image/jpeg;base64,{one.picture}"
            canvas.add(element("image", tip(words), href=picture, **place))
        else:
            canvas.add(element("rect", tip(words), class_="axis", **place))
        canvas.text(x, y + side + 9, fitted(one.truth, side), "muted", font=SMALL)
        canvas.text(x, y + side + 19, fitted(one.taken_for, side), font=SMALL)
    said = "; ".join(f"{one.truth} taken for {one.taken_for}" for one in some)
    return canvas.svg(f"What {name} gets most wrong on {column.title}: {said}")
