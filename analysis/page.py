"""How answers, maps, figures and tables stand in HTML and in Markdown."""

import re
from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

from hpcgeo.quoting import markdown
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.formatting import listed
from hpcgeo_analysis.point_table import PointRow, PointTable
from hpcgeo_analysis.styles import css, key, style
from hpcgeo_analysis.tables import Table, TableCell
from hpcgeo_analysis.winner_map import MapCell, WinnerMap

#: Lines without a rival that are named.
ALONE = 3

#: Percent of a line's colour in a cell of the map.
_STRONG, _WEAK = 44, 6


def markdown_table(table: Table) -> str:
    """Return a table as Markdown. Built here: ten thousand rows are slow in a template."""
    cells = [[cell.text for cell in row] for row in table.rows]
    return _markdown(table.head, table.numeric, cells)


def _markdown(head: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    rules = "".join(" ---: |" if number else " --- |" for number in right)
    lines = (f"| {' | '.join(markdown(cell) for cell in row)} |" for row in (head, *rows))
    first, *rest = lines
    return "\n".join([first, f"|{rules}", *rest])


def html_table(table: Table) -> Markup:
    """Return head and rows of a table."""
    head = "".join(
        f'<th scope="col"{" class=number" * right}>{escape(title)}</th>'
        for title, right in zip(table.head, table.numeric, strict=True)
    )
    rows = "\n".join(f"<tr>{''.join(map(_cell, row, table.numeric))}</tr>" for row in table.rows)
    return Markup(f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>")


def _cell(cell: TableCell, right: bool) -> str:
    names = f"{'number ' * right}{cell.css}".strip()
    css = f' class="{names}"' if names else ""
    return f"<td{css}>{words(cell.text)}</td>"


def words(text: str) -> Markup:
    """Return text for a page; a percent sign never stands alone on a line."""
    return Markup(escape(text).replace(" %", "\u00a0%"))


# The one table ---------------------------------------------------------------------------------


def points_html(table: PointTable) -> Markup:
    """Return head and rows of the table of all points; a script opens, sorts and hides them."""
    head = "".join(
        f'<th scope="col"{" class=number" * right}><button type="button">{escape(title)}</button>'
        "</th>"
        for title, right in (("strategy", False), *table.columns)
    )
    rows = "\n".join(_row(row, table.columns) for row in table.rows)
    return Markup(f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>")


def _row(row: PointRow, columns: Sequence[tuple[str, bool]]) -> str:
    cells = []
    for cell, (_, right) in zip(row.cells, columns, strict=True):
        if cell is None:
            cells.append("<td></td>")
        elif right:
            cells.append(f'<td class=number data-sort="{cell[1]}">{words(cell[0])}</td>')
        else:
            cells.append(f"<td>{words(cell[0])}</td>")
    record = row.point.first
    names = " ".join(filter(None, [row.standing, "noisy" * row.point.noisy, record.kind]))
    name = (
        f'<th scope="row"><input type="checkbox" aria-label="compare {escape(row.line)}">'
        f'<button type="button" aria-expanded="false">{Markup(key(row.line))}'
        f"{escape(row.line)}</button></th>"
    )
    return (
        f'<tr class="{names}" data-line="{escape(row.point.layout)}" '
        f'data-model="{escape(record.model)}" data-point="{row.number}">{name}{"".join(cells)}</tr>'
    )


def phone_labels(table: PointTable) -> Markup:
    """Return the rules that name the cells of a row where it stands as a card."""
    rules = (
        f'#points td:nth-child({n}):not(:empty)::before{{content:"{title} "}}'
        for n, (title, _) in enumerate(table.columns, 2)
    )
    return Markup("\n".join(rules))


def points_markdown(table: PointTable) -> str:
    """Return the best and what ties with them as Markdown; all points are in table.csv."""
    head = ["strategy", *(title for title, _ in table.columns)]
    rows = [
        [row.line, *(cell[0] if cell else "" for cell in row.cells)]
        for row in table.rows
        if row.standing
    ]
    return _markdown(head, [False, *(right for _, right in table.columns)], rows)


# The winner map --------------------------------------------------------------------------------


def map_html(winners: WinnerMap) -> Markup:
    """Return head and rows of a winner map."""
    head = "".join(f'<th scope="col">{count:,}</th>' for count in winners.counts)
    one = len(winners.models) == 1
    rows = []
    for name, cells in winners.rows:
        mark = key(name) if one else ""
        line = f' data-line="{escape(name.partition(" ")[0])}"' if one else ""
        body = "".join(map(_map_cell, cells))
        model = next(cell.model for cell in cells if cell)
        rows.append(
            f'<tr data-model="{escape(model)}"{line}><th scope="row">{mark}{escape(name)}</th>'
            f"{body}</tr>"
        )
    return Markup(
        f'<thead><tr><th scope="col">devices</th>{head}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(rows)}\n</tbody>"
    )


def _map_cell(cell: MapCell | None) -> str:
    if cell is None:
        return "<td></td>"
    look = style(cell.line)
    strong = _WEAK + (_STRONG - _WEAK) * max(0.0, 2 * cell.share - 1) ** 2
    css = " ".join(filter(None, ["best" * cell.best, "hatched" * cell.hatched]))
    return (
        f'<td><span class="{css}" data-line="{escape(cell.line.partition(" ")[0])}" '
        f'style="--line:{look.css};--strong:{strong:.0f}%" title="{escape(cell.words)}">'
        f"<b>{escape(look.letter)}<i>{cell.mark}</i></b>{escape(cell.number)}</span></td>"
    )


def map_markdown(winners: WinnerMap) -> str:
    """Return a winner map as Markdown: letter, ``=`` where others tie, and the number."""
    rows = []
    for name, cells in winners.rows:
        said = (
            f"{style(c.line).letter}{c.mark} {c.number}{'~' * c.hatched}" if c else ""
            for c in cells
        )
        rows.append([name, *said])
    head = ["devices", *(f"{count:,}" for count in winners.counts)]
    return _markdown(head, [False] + [True] * len(winners.counts), rows)


def map_title(found: Sequence[WinnerMap]) -> str:
    """Return what the maps show."""
    if not found:
        return ""
    if len(found[0].models) > 1:
        return f"The fastest strategy of each model, {found[0].noun}/s per device"
    return "Strategies in percent of the fastest"


def map_key(found: Sequence[WinnerMap], alone: Sequence[str]) -> str:
    """Return how marks in the maps are read, of those that are there, and what is in no map."""
    cells = [cell for each in found for _, row in each.rows for cell in row if cell]
    said = ["Columns: devices."]
    said += ["= others tie with it."] * any(cell.mark for cell in cells)
    said += ["Hatched (~): noisy, still getting faster, or unlike."] * any(c.hatched for c in cells)
    said += [f"As asked, {apart}." for apart in dict.fromkeys(_apart(found)) if apart]
    more = len(alone) - ALONE
    names = [*alone[:ALONE], *([f"{more:,} more"] if more > 0 else [])]
    said += [f"Without a rival, not in the map: {listed(names)}."] if names else []
    return " ".join(said)


def _apart(found: Sequence[WinnerMap]) -> Iterator[str]:
    for each in found:
        yield from (field.comparison.apart for field in each.fields)


def letters(layouts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the letter of each layout, e.g. ``("H8", "HYBRID_SHARD(8)")``."""
    return [(style(layout).letter, layout) for layout in layouts]


# Figures ---------------------------------------------------------------------------------------


def standalone(panel: str) -> str:
    """Return a drawing as a file of its own."""
    return panel.replace(">", f"><style>{css()}</style>", 1)


def file_name(figure: Figure, number: int) -> str:
    """Return the name of the file of a panel."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', figure.anchor)}-{number}.svg"
