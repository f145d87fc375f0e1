"""The one table of scores: a row whose features, a column a protocol; and all of it as CSV."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpcgeo.measured import RecordPart
from hpcgeo.quoting import markdown
from hpcgeo.scores import PROTOCOL, Pretraining, Score
from hpcgeo_analysis.scores.answers import BESIDE, lead
from hpcgeo_analysis.scores.board import ScoreBoard, ScoreRow, amount, said, shown, span
from hpcgeo_analysis.tables import Table, text

#: Choices that a cell names, of several label subsets.
CHOICES = 2
#: Parts of a score that are no plain columns of the CSV.
_PARTS = (
    *("leads", "encoder", "confusion", "recalls", "transform", "versions"),
    *("pretraining", "mistakes"),
)


@dataclass(frozen=True)
class ScoreCell:
    """A score in words; `best` where it is that of the best encoder of its column, or level."""

    value: str
    interval: str
    chosen: str
    best: bool


@dataclass(frozen=True)
class ScoreDetail:
    """What a score was made from: a head, and pairs of name and words; code is set as such."""

    title: str
    pairs: tuple[tuple[str, str], ...]
    command: str = ""


@dataclass(frozen=True)
class ScoreTableRow:
    """A row with what it opens to."""

    name: str
    size: str
    cells: tuple[ScoreCell | None, ...]
    details: tuple[ScoreDetail, ...]


def rows(board: ScoreBoard) -> list[ScoreTableRow]:
    """Return the rows of the table."""
    best: list[set[str]] = [
        {name for name, _ in [*column.encoders[:1], *column.level]} for column in board.columns
    ]
    return [
        ScoreTableRow(
            row.name,
            _size(row),
            tuple(
                _cell(score, row.name in names) if score else None
                for score, names in zip(row.cells, best, strict=True)
            ),
            tuple(_details(row, board)),
        )
        for row in board.rows
    ]


def _size(row: ScoreRow) -> str:
    """Return parameters and FLOPs, of each image size."""
    if not row.first.parameters:
        return ""
    found = dict.fromkeys(amount(score.flops) for score in row.scores if score.flops)
    cost = f", {' or '.join(found)}FLOPs an image" if found else ""
    return f"{amount(row.first.parameters)} parameters{cost}"


def _cell(score: Score, best: bool) -> ScoreCell:
    return ScoreCell(shown(score.value), span(score), _chosen(score), best)


def _chosen(score: Score) -> str:
    """Return features and setting that were chosen, of several label subsets each once."""
    found = list(dict.fromkeys(_setting(one) for one in score.chosen))
    more = len(found) - CHOICES
    return " or ".join(found[:CHOICES]) + (f" or {more} others" if more > 0 else "")


def _setting(chosen: Mapping[str, Any]) -> str:
    return ", ".join(
        str(value)
        if name == "features"
        else f"{name} {value:g}"
        if isinstance(value, int | float)
        else f"{name} {value}"
        for name, value in chosen.items()
    )


def _details(row: ScoreRow, board: ScoreBoard) -> Iterator[ScoreDetail]:
    first = row.first
    whose = [(name, str(value)) for name, value in first.encoder.items() if value is not None]
    if first.fingerprint:
        yield ScoreDetail("weights", (*whose, ("fingerprint", first.fingerprint)))
    for column, score in zip(board.columns, row.cells, strict=True):
        if score:
            yield ScoreDetail(column.title, tuple(_pairs(score)), score.command)


def _pairs(score: Score) -> Iterator[tuple[str, str]]:
    yield "score", f"{score.metric} {shown(score.value)} ({span(score) or 'no interval'})"
    for over in BESIDE:
        if words := lead(score, over):
            yield "lead", words
    if took := score.pretraining:
        yield "pretrained", _took(took)
    yield "labels", f"{score.labels:,}, and {score.validation_labels:,} to choose by"
    if len(score.values) > 1:
        yield "label subsets", ", ".join(shown(value) for value in score.values)
    validation = ", ".join(shown(value) for value in score.validation)
    yield "chosen", f"{_chosen(score)}; {validation} on validation, of {score.tried:,} tried"
    yield "transform", json.dumps(score.transform)
    dirty = ", with uncommitted changes" if score.uncommitted_changes else ""
    yield "commit", f"{score.commit or 'not known'}{dirty}"
    yield "made", f"{score.date} on {score.host}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in score.versions.items())


def _took(took: Pretraining) -> str:
    """Say what the pretraining of an encoder took."""
    said = [f"{took.objective}, {took.steps:,} steps, {amount(took.samples)} samples"]
    said += [f"{amount(took.flops)}FLOPs"] if took.flops else []
    said += [f"{amount(took.node_hours)} node-hours on {took.nodes} x {took.device}"]
    said += [f"{amount(took.kwh)} kWh"] if took.kwh else []
    return ", ".join(said)


def protocols(board: ScoreBoard) -> Table:
    """Return what each column asks, field by field."""
    head = ["column", *(name.replace("_", " ") for name in PROTOCOL)]
    found = [
        [text(column.title), *(text(said(column.first, name)) for name in PROTOCOL)]
        for column in board.columns
    ]
    return Table("What the scores of a column share", head, found)


def as_markdown(board: ScoreBoard) -> str:
    """Return the table as Markdown."""
    head = ["features", "size"]
    head += [f"{column.title}: {column.first.metric}" for column in board.columns]
    lines = [head, ["---", "---", *("---" for _ in board.columns)]]
    for row in rows(board):
        cells = [_plain(cell) if cell else "" for cell in row.cells]
        lines.append([row.name, row.size, *cells])
    return "\n".join(f"| {' | '.join(map(markdown, line))} |" for line in lines)


def _plain(cell: ScoreCell) -> str:
    interval = f" ({cell.interval})" if cell.interval else ""
    return f"{cell.value}{interval}; {cell.chosen}"


def as_csv(board: ScoreBoard) -> str:
    """Return every score that counts, a row each; missing is empty, lists are JSON."""
    found = [
        {"name": row.name, "column": column.title} | flat(score)
        for row in board.rows
        for column, score in zip(board.columns, row.cells, strict=True)
        if score
    ]
    head = list(dict.fromkeys(name for row in found for name in row))
    written = io.StringIO()
    writer = csv.DictWriter(written, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return written.getvalue()


def flat(score: RecordPart) -> dict[str, Any]:
    """Return a score as plain values: leads and encoder by dotted names."""
    fields = score.model_dump()
    found = {
        name: json.dumps(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if name not in _PARTS
    }
    for over, (value, low, high) in fields["leads"].items():
        found |= {f"lead.{over}": value, f"lead.{over}.low": low, f"lead.{over}.high": high}
    for part in ("encoder", "recalls", "pretraining"):
        found |= {f"{part}.{name}": value for name, value in (fields[part] or {}).items()}
    return found
