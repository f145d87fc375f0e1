"""Predicted against measured: memory by cause, and whole points of kind `predicted`."""

from collections import Counter
from collections.abc import Sequence

from hpcgeo.measured import Memory
from hpcgeo.records import SOFT
from hpcgeo_analysis.blocks import ReportBlock, Section, Study, name
from hpcgeo_analysis.formatting import NOT_MEASURED, counted, gib, rate, times
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.sections.memory import CAUSE
from hpcgeo_analysis.separation import TRANSPORT
from hpcgeo_analysis.tables import (
    Table,
    TableCell,
    layout,
    number,
    text,
    valued,
    whole,
    without_constant,
    without_empty,
)

#: A prediction further off than this fraction is named.
OFF = 0.1

#: What a prediction need not know: software, variables, and options that a formula does not take.
_FREE = ("kind", TRANSPORT, *SOFT, "options")


def section(study: Study) -> Section:
    """Return ratios of predicted to measured, where both exist."""
    blocks = [_memory(study), _speed(study)]
    missing = "Nothing was predicted that was measured too."
    found = [block for block in blocks if not block.empty]
    return Section("predictions", "Predicted against measured", "", found, missing)


def _memory(study: Study) -> ReportBlock:
    both_known = [point for point in study.points if point.memory and point.predicted_memory]
    points = [point for point in both_known if point.predictable]
    rows: list[list[TableCell]] = []
    ratios: list[tuple[float, StudyPoint]] = []
    for point in points:
        found, predicted = point.memory, point.predicted_memory
        if found is None or predicted is None:
            continue
        both = _together(predicted, predicted), _together(found, predicted)
        whole_ratio = _ratio(*both)
        if whole_ratio is not None:
            ratios.append((whole_ratio, point))
        rows.append(
            [
                text(point.first.model),
                layout(point),
                whole(point.devices),
                text(study.setting(point), "line"),
                *(_cell(_ratio(getattr(predicted, key), getattr(found, key))) for key in CAUSE),
                _cell(whole_ratio),
                *(valued(gib, value) for value in both),
                valued(gib, next(iter(point.held.values()), None)),
            ]
        )
    said = _elsewhere([point for point in both_known if not point.predictable])
    if not rows:
        return ReportBlock("Memory", said)
    names = [cause for cause, _ in CAUSE.values()]
    head = ["model", "strategy", "devices", "setting", *names, "together", "predicted (GiB)"]
    head += ["measured (GiB)", "peak (GiB)"]
    caption = "Memory: predicted over measured, by cause; together are the causes known to both"
    table = without_empty(Table(caption, head, rows), head[3:])
    said = [*_extent("Memory of all causes together", ratios), *_worst(points), *said]
    return ReportBlock("Memory", said, (), [without_constant(table, ("setting",))])


def _elsewhere(points: Sequence[StudyPoint]) -> list[str]:
    """Return how many points are at their peak where the closed form says nothing."""
    phases = Counter(point.memory.phase if point.memory else None for point in points)
    return [
        f"{counted(count, 'point')} at the peak in {phase.replace('_', ' ')}: not compared, the "
        "closed form describes forward and backward."
        if phase
        else f"{counted(count, 'point')} without the phase of the peak: not compared."
        for phase, count in phases.items()
    ]


def _worst(points: Sequence[StudyPoint]) -> list[str]:
    """Return which cause is predicted worst, where it is further off than `OFF`."""
    ratios = []
    for point in points:
        found, predicted = point.memory, point.predicted_memory
        for key, (cause, _) in CAUSE.items():
            ratio = _ratio(getattr(predicted, key, None), getattr(found, key, None))
            if ratio and abs(ratio - 1) > OFF:
                ratios.append((max(ratio, 1 / ratio), ratio, cause, point))
    if not ratios:
        return []
    _, ratio, cause, point = max(ratios, key=lambda row: row[0])
    return [f"Furthest off by cause: {cause} of {name(point)}, {times(ratio)} of measured."]


def _together(found: Memory, predicted: Memory) -> int | None:
    """Return the bytes of the causes that were predicted, where all of them are known."""
    values = [getattr(found, key) for key in CAUSE if getattr(predicted, key) is not None]
    return sum(values) if values and None not in values else None


def _speed(study: Study) -> ReportBlock:
    points = study.points
    measured: dict[tuple[object, ...], list[StudyPoint]] = {}
    for point in points:
        if point.first.kind != "predicted":
            measured.setdefault(_place(point), []).append(point)
    rows: list[list[TableCell]] = []
    ratios: list[tuple[float, StudyPoint]] = []
    for point in points:
        if point.first.kind != "predicted":
            continue
        for other in measured.get(_place(point), []):
            ratio = _ratio(point.images_per_s, other.images_per_s)
            if ratio is not None:
                ratios.append((ratio, other))
            rows.append(
                [
                    text(point.first.model),
                    layout(other),
                    whole(point.devices),
                    text(study.setting(other), "line"),
                    text(other.first.kind),
                    valued(rate, point.images_per_s),
                    valued(rate, other.images_per_s),
                    _cell(ratio),
                    valued(gib, point.memory_bytes),
                    valued(gib, other.memory_bytes),
                    _memory_ratio(point, other),
                ]
            )
    if not rows:
        return ReportBlock()
    head = [
        "model",
        "strategy",
        "devices",
        "setting",
        "against",
        "predicted images/s",
        "images/s",
        "ratio",
    ]
    head += ["predicted memory (GiB)", "memory (GiB)", "ratio of memory"]
    table = without_empty(Table("Whole points", head, rows), head[4:])
    said = _extent("Throughput", ratios)
    return ReportBlock("Throughput", said, (), [without_constant(table, ("setting", "against"))])


def _memory_ratio(predicted: StudyPoint, found: StudyPoint) -> TableCell:
    """Return the ratio of peaks of one kind; of two kinds it would say nothing."""
    kinds = [point.memory_source for point in (predicted, found) if point.memory_bytes]
    if len(set(kinds)) == 2:
        return number(f"not alike: {' and '.join(map(str, kinds))}", None)
    return _cell(_ratio(predicted.memory_bytes, found.memory_bytes))


def _place(point: StudyPoint) -> tuple[object, ...]:
    context = dict(zip(CONTEXT, point.context, strict=True))
    record = point.first
    sizes = (record.world_size, record.nodes, record.micro_batch, record.accumulate)
    return (*(context[name] for name in CONTEXT if name not in _FREE), point.layout, *sizes)


def _extent(what: str, ratios: Sequence[tuple[float, StudyPoint]]) -> list[str]:
    if not ratios:
        return []
    (low, lowest), (high, highest) = min(ratios, key=_first), max(ratios, key=_first)
    on = counted(len(ratios), "point")
    found = [f"{what}: predicted is {times(low)} to {times(high)} of measured in {on}."]
    if len(ratios) == 1:
        found = [f"{what}: predicted is {times(low)} of measured ({name(lowest)})."]
    elif low < 1 - OFF or high > 1 + OFF:
        ratio, worst = (low, lowest) if 1 / low > high else (high, highest)
        found.append(f"Furthest off is {name(worst)}: {times(ratio)}.")
    return found


def _first(pair: tuple[float, StudyPoint]) -> float:
    return pair[0]


def _ratio(predicted: float | None, measured: float | None) -> float | None:
    return predicted / measured if predicted is not None and measured else None


def _cell(ratio: float | None) -> TableCell:
    if ratio is None:
        return number(NOT_MEASURED, None)
    return number(times(ratio), ratio, "noisy" if abs(ratio - 1) > OFF else "")
