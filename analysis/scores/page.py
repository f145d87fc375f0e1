"""The page of scores as files: scores.html, scores.md, scores.csv, figures/scores-*.svg."""

from dataclasses import replace
from typing import Any

from jinja2 import Environment

from hpcgeo.machines import Grid
from hpcgeo_analysis import page
from hpcgeo_analysis.scores import classes, figures, gallery, table
from hpcgeo_analysis.scores.answers import answers
from hpcgeo_analysis.scores.board import ScoreBoard
from hpcgeo_analysis.scores.gains import gains
from hpcgeo_analysis.scores.repeats import repeats

#: What the anchors of figures, and so the names of their files, begin with.
ANCHORS = ("scores", "size", "compute", "pretraining", "confusion", "mistakes")

#: In their order.
FIGURES = (
    *(figures.by_encoder, figures.by_size, figures.by_cost),
    *(figures.by_flops, figures.by_node_hours, figures.by_energy),
    *(classes.confusions, gallery.mistakes),
)


def render(
    board: ScoreBoard,
    templates: Environment,
    assets: dict[str, str],
    baseline: str | None = None,
    grid: Grid | None = None,
) -> dict[str, bytes]:
    """Return the content of every file of the page by its path below the folder.

    Args:
        board: of at least one score.
        templates: of the report.
        assets: `css` and `script` of a page.
        baseline, grid: of `hpcgeo_analysis.scores.gains.gains`.
    """
    gained, repeated, told = gains(board, baseline, grid), repeats(board), answers(board)
    if repeated:  # the luckiest of several seeds is no answer
        told = replace(told, title=repeated.answer)
    drawn = [figure for make in FIGURES if (figure := make(board))]
    view: dict[str, Any] = {
        "answers": told,
        "figures": drawn,
        "anchors": {figure.anchor for figure in drawn},
        "columns": board.columns,
        "common": board.common,
        "rows": table.rows(board),
        "markdown": table.as_markdown(board),
        "gains": gained,
        "repeats": repeated and repeated.table,
        "tables": [table.protocols(board), *classes.recalls(board)],
        **assets,
    }
    files = {
        f"figures/{page.file_name(figure, n)}": page.standalone(panel).encode()
        for figure in drawn
        for n, panel in enumerate(figure.panels, 1)
    }
    files["scores.csv"] = table.as_csv(board).encode()
    for name in ("scores.md", "scores.html"):
        files[name] = templates.get_template(f"{name}.j2").render(view).encode()
    return files
