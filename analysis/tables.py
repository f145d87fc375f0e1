"""The tables of the report: cells with the text a reader sees and the value a column sorts by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hpcgeo.records import MISSING
from hpcgeo_analysis.formatting import NOT_MEASURED
from hpcgeo_analysis.points import StudyPoint


@dataclass(frozen=True)
class TableCell:
    """What stands in a table: its text, what it sorts by, how it looks, whose colour it carries."""

    text: str
    sort: float | str = ""
    css: str = ""
    line: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a head; `notes` stand below."""

    caption: str
    head: list[str]
    rows: list[list[TableCell]]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def numeric(self) -> list[bool]:
        """Whether each column sorts by number and stands to the right."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.head)
        return [
            bool(column) and all(isinstance(cell.sort, float) for cell in column)
            for column in columns
        ]


def text(words: str, css: str = "") -> TableCell:
    """Return a cell that sorts by its words."""
    return TableCell(words, words, css)


def number(words: str, value: float | None, css: str = "") -> TableCell:
    """Return a cell that sorts by number; a missing one comes last and says so."""
    if value is None:
        return TableCell(words, -math.inf, "missing")
    return TableCell(words, float(value), css)


def whole(value: int) -> TableCell:
    """Return a count."""
    return number(f"{value:,}", value)


def layout(point: StudyPoint) -> TableCell:
    """Return the cell that names the strategy of a point outside its line, with its mark."""
    words = f"{point.layout} ({point.mark})" if point.mark else point.layout
    return TableCell(words, words, "line noisy" if point.mark else "line")


def without_empty(table: Table, titles: Sequence[str]) -> Table:
    """Leave out those columns that nobody measured."""
    gone = [
        place
        for place, title in enumerate(table.head)
        if title in titles
        and all(row[place].text in (NOT_MEASURED, MISSING, "none given") for row in table.rows)
    ]
    return _without(table, gone, [])


def without_constant(table: Table, titles: Sequence[str]) -> Table:
    """Leave out those columns that say the same in every row, and say it once below."""
    same = [
        place
        for place, title in enumerate(table.head)
        if title in titles and len({row[place].text for row in table.rows}) == 1
    ]
    said = [f"{table.head[place]} {table.rows[0][place].text}" for place in same]
    return _without(table, same, [f"In every row: {', '.join(said)}."] if said else [])


def _without(table: Table, gone: Sequence[int], notes: Sequence[str]) -> Table:
    kept = [place for place in range(len(table.head)) if place not in gone]
    return Table(
        table.caption,
        [table.head[place] for place in kept],
        [[row[place] for place in kept] for row in table.rows],
        [*table.notes, *notes],
    )
