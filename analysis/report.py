"""Records become a report: findings, figures, tables; one HTML file, Markdown, CSV and PNG."""

import re
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hpcgeo.errors import InputError
from hpcgeo.log import track
from hpcgeo.records import MISSING, NOISY, Record
from hpcgeo_analysis import findings, plots, tables
from hpcgeo_analysis.load import CONTEXT, frame, load
from hpcgeo_analysis.plots import Look, Plot
from hpcgeo_analysis.runs import Run, load_run
from hpcgeo_analysis.scaling import Comparison, compare, differing, points, setting
from hpcgeo_analysis.tables import Table
from hpcgeo_analysis.words import listed

#: Figures of an older report that a new one no longer has are removed; nothing else is.
_OURS = re.compile(r"(throughput|efficiency|memory|loss|reconstruction)-\d+-.*\.png")


@dataclass(frozen=True)
class Part:
    """What the report shows of one comparison."""

    comparison: Comparison
    facts: str
    throughput: Plot | None
    throughput_table: Table
    efficiency: Plot | None
    efficiency_table: Table | None
    memory: list[tuple[Plot, Table]]
    lost_time: Table | None


def make(paths: Iterable[Path], out: Path, folders: Sequence[Path] = ()) -> Path:
    """Write report.html, report.md, table.csv and figures/*.png into `out`.

    Args:
        paths: files or folders of records.
        folders: of training runs, whose loss curve and last reconstructions are shown too.
        out: folder; a report there is replaced only when the new one is complete.

    Returns:
        The path of report.html.

    Raises:
        InputError: no records, a line that is not a record, or a folder that cannot be written.

    Example:
        >>> make([Path("profiles/records")], Path("report"))  # doctest: +SKIP
        PosixPath('report/report.html')
    """
    records, copies = load(paths)
    files = render(
        records, copies, [load_run(number, run) for number, run in enumerate(folders, 1)]
    )
    try:
        _write(files, out)
    except OSError as error:
        raise InputError(f"{out}: cannot write the report: {error.strerror}") from None
    return out / "report.html"


