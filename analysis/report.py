"""Records become a report: answers, figures, one table of all points; HTML, Markdown, CSV, SVG."""

import gc
import re
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hpcgeo.errors import InputError
from hpcgeo.log import track
from hpcgeo.machines import Grid
from hpcgeo.quoting import markdown
from hpcgeo.records import LinksRecord, Record
from hpcgeo.tables import loaded, plugins
from hpcgeo_analysis import export, naming, page
from hpcgeo_analysis import separation as guard
from hpcgeo_analysis.answers import answers
from hpcgeo_analysis.blocks import Section, Study
from hpcgeo_analysis.comparisons import compare, rank
from hpcgeo_analysis.embedded import embedded
from hpcgeo_analysis.figures import (
    batching,
    collectives,
    energy,
    memory,
    predictions,
    scaling,
    steps,
    stragglers,
    utilisation,
)
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.point_table import point_table
from hpcgeo_analysis.points import CONTEXT, points
from hpcgeo_analysis.reading import Loaded, load
from hpcgeo_analysis.scores import page as score_page
from hpcgeo_analysis.scores.board import MIXABLE
from hpcgeo_analysis.scores.board import board as board_of
from hpcgeo_analysis.sections import omissions, others, provenance
from hpcgeo_analysis.sections.runs import Run, load_run
from hpcgeo_analysis.styles import css, key
from hpcgeo_analysis.winner_map import alone, maps, settings
from hpcgeo_analysis.winners import fields

#: Our figures in their order.
FIGURES: tuple[Callable[[Study], Figure | None], ...] = (
    *(scaling.figure, steps.figure, memory.figure, utilisation.figure, batching.figure),
    *(collectives.figure, stragglers.figure, energy.figure, predictions.figure),
)

#: Figures that are open from the start; of the others the page shows the claim.
UNFOLDED = ("scaling", "steps", "memory")

#: Our sections in their order.
SECTIONS = (others.section, omissions.section, provenance.section)

#: Winner maps that are drawn, those with most points; the table has every point.
MAPS = 4

#: Figures of an older page that a new one no longer has are removed; nothing else is.
_OURS = re.compile(r"[a-z]+(-[a-z]+)?-\d+(-.*)?\.(png|svg)")


def make(
    paths: Iterable[Path],
    out: Path,
    folders: Sequence[Path] = (),
    together: Sequence[str] = (),
    baseline: str | None = None,
    grid: Grid | None = None,
) -> list[Path]:
    """Write report.html, report.md, table.csv and figures/*.svg into `out`.

    Of scores it is scores.html, scores.md and scores.csv; of records and scores both.

    Args:
        paths: files or folders of records, of curves of collectives, and of scores.
        folders: of training runs, whose curves and last pictures are shown too.
        out: folder; a report there is replaced only when the new one is complete.
        together: keys in which lines of one figure, or scores of a column, may differ, which the
            page then says.
        baseline: row of scores that the gains of others are against.
        grid: of electricity, whose carbon a pretraining is counted with.

    Returns:
        The paths of the pages.

    Raises:
        InputError: no records, a line that is not a record, a key that nothing carries, what has no
            effect on scores, or a folder that cannot be written.

    Example:
        >>> make([Path("profiles/records")], Path("report"))  # doctest: +SKIP
        [PosixPath('report/report.html')]
    """
    # Thousands of records are a million small objects that no collector needs to visit again.
    gc.disable()
    try:
        found = load(paths)
        gc.freeze()
    finally:
        gc.enable()
    with_records = bool(found.records or found.links)
    if folders and not with_records:
        raise InputError(f"--run {folders[0]}: no effect on scores: give records too")
    if not found.scores and (baseline is not None or grid is not None):
        raise InputError("--baseline and --grid: of scores, and none are given")
    mixed = [key for key in together if key in MIXABLE] if found.scores else []
    if found.scores:
        # A key of both counts for both; what only records may carry is judged there.
        together = [key for key in together if key not in MIXABLE or key in CONTEXT]
    runs = [load_run(number, run) for number, run in enumerate(folders, 1)]
    files: dict[str, bytes] = {}
    if with_records:
        files |= _of_records(found, runs, together)
    elif unknown := [key for key in together if key not in mixed]:
        raise InputError(
            f"--together {unknown[0]}: scores cannot differ in this; choose from "
            f"{', '.join(MIXABLE)}"
        )
    if found.scores:
        board = board_of(found.scores, found.score_copies, mixed)
        files |= score_page.render(board, _templates(), _assets(), baseline, grid)
    gc.unfreeze()
    try:
        _write(files, out)
    except OSError as error:
        raise InputError(f"{out}: cannot write the report: {error.strerror}") from None
    return [out / name for name in ("report.html", "scores.html") if name in files]


def _of_records(found: Loaded, runs: Sequence[Run], together: Sequence[str]) -> dict[str, bytes]:
    return render(
        found.records,
        found.copies,
        runs,
        links=found.links,
        together=together,
        newer=found.newer,
    )


