"""Stragglers: which rank the others wait for, on which host, and how long."""

from hpcgeo.records import Wait
from hpcgeo_analysis.points import Point
from hpcgeo_analysis.sections import Block, Section, Study, name
from hpcgeo_analysis.tables import Table, layout, text, valued, whole, without_constant
from hpcgeo_analysis.words import counted, percent, seconds

#: Stragglers that get a sentence; the table has all.
SAID = 5


def section(study: Study) -> Section:
    """Return who is waited for; points where waits were recorded and nobody is are counted."""
    waited = [point for point in study.points if point.all(lambda record: record.wait)]
    found = [(late, wait, point) for point in waited for late, wait in _stragglers(point)]
    found.sort(key=lambda row: -row[0])
    if not waited:
        return Section("stragglers", "Stragglers")
    sentences = [_sentence(*row) for row in found[:SAID]]
    if len(found) > SAID:
        sentences.append(f"{counted(len(found) - SAID, 'more straggler')} in the table.")
    quiet = len(waited) - len({id(point) for _, _, point in found})
    if quiet:
        sentences.append(
            f"No straggler in {quiet:,} of {counted(len(waited), 'point')} whose waits were "
            "recorded."
        )
    tables = [_table(study, found)] if found else []
    return Section("stragglers", "Stragglers", "", [Block("", sentences, (), tables)])


def _stragglers(point: Point) -> list[tuple[float, Wait]]:
    """Return the late rank of each repeat that has one, each rank once, where it is latest."""
    found: dict[int, tuple[float, Wait]] = {}
    for wait in point.all(lambda record: record.wait):
        if wait.straggler is not None and wait.late_s is not None:
            before = found.get(wait.straggler, (-1.0, wait))
            found[wait.straggler] = max(before, (wait.late_s, wait), key=lambda pair: pair[0])
    return list(found.values())


def _sentence(late: float, wait: Wait, point: Point) -> str:
    share = f", {percent(late / point.step_s)} of the step" if point.step_s else ""
    host = f" on {wait.host}" if wait.host else ""
    return (
        f"Rank {wait.straggler}{host} holds up the others: they wait {seconds(late)} a step longer "
        f"than it{share} ({name(point)})."
    )


def _table(study: Study, found: list[tuple[float, Wait, Point]]) -> Table:
    rows = [
        [
            text(point.first.model),
            text(study.setting(point), "line"),
            layout(point),
            whole(point.devices),
            whole(wait.straggler or 0),
            text(wait.host or "not recorded"),
            valued(seconds, late),
            valued(percent, late / point.step_s if point.step_s else None),
        ]
        for late, wait, point in found
    ]
    head = [
        "model",
        "setting",
        "strategy",
        "devices",
        "rank",
        "host",
        "others wait longer by",
        "of the step",
    ]
    table = Table("Ranks that the others wait for", head, rows)
    return without_constant(table, ("setting",))
