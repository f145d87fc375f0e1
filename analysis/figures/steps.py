"""Where a step goes: bars as long as the measured step, divided as its trace was."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hpcgeo.records import SOFT
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures.bars import BarPart, BarRow, left_out, rows, some
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.panels import MOST, Footnotes, PanelPoint, PointPanel, of_points
from hpcgeo_analysis.formatting import listed, percent, seconds
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.separation import merged
from hpcgeo_analysis.styles import style

#: Causes of time in a traced step with their colours; together they are the step.
CAUSES = {
    "compute_s": ("compute", "var(--part-compute)"),
    "exposed_comm_s": ("exposed communication", "var(--part-exchange)"),
    "host_to_device_s": ("host to device", "var(--part-copies)"),
    "data_wait_s": ("data", "var(--part-data)"),
    "idle_s": ("idle", "var(--part-idle)"),
}
#: The same of a step that was timed by phase, but not traced.
PHASES = {
    "forward_s": ("forward", "var(--part-parameters)"),
    "teacher_s": ("teacher", "var(--part-frozen)"),
    "backward_s": ("backward, with its collectives", "var(--part-gradients)"),
    "optimizer_s": ("optimizer", "var(--part-optimizer)"),
    "augmentation_s": ("augmentation", "var(--part-activations)"),
    "collate_s": ("collate", "var(--part-gathered)"),
    "host_to_device_s": ("host to device", "var(--part-copies)"),
    "data_wait_s": ("data", "var(--part-data)"),
    "other_s": ("other", "var(--part-other)"),
}
#: From this factor of the traced to the measured step a badge says it; above `SLOWED` the shares
#: carry no sentence.
BADGE, SLOWED = 1.1, 1.15
#: Share of a step from which a cause is worth a sentence.
WORTH = 0.05


@dataclass(frozen=True)
class Divided:
    """A point whose step is known by cause: each as a share, and how much slower tracing was."""

    row: PanelPoint
    step_s: float
    shares: dict[str, float]
    factor: float

    @property
    def trusted(self) -> bool:
        """Whether a sentence may rest on the shares."""
        return self.factor <= SLOWED and not self.row.point.marks


def figure(study: Study) -> Figure:
    """Return bars of steps: by cause where a trace divides them, else by phase."""
    for part, causes, how in (
        ("activity", CAUSES, "divided as its trace"),
        ("phases", PHASES, "divided by phase"),
    ):
        notes = Footnotes()
        shown = of_points(study, partial(_shares, part=part, causes=causes), notes)[:MOST]
        if shown:
            known = [_divided(panel, part, causes) for panel in shown]
            every = [one for own in known for one in own]
            used = {cause for one in every for cause in one.shares}
            return Figure(
                "steps",
                _claim(every),
                panels=tuple(_draw(*both, causes) for both in zip(shown, known, strict=True)),
                legend=tuple(look for cause, look in causes.items() if cause in used),
                caption=f"A bar is as long as the measured step, {how}.",
                sentences=(*_sentences(every, causes), *_switched_off(study)),
                footnotes=notes.all,
            )
    hint = "To see where a step goes: hpcgeo-profile run RECIPE, whose records hold a trace."
    return Figure("steps", "Where a step goes", missing=hint)


def _shares(point: StudyPoint, part: str, causes: Mapping[str, object]) -> dict[str, float]:
    """Return the causes of a step as shares of it; empty where they are not known."""
    times = point.typical(part) if point.step_s else None
    whole = sum(times.get(cause, 0.0) for cause in causes) if times else 0.0
    if not times or not whole:
        return {}
    return {cause: times[cause] / whole for cause in causes if times.get(cause)}


def _divided(panel: PointPanel, part: str, causes: Mapping[str, object]) -> list[Divided]:
    found = []
    for row in panel.rows:
        point = row.point
        times = point.typical(part)
        assert times and point.step_s
        factor = times["step_s"] / point.step_s if part == "activity" else 1.0
        found.append(Divided(row, point.step_s, _shares(point, part, causes), factor))
    return found


def _draw(
    panel: PointPanel, known: Sequence[Divided], causes: Mapping[str, tuple[str, str]]
) -> str:
    unit, factor = ("s", 1.0) if max(one.step_s for one in known) >= 1 else ("ms", 1000.0)
    bars = []
    for one in some(known, lambda one: one.row.point.devices, lambda one: one.step_s):
        parts = [
            BarPart(
                factor * one.step_s * share,
                causes[cause][1],
                f"{causes[cause][0]}: {percent(share)}, {seconds(share * one.step_s)}",
            )
            for cause, share in one.shares.items()
        ]
        badge = f"traced {one.factor:.2f} x" if one.factor >= BADGE else ""
        line = one.row.line
        bars.append(BarRow(line, style(line), one.row.label, seconds(one.step_s), parts, badge))
    said = [
        f"{bar.label} {bar.value}, of it {listed([part.tip for part in bar.parts])}" for bar in bars
    ]
    return rows(
        panel.title,
        panel.below + left_out(len(known) - len(bars)),
        bars,
        lambda value: f"{value:g}",
        axis=f"{unit} of a step",
        alt=f"Measured steps of {panel.title}. {'; '.join(said)}.",
        model=panel.model,
    )


def _claim(known: Sequence[Divided]) -> str:
    """Return whom communication holds up most, where tracing did not slow it."""
    trusted = [one for one in known if one.trusted]
    most = max(trusted, key=lambda one: one.shares.get("exposed_comm_s", 0.0), default=None)
    if most is None or most.shares.get("exposed_comm_s", 0.0) < WORTH:
        return "Where a step goes"
    return f"Communication holds up {most.row.name}"


def _sentences(known: Sequence[Divided], causes: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Yield where each cause beside compute takes most, if it takes much."""
    plain = ("compute_s", "forward_s", "backward_s", "optimizer_s", "other_s")
    trusted = [one for one in known if one.trusted]
    for cause, (name, _) in causes.items():
        most = max(trusted, key=lambda one: one.shares.get(cause, 0.0), default=None)
        share = most.shares.get(cause, 0.0) if most else 0.0
        if most and cause not in plain and share >= WORTH:
            first = f"{name[0].upper()}{name[1:]}"
            yield f"{first} takes up to {percent(share)} of a step: {most.row.name}."


