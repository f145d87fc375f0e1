"""Stragglers: which rank the others wait for, on which host, and how long."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpcgeo.measured import Wait
from hpcgeo.records import Record
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures.bars import BarPart, BarRow, rows
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.formatting import counted, listed, percent, seconds
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.styles import style

#: Stragglers that get a bar, those waited for longest.
SHOWN = 5


@dataclass(frozen=True)
class Late:
    """A rank that the others waited for: the run where most, and in how many runs of how many."""

    point: StudyPoint
    wait: Wait
    late_s: float
    share: float | None
    times: int
    runs: int

    @property
    def place(self) -> str:
        """The rank and its host."""
        return f"{self.wait.straggler}" + (f" on {self.wait.host}" if self.wait.host else "")


def figure(study: Study) -> Figure:
    """Return a bar for each straggler, or how waits are recorded."""
    waited = [point for point in study.points if point.all(lambda record: record.wait)]
    found = sorted((late for p in waited for late in stragglers(p)), key=lambda one: -one.late_s)
    if not waited:
        hint = "For stragglers: hpcgeo-profile run RECIPE on several ranks records their waits."
        return Figure("stragglers", "Stragglers", missing=hint)
    if not found:
        many = counted(len(waited), "point")
        said = (f"Waits were recorded in {many}.",)
        return Figure("stragglers", "No rank holds up the others", sentences=said)
    worst = found[0]
    more = len(found) - SHOWN
    return Figure(
        "stragglers",
        f"Rank {worst.place} holds up the others most",
        panels=(_draw(study, found[:SHOWN]),),
        caption="How much longer the others wait, a step.",
        sentences=(f"{counted(more, 'more straggler')} in the records.",) if more > 0 else (),
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


def _draw(study: Study, found: Sequence[Late]) -> str:
    bars = []
    for late in found:
        look, record = style(late.point.layout), late.point.first
        share = f"{percent(late.share)} of a step, " if late.share is not None else ""
        tip = f"{share}in {late.times} of {counted(late.runs, 'run')}"
        part = BarPart(1000 * late.late_s, look.css, tip)
        label = f"{late.place}: {late.point.layout}, {study.names[record.model]}, "
        label += counted(late.point.devices, "device")
        value = seconds(late.late_s)
        bars.append(BarRow(late.point.layout, look, label, value, [part], model=record.model))
    said = listed([f"rank {bar.label}, {bar.value}" for bar in bars])
    return rows(
        "Rank",
        "",
        bars,
        lambda value: f"{value:g}",
        axis="ms of a step",
        alt=f"How much longer than a late rank the others wait. {said}.",
    )
