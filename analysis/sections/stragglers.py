"""Stragglers: which rank the others wait for, on which host, and how long."""

from dataclasses import dataclass

from hpcgeo.measured import Wait
from hpcgeo.records import Record
from hpcgeo_analysis.blocks import ReportBlock, Section, Study, name
from hpcgeo_analysis.formatting import NOT_MEASURED, counted, percent, seconds
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.tables import (
    Table,
    layout,
    number,
    text,
    valued,
    whole,
    without_constant,
    without_empty,
)

#: Stragglers that get a sentence; the table has all.
SAID = 5


@dataclass(frozen=True)
class Late:
    """A rank that the others waited for: the run where most, and in how many runs of how many."""

    point: StudyPoint
    wait: Wait
    late_s: float
    share: float | None
    times: int
    runs: int


def section(study: Study) -> Section:
    """Return who is waited for; points where waits were recorded and nobody is are counted."""
    waited = [point for point in study.points if point.all(lambda record: record.wait)]
    found = sorted((late for p in waited for late in _stragglers(p)), key=lambda one: -one.late_s)
    if not waited:
        return Section("stragglers", "Stragglers")
    sentences = [_sentence(late) for late in found[:SAID]]
    if len(found) > SAID:
        sentences.append(f"{counted(len(found) - SAID, 'more straggler')} in the table.")
    quiet = len(waited) - len({id(late.point) for late in found})
    if quiet:
        sentences.append(
            f"No straggler in {quiet:,} of {counted(len(waited), 'point')} whose waits were "
            "recorded."
        )
    tables = [_table(study, found)] if found else []
    return Section("stragglers", "Stragglers", "", [ReportBlock("", sentences, (), tables)])


def _stragglers(point: StudyPoint) -> list[Late]:
    """Return the late ranks of the repeats; a rank on another host is another one."""
    waited = [record for record in point.records if record.wait]
    found: dict[tuple[int, str | None], list[tuple[float, Wait, Record]]] = {}
    for record in waited:
        wait = record.wait
        if wait and wait.straggler is not None and wait.late_s is not None:
            found.setdefault((wait.straggler, wait.host), []).append((wait.late_s, wait, record))
    lates = []
    for same in found.values():
        late_s, wait, record = max(same, key=lambda one: one[0])
        share = late_s / record.step_s.median if record.step_s else None
        lates.append(Late(point, wait, late_s, share, len(same), len(waited)))
    return lates


def _sentence(late: Late) -> str:
    wait = late.wait
    share = "" if late.share is None else f", {percent(late.share)} of the step"
    host = f" on {wait.host}" if wait.host else ""
    runs = f", in {late.times} of {late.runs} runs" if late.runs > 1 else ""
    more = (wait.late_ranks or 1) - 1
    others = f" {counted(more, 'more rank')} of that run {'is' if more == 1 else 'are'} late too."
    return (
        f"Rank {wait.straggler}{host} holds up the others: they wait {seconds(late.late_s)} a step "
        f"longer than it{share} ({name(late.point)}){runs}.{others if more else ''}"
    )


def _table(study: Study, found: list[Late]) -> Table:
    rows = [
        [
            text(late.point.first.model),
            text(study.setting(late.point), "line"),
            layout(late.point),
            whole(late.point.devices),
            whole(late.wait.straggler or 0),
            text(late.wait.host or "not recorded"),
            valued(seconds, late.late_s),
            valued(percent, late.share),
            number(f"{late.times} of {late.runs}", late.times / late.runs),
            number(str(late.wait.late_ranks or NOT_MEASURED), late.wait.late_ranks),
        ]
        for late in found
    ]
    head = ["model", "setting", "strategy", "devices", "rank", "host", "others wait longer by"]
    head += ["of the step", "in runs", "ranks late"]
    table = without_empty(Table("Ranks that the others wait for", head, rows), ("ranks late",))
    return without_constant(table, ("setting", "in runs"))
