"""Stragglers: which rank the others wait for, on which host, and how long."""

from dataclasses import dataclass

from hpcgeo.measured import Wait
from hpcgeo.records import Record
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.formatting import counted, percent, seconds
from hpcgeo_analysis.points import StudyPoint

#: Stragglers that get a sentence, those waited for longest.
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


def figure(study: Study) -> Figure:
    """Return a sentence for each straggler, or how waits are recorded."""
    waited = [point for point in study.points if point.all(lambda record: record.wait)]
    found = sorted((late for p in waited for late in stragglers(p)), key=lambda one: -one.late_s)
    if not waited:
        hint = "For stragglers: hpcgeo-profile run RECIPE on several ranks records their waits."
        return Figure("stragglers", "Stragglers", missing=hint)
    if not found:
        many = counted(len(waited), "point")
        return Figure("stragglers", "Stragglers", missing=f"No rank holds up others in {many}.")
    worst = found[0]
    host = f" on {worst.wait.host}" if worst.wait.host else ""
    more = len(found) - SAID
    return Figure(
        "stragglers",
        f"Rank {worst.wait.straggler}{host} holds up the others most",
        sentences=(
            *(_sentence(late, study) for late in found[:SAID]),
            *([f"{counted(more, 'more straggler')} in the records."] if more > 0 else []),
        ),
    )


def stragglers(point: StudyPoint) -> list[Late]:
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


def _sentence(late: Late, study: Study) -> str:
    host = f" on {late.wait.host}" if late.wait.host else ""
    share = f" ({percent(late.share)})" if late.share is not None else ""
    runs = f", in {late.times} of {late.runs} runs" if late.runs > 1 else ""
    return (
        f"{study.called(late.point)} waits "
        f"{seconds(late.late_s)}{share} a step for rank {late.wait.straggler}{host}{runs}."
    )
