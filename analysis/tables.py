"""The tables of sections: cells with the text a reader sees and the value behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hpcgeo.records import MISSING
from hpcgeo_analysis.formatting import NOT_MEASURED
from hpcgeo_analysis.points import StudyPoint


@dataclass(frozen=True)
class TableCell:
    """What stands in a table: its text, the value behind it, how it looks."""

    text: str
    value: float | str = ""
    css: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a head; `notes` stand below."""

    caption: str
    head: list[str]
    rows: list[list[TableCell]]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def numeric(self) -> list[bool]:
        """Whether each column is of numbers and stands to the right."""
        columns = zip(*self.rows, strict=True)
        found = [all(isinstance(cell.value, float) for cell in column) for column in columns]
        return found or [False] * len(self.head)


def text(words: str) -> TableCell:
    """Return a cell of words."""
    return TableCell(words)


def whole(value: int) -> TableCell:
    """Return a count."""
    return TableCell(f"{value:,}", float(value))


def layout(point: StudyPoint) -> TableCell:
    """Return the cell that names the strategy of a point, with its mark."""
    return text(f"{point.layout} ({point.mark})" if point.mark else point.layout)


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