def render(
    records: Sequence[Record], copies: int = 0, runs: Sequence[Run] = ()
) -> dict[str, bytes]:
    """Return the content of every file of the report by its path below the folder."""
    table = frame(records)
    comparisons = compare(points(table))
    look = Look(comparisons)
    apart = list(differing(tuple(comparison.context.values()) for comparison in comparisons))
    parts = [_part(comparison, look, apart) for comparison in track(comparisons, "figures")]
    files = {
        f"figures/{plot.name}.png": plot.png
        for part in parts
        for plot in (part.throughput, part.efficiency, *(plot for plot, _ in part.memory))
        if plot
    }
    files |= {f"figures/{run.curve.name}.png": run.curve.png for run in runs}
    files |= {f"figures/{run.picture.name}.png": run.picture.png for run in runs if run.picture}
    files["table.csv"] = tables.points(comparisons, table).to_csv(index=False).encode()
    view = _view(records, copies, parts, look) | {"runs": runs}
    view["environments"], used = tables.environments(table)
    view["provenance"] = tables.provenance(table, used)
    templates = Environment(
        loader=PackageLoader("hpcgeo_analysis"),
        autoescape=lambda name: name is not None and "html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["md"] = markdown
    templates.filters["base64"] = lambda content: b64encode(content).decode()
    templates.filters["svg"] = lambda plot: Markup(_inline(plot, view["variables"]))
    for name in ("report.md", "report.html"):
        files[name] = templates.get_template(f"{name}.j2").render(view).encode()
    return files


def markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also inside a table.

    >>> markdown("a|b <c>")
    'a\\\\|b &lt;c>'
    """
    text = " ".join(text.split()).replace("\\", "\\\\").replace("<", "&lt;")
    return re.sub(r"([|`*\[\]])", r"\\\1", text)


def _part(comparison: Comparison, look: Look, apart: Sequence[str]) -> Part:
    facts = [f"{name} {setting(comparison.context, name)}" for name in apart if name != "model"]
    name = f"{comparison.number}-{re.sub(r'[^A-Za-z0-9_.]+', '_', comparison.context['model'])}"
    efficiency = plots.efficiency(comparison, look, name)
    return Part(
        comparison=comparison,
        facts="; ".join([comparison.fixed, *facts]),
        throughput=plots.throughput(comparison, look, name),
        throughput_table=tables.throughput(comparison),
        efficiency=efficiency,
        efficiency_table=tables.efficiency(comparison) if efficiency else None,
        memory=list(
            zip(plots.memory(comparison, look, name), tables.memory(comparison), strict=True)
        ),
        lost_time=tables.lost_time(comparison),
    )


def _view(
    records: Sequence[Record], copies: int, parts: Sequence[Part], look: Look
) -> dict[str, Any]:
    comparisons = [part.comparison for part in parts]
    contexts = [comparison.context for comparison in comparisons]
    models = list(dict.fromkeys(record.model for record in records))
    machines = list(dict.fromkeys(record.machine for record in records))
    variables = {plots.INK: "ink", plots.MUTED: "muted", plots.GRID: "grid", plots.PAPER: "paper"}
    pairs = list(dict.fromkeys(look.pair.values()))
    variables |= {light: f"s{place}" for place, (light, _) in enumerate(pairs)}
    failed = findings.failures(records)
    return {
        "title": f"Scaling of {listed(models)} on {listed(machines)}",
        "tiles": _tiles(records, comparisons, len(failed)),
        "common": {
            name: contexts[0][name]
            for name in CONTEXT
            if contexts and name != "knobs" and len({context[name] for context in contexts}) == 1
        },
        "findings": [findings.of_comparison(comparison) for comparison in comparisons],
        "noisy": findings.noisy(comparisons),
        "failed": failed,
        "separated": findings.separated(comparisons),
        "cautions": findings.cautions(comparisons, records, copies),
        "parts": parts,
        "failures": tables.failures(records),
        "threshold": f"{NOISY:.0%}".replace("%", " %"),
        "variables": variables,
        "pairs": pairs,
        "colours": {line: f"var(--{variables[light]})" for line, (light, _) in look.pair.items()},
        "missing": MISSING,
    }


def _tiles(
    records: Sequence[Record], comparisons: Sequence[Comparison], failed: int
) -> list[tuple[str, str]]:
    """Return the figures at the head of the report: a number and what it counts."""
    counts = sorted({record.world_size for record in records})
    kinds = [
        (kind, sum(record.kind == kind for record in records)) for kind in ("measured", "published")
    ]
    noisy = {s.point for comparison in comparisons for s in comparison.scaled if s.noisy}
    return [
        *((f"{count:,}", f"{kind} records") for kind, count in kinds if count),
        (f"{len({record.layout for record in records}):,}", "strategies"),
        (f"{counts[0]:,} to {counts[-1]:,}" if len(counts) > 1 else f"{counts[0]:,}", "devices"),
        *(
            (f"{count:,}", noun if count == 1 else f"{noun}s")
            for count, noun in (
                (len(comparisons), "comparison"),
                (len(noisy), "noisy point"),
                (failed, "failed point"),
            )
        ),
    ]


def _inline(plot: Plot, variables: dict[str, str]) -> str:
    """Return a figure as part of a page: its colours follow the page, its text is spoken."""
    svg = plot.svg[plot.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", svg.split(">", 1)[0]) + (
        ">" + svg.split(">", 1)[1]
    )
    svg = re.sub(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"', "", svg)
    for colour, name in variables.items():
        svg = re.sub(f"{colour}\\b", f"var(--{name})", svg, flags=re.IGNORECASE)
    svg = "\n".join(line for line in svg.splitlines() if line.strip())
    return svg.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(plot.alt)}"', 1)


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