@dataclass(frozen=True)
class PointPair:
    """Two points alike but in one thing that the second left out, and what that saves."""

    whole: StudyPoint
    without: StudyPoint

    @property
    def share(self) -> float:
        """What the second saves, of the step of the first."""
        assert self.whole.step_s and self.without.step_s
        return 1 - self.without.step_s / self.whole.step_s

    @property
    def told(self) -> bool:
        """Whether their spreads lie apart."""
        first, second = self.whole.step_range, self.without.step_range
        if first is None or second is None:
            return False
        return first[0] > second[1] or second[0] > first[1]


def pairs(points: Sequence[StudyPoint], key: str, plain: str, without: str) -> list[PointPair]:
    """Return the points that differ in one key alone, e.g. communication on and off."""
    place = CONTEXT.index(key)
    sides: dict[tuple[object, ...], dict[str, StudyPoint]] = {}
    for point in points:
        record = point.first
        rest = merged(point.context, (key, *SOFT))
        sizes = (record.world_size, record.nodes, record.micro_batch, record.accumulate)
        if point.step_s:
            sides.setdefault((rest, point.layout, *sizes), {})[point.context[place]] = point
    return [
        PointPair(side[plain], side[without])
        for side in sides.values()
        if {plain, without} <= {*side}
    ]


def _switched_off(study: Study) -> Iterator[str]:
    """Yield how much shorter steps are without communication, and without reading."""
    for key, plain, without, what in (
        ("communication", "on", "off", "communication"),
        ("data", "shards", "cached", "reading"),
    ):
        found = [
            pair
            for pair in pairs(study.points, key, plain, without)
            if pair.told and pair.share > 0 and not (pair.whole.marks or pair.without.marks)
        ]
        if found:
            most = max(found, key=lambda pair: pair.share)
            share, name = percent(most.share), study.called(most.whole)
            yield f"Without {what} a step is up to {share} shorter: {name}."