def render(
    records: Sequence[Record],
    copies: int = 0,
    runs: Sequence[Run] = (),
    *,
    links: Sequence[LinksRecord] = (),
    together: Sequence[str] = (),
    newer: Mapping[str, int] | None = None,
) -> dict[str, bytes]:
    """Return the content of every file of the report by its path below the folder."""
    found = points(records)
    guard.check(together, found)
    comparisons = compare(found, together)
    study = Study(records, links, found, comparisons, copies, newer or {})
    drawn = [figure for make_it in track(FIGURES, "figures") if (figure := make_it(study))]
    sections = [section(study) for section in _sections()]
    view = _view(study, drawn, sections, runs)
    shown = [*view["figures"], *(run.figure for run in runs)]
    files = {
        f"figures/{page.file_name(figure, n)}": page.standalone(panel).encode()
        for figure in shown
        for n, panel in enumerate(figure.panels, 1)
    }
    files |= {f"figures/{p.name}.png": p.png for run in runs for p in run.pictures}
    files["table.csv"] = export.table(comparisons, found, records).encode()
    templates = _templates()
    for name in ("report.md", "report.html"):
        files[name] = templates.get_template(f"{name}.j2").render(view).encode()
    return files


def _sections() -> list[Callable[[Study], Section]]:
    """Return our sections, and before the last those of installed packages."""
    added = [loaded(entry) for entry in plugins("hpcgeo.sections").values()]
    return [*SECTIONS[:-1], *added, SECTIONS[-1]]


def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("hpcgeo_analysis"),
        autoescape=lambda name: name is not None and "html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "md": markdown,
        "words": page.words,
        "key": key,
        "base64": lambda content: b64encode(content).decode(),
        "file": page.file_name,
        "md_table": page.markdown_table,
        "html_table": page.html_table,
        "map_html": page.map_html,
        "map_md": page.map_markdown,
        "points_html": page.points_html,
        "points_md": page.points_markdown,
        "phone_labels": page.phone_labels,
    }
    templates.filters |= filters
    return templates


def _view(
    study: Study, drawn: Sequence[Figure], sections: Sequence[Section], runs: Sequence[Run]
) -> dict[str, Any]:
    """Return what the templates show."""
    found = fields(study.comparisons)
    winners = maps(found)
    with_data = [figure for figure in drawn if figure.panels or figure.sentences]
    full = [section for section in sections if section.blocks]
    table = point_table(study, found)
    return {
        "answers": answers(study, winners),
        "maps": list(zip(winners[:MAPS], settings(winners[:MAPS]), strict=True)),
        "map_title": page.map_title(winners),
        "map_key": page.map_key(winners[:MAPS], alone(found, winners)),
        "models": list(naming.models(_models(study))[1].items()),
        "lines": page.letters(_layouts(study)),
        "figures": with_data,
        "unfolded": UNFOLDED,
        "absent": [
            *((f.anchor, f.missing) for f in drawn if f not in with_data and f.missing),
            *(
                (s.anchor, f"{s.title}: {s.missing}")
                for s in sections
                if s not in full and s.missing
            ),
        ],
        "anchors": {figure.anchor for figure in with_data},
        "table": table,
        "shows": _shows(study, table.standing),
        "runs": runs,
        "sections": full,
        "records": embedded(study.points),
        **_assets(),
    }


def _assets() -> dict[str, str]:
    """Return the style sheet and the script of a page."""
    folder = resources.files("hpcgeo_analysis.templates")
    return {
        "css": css() + (folder / "report.css").read_text("utf-8"),
        "script": (folder / "report.js").read_text("utf-8"),
    }


def _models(study: Study) -> list[str]:
    sizes = {p.first.model: p.parameters or 0 for p in study.points}
    return sorted(sizes, key=lambda model: (sizes[model], model))


def _layouts(study: Study) -> list[str]:
    layouts = {point.layout: point.first.strategy for point in study.points}
    return sorted(layouts, key=lambda layout: rank(layout, layouts[layout]))


def _shows(study: Study, standing: bool) -> list[tuple[str, str]]:
    """Return the filters of the table: what is shown first comes first."""
    kinds = dict.fromkeys(point.first.kind for point in study.points)
    found = [("best", "Best and ties")] if standing else []
    found.append(("all", "All"))
    if any(point.noisy for point in study.points):
        found.append(("noisy", "Noisy"))
    return found + ([(kind, kind.capitalize()) for kind in kinds] if len(kinds) > 1 else [])


def _write(files: dict[str, bytes], out: Path) -> None:
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=out) as folder:
        staged = Path(folder)
        (staged / "figures").mkdir()
        for name, content in files.items():
            (staged / name).write_bytes(content)
        for name in sorted(files, key=lambda name: (name.endswith(".html"), name)):
            (staged / name).replace(out / name)
    for old in (out / "figures").iterdir():
        of_scores = old.name.partition("-")[0] in score_page.ANCHORS
        page_of = "scores.html" if of_scores else "report.html"
        if page_of in files and _OURS.fullmatch(old.name) and f"figures/{old.name}" not in files:
            old.unlink()
