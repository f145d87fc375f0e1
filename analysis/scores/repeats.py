"""Encoders that differ in their seed alone, taken together: a choice of objective or size rests on
several draws, not on the luckiest."""

import re
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from hpcgeo_analysis.formatting import listed
from hpcgeo_analysis.scores.board import ScoreBoard, ScoreColumn, ScoreRow, shown
from hpcgeo_analysis.tables import Table, TableCell, text, whole

#: How the name of a run of a study ends that is one of several seeds.
_SEED = re.compile(r"-\d+$")

Runs = Mapping[str, Sequence[ScoreRow]]


class Repeats(NamedTuple):
    """What the means say, and they themselves."""

    answer: str
    table: Table


def repeats(board: ScoreBoard) -> Repeats | None:
    """Return the means; None where no two encoders are of one pretraining.

    Runs are of one pretraining where objective, data, steps and samples agree, and names up to the
    seed that ends them.
    """
    runs = {name: rows for name, rows in _runs(board).items() if len(rows) > 1}
    columns = [column for column in board.columns if _values(column, runs)]
    if not runs or not columns:
        return None
    order = sorted(runs, key=lambda name: -_standing(name, columns, runs))
    rows = [
        [text(name), whole(len(runs[name])), *(_cell(c, runs[name]) for c in columns)]
        for name in order
    ]
    head = ["features", "runs", *(f"{column.title}: {column.first.metric}" for column in columns)]
    notes = ["Mean of the runs, in brackets the lowest and the highest; runs differ in their seed."]
    return Repeats(_answer(columns, runs), Table("Means over seeds", head, rows, notes))


def _runs(board: ScoreBoard) -> dict[str, list[ScoreRow]]:
    found: dict[tuple[object, ...], list[ScoreRow]] = {}
    for row in board.rows:
        took, stem = row.first.pretraining, _SEED.sub("", row.name)
        if took and stem != row.name and row.first.whose == "encoder":
            key = (stem, took.objective, took.data, took.steps, took.samples)
            found.setdefault(key, []).append(row)
    stems = [str(key[0]) for key in found]
    return {
        str(key[0]) if stems.count(str(key[0])) == 1 else f"{key[0]}, {key[3]:,} steps": rows
        for key, rows in found.items()
    }


def _of(column: ScoreColumn, rows: Sequence[ScoreRow]) -> list[float]:
    entries = dict(column.entries)
    scores = [entries.get(row.name) for row in rows]
    return [score.value for score in scores if score and score.value is not None]


def _values(column: ScoreColumn, runs: Runs) -> dict[str, list[float]]:
    found = {name: _of(column, rows) for name, rows in runs.items()}
    return {name: values for name, values in found.items() if len(values) > 1}


def _cell(column: ScoreColumn, rows: Sequence[ScoreRow]) -> TableCell:
    values = _of(column, rows)
    if not values:
        return text("")
    said = f"{shown(mean(values))} ({shown(min(values))} to {shown(max(values))})"
    return TableCell(said, mean(values))


def _standing(name: str, columns: Sequence[ScoreColumn], runs: Runs) -> float:
    """Return how many others a pretraining is ahead of, over all columns."""
    ahead = 0
    for column in columns:
        means = {other: column.sign * mean(v) for other, v in _values(column, runs).items()}
        ahead += sum(means[name] > value for value in means.values()) if name in means else 0
    return ahead


def _answer(columns: Sequence[ScoreColumn], runs: Runs) -> str:
    """Return which has the best mean of each column, and whose runs reach into its own."""
    leads: dict[str, list[str]] = {}
    level: dict[str, dict[str, None]] = {}
    for column in columns:
        values = {n: [column.sign * v for v in own] for n, own in _values(column, runs).items()}
        best, *others = sorted(values, key=lambda name: -mean(values[name]))
        leads.setdefault(best, []).append(column.title)
        near = [other for other in others if max(values[other]) >= min(values[best])]
        level.setdefault(best, {}).update(dict.fromkeys(near))
    said = []
    for name, titles in leads.items():
        within = f" ({listed([*level[name]])} within its spread)" if level[name] else ""
        said.append(f"{name} has the best mean of seeds on {listed(titles)}{within}")
    return "; ".join(said)
