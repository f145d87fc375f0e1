"""How tables, figures and sentences stand in HTML and in Markdown."""

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

from hpcgeo.quoting import markdown
from hpcgeo_analysis.plots import GRID, INK, MUTED, PAPER, LineStyles, Plot
from hpcgeo_analysis.tables import Table, TableCell


def markdown_table(table: Table) -> str:
    """Return a table as Markdown. Built here: ten thousand rows are slow in a template."""
    rules = (" ---: |" if right else " --- |" for right in table.numeric)
    lines = [
        f"| {' | '.join(markdown(title) for title in table.head)} |",
        f"|{''.join(rules)}",
        *(f"| {' | '.join(markdown(cell.text) for cell in row)} |" for row in table.rows),
    ]
    return "\n".join(lines)


def html_table(table: Table, colours: Mapping[str, str]) -> Markup:
    """Return head and rows of a table; `colours` are those of the lines."""
    head = "".join(
        f'<th scope="col"{" class=number" * right}><button type="button">{escape(title)}</button>'
        "</th>"
        for title, right in zip(table.head, table.numeric, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(
            _cell(cell, right, colours) for cell, right in zip(row, table.numeric, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return Markup(f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>")


def _cell(cell: TableCell, right: bool, colours: Mapping[str, str]) -> str:
    names = f"{'number ' * right}{cell.css}".strip()
    css = f' class="{names}"' if names else ""
    sort = f' data-sort="{cell.sort}"' if right else ""
    dot = f'<i style="background:{colours[cell.line]}"></i>' if cell.line in colours else ""
    words = str(escape(cell.text)).replace(" %", "\u00a0%")
    return f"<td{css}{sort}>{dot}{words}</td>"


def variables(styles: LineStyles) -> dict[str, str]:
    """Return the name of the page's variable for every colour of the figures."""
    names = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"}
    return names | {light: f"s{place}" for place, light in enumerate(styles.variables)}


def inline(plot: Plot, names: Mapping[str, str]) -> Markup:
    """Return a figure as part of a page: its colours follow the page, its text is spoken."""
    svg = plot.svg[plot.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r' (xmlns(:\w+)?|width|height|version)="[^"]*"', "", opening)
    rest = re.sub(r' id="[A-Za-z][A-Za-z0-9.]*_\d+"', "", rest)
    rest = re.sub(
        r"#[0-9a-f]{6}\b",
        lambda found: f"var(--{names[found[0]]})" if found[0] in names else found[0],
        rest,
    )
    rest = re.sub(r"\n\s*\n", "\n", rest)
    opening = opening.replace("<svg", f'<svg role="img" aria-label="{escape(plot.alt)}"', 1)
    return Markup(f"{opening}>{rest}")
