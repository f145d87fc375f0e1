"""Records become a report: sections of sentences, figures and tables; HTML, Markdown, CSV, SVG."""

import gc
import re
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hpcgeo.errors import InputError
from hpcgeo.log import track
from hpcgeo.quoting import markdown
from hpcgeo.records import MISSING, LinksRecord, Record
from hpcgeo.tables import loaded, plugins
from hpcgeo_analysis import export, page
from hpcgeo_analysis import separation as guard
from hpcgeo_analysis.blocks import Section, Study
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.formatting import listed
from hpcgeo_analysis.plots import LineStyles
from hpcgeo_analysis.points import CONTEXT, points
from hpcgeo_analysis.reading import load
from hpcgeo_analysis.sections import (
    batching,
    best,
    collectives,
    energy,
    memory,
    omissions,
    others,
    predictions,
    provenance,
    steps,
    stragglers,
    utilisation,
)
from hpcgeo_analysis.sections import scaling as growth
from hpcgeo_analysis.sections.runs import Run, load_run

#: Our sections in their order.
SECTIONS = (
    *(best.section, growth.section, steps.section, memory.section, utilisation.section),
    *(batching.section, collectives.section, stragglers.section, energy.section),
    *(predictions.section, others.section, omissions.section, provenance.section),
)

#: Figures of an older report that a new one no longer has are removed; nothing else is.
_OURS = re.compile(
    r"(throughput|efficiency|step|share|memory|tokens|links|loss|reconstruction)-\d+-.*\.(png|svg)"
)


def make(
    paths: Iterable[Path],
    out: Path,
    folders: Sequence[Path] = (),
    together: Sequence[str] = (),
) -> Path:
    """Write report.html, report.md, table.csv and figures/*.svg into `out`.

    Args:
        paths: files or folders of records, and of curves of collectives.
        folders: of training runs, whose curves and last pictures are shown too.
        out: folder; a report there is replaced only when the new one is complete.
        together: keys in which lines of one figure may differ, which it then says.

    Returns:
        The path of report.html.

    Raises:
        InputError: no records, a line that is not a record, a key that nothing carries, or a folder
            that cannot be written.

    Example:
        >>> make([Path("profiles/records")], Path("report"))  # doctest: +SKIP
        PosixPath('report/report.html')
    """
    # Thousands of records are a million small objects that no collector needs to visit again.
    gc.disable()
    try:
        found = load(paths)
        gc.freeze()
    finally:
        gc.enable()
    runs = [load_run(number, run) for number, run in enumerate(folders, 1)]
    files = render(
        found.records,
        found.copies,
        runs,
        links=found.links,
        together=together,
        newer=found.newer,
    )
    gc.unfreeze()
    try:
        _write(files, out)
    except OSError as error:
        raise InputError(f"{out}: cannot write the report: {error.strerror}") from None
    return out / "report.html"


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
    styles = LineStyles(comparisons)
    study = Study(records, links, found, comparisons, styles, copies, newer or {})
    answers = [section(study) for section in track(_sections(), "sections")]
    sections = [answer for answer in answers if answer.blocks or answer.missing]
    plots = [plot for section in sections for block in section.blocks for plot in block.plots]
    plots += [curve for run in runs for curve in run.curves]
    files = {f"figures/{plot.name}.svg": plot.svg.encode() for plot in plots}
    pictures = [picture for run in runs for picture in run.pictures]
    files |= {f"figures/{picture.name}.png": picture.png for picture in pictures}
    files["table.csv"] = export.table(comparisons, found, records).encode()
    templates = _templates(styles)
    view = _view(study, sections) | {"runs": runs}
    for name in ("report.md", "report.html"):
        files[name] = templates.get_template(f"{name}.j2").render(view).encode()
    return files


def _sections() -> list[Callable[[Study], Section]]:
    """Return our sections, and before the last those of installed packages."""
    added = [loaded(entry) for entry in plugins("hpcgeo.sections").values()]
    return [*SECTIONS[:-1], *added, SECTIONS[-1]]


def _templates(styles: LineStyles) -> Environment:
    templates = Environment(
        loader=PackageLoader("hpcgeo_analysis"),
        autoescape=lambda name: name is not None and "html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    names = page.variables(styles)
    colours = {line: f"var(--{names[light]})" for line, (light, _) in styles.pair.items()}
    templates.filters["md"] = markdown
    templates.filters["md_table"] = page.markdown_table
    templates.filters["html_table"] = lambda table: page.html_table(table, colours)
    templates.filters["base64"] = lambda content: b64encode(content).decode()
    templates.filters["svg"] = lambda plot: page.inline(plot, names)
    return templates


def _view(study: Study, sections: Sequence[Section]) -> dict[str, Any]:
    models = list(dict.fromkeys(record.model for record in study.records))
    machines = list(dict.fromkeys(made.machine for made in (*study.records, *study.links)))
    contexts = {point.context for point in study.points}
    common = {}
    for place, name in enumerate(CONTEXT[:-1]):
        values = {context[place] for context in contexts}
        if len(values) == 1 and not values & {MISSING, ""}:
            common[name] = values.pop()
    return {
        "title": f"Scaling of {listed(models or ['collectives'])} on {listed(machines)}",
        "tiles": _tiles(study),
        "common": common,
        "sections": sections,
        "shown": SHOWN,
        "pairs": list(study.styles.variables.values()),
    }


def _tiles(study: Study) -> list[tuple[str, str]]:
    """Return the figures at the head of the report: a number and what it counts."""
    records = study.records
    counts = sorted({made.world_size for made in (*records, *study.links)})
    kinds = {kind: sum(r.kind == kind for r in records) for kind in _KINDS}
    layouts = len({record.layout for record in records})
    devices = "device" if counts == [1] else "devices"
    numbers = (
        (len(study.comparisons), "comparison"),
        (sum(point.noisy for point in study.points), "noisy point"),
        (len(omissions.failed(records)[0]), "failed point"),
    )
    return [
        *(
            (f"{count:,}", f"{kind} record{'s' * (count > 1)}")
            for kind, count in kinds.items()
            if count
        ),
        (f"{layouts:,}", "strategy" if layouts == 1 else "strategies"),
        (f"{counts[0]:,} to {counts[-1]:,}" if len(counts) > 1 else f"{counts[0]:,}", devices),
        *((f"{count:,}", noun if count == 1 else f"{noun}s") for count, noun in numbers),
    ]


#: Tables of a section with more blocks than this are folded.
SHOWN = 12

_KINDS = ("measured", "published", "predicted")


def _write(files: dict[str, bytes], out: Path) -> None:
    (out / "figures").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=out) as folder:
        staged = Path(folder)
        (staged / "figures").mkdir()
        for name, content in files.items():
            (staged / name).write_bytes(content)
        for name in sorted(files, key=lambda name: (name == "report.html", name)):
            (staged / name).replace(out / name)
    for old in (out / "figures").iterdir():
        if _OURS.fullmatch(old.name) and f"figures/{old.name}" not in files:
            old.unlink()
