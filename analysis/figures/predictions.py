"""Predicted against measured: memory by cause where both mean the same phase, and whole points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcgeo.records import SOFT
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures.axes import SMALL, WIDTH
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.memory import CAUSES
from hpcgeo_analysis.formatting import counted, listed, times
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.separation import TRANSPORT
from hpcgeo_analysis.styles import style
from hpcgeo_analysis.svg import Canvas, Scale, mark, path, tip

#: A prediction further off than this fraction is named.
OFF = 0.1

#: What a prediction need not know: versions, variables, and options that no formula takes.
_FREE = ("kind", TRANSPORT, *SOFT, "options")

#: Ratios of a layout that all get a mark.
MANY = 8

#: Pixels of a row of the figure, and where its axis begins.
ROW, LEFT = 19.0, 128.0
_TICKS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

TOGETHER, RATE, PEAK = "memory of all causes", "images/s", "peak memory"


@dataclass(frozen=True)
class Ratio:
    """Predicted over measured: of what, at which point."""

    what: str
    value: float
    point: StudyPoint

    @property
    def off(self) -> float:
        return max(self.value, 1 / self.value)


def figure(study: Study) -> Figure | None:
    """Return the ratios of predicted to measured; None where nothing was predicted."""
    known = [point for point in study.points if point.memory and point.predicted_memory]
    alike = [point for point in known if point.predictable]
    found = [ratio for point in alike for ratio in _by_cause(point)] + [*_whole(study.points)]
    elsewhere = _elsewhere([point for point in known if point not in alike])
    if not found:
        return Figure("predictions", "Predicted", missing=elsewhere) if elsewhere else None
    return Figure(
        "predictions",
        _claim(found),
        panels=(_draw(found, study),),
        caption="Predicted over measured; a mark is a point.",
        sentences=tuple(_sentences(found, study)),
        footnotes=(("*", elsewhere),) if elsewhere else (),
    )


def _elsewhere(points: Sequence[StudyPoint]) -> str:
    """Return how many predictions have no measured counterpart, and why; empty for none."""
    if not points:
        return ""
    many = counted(len(points), "prediction")
    if all(point.memory and point.memory.phase for point in points):
        return f"{many} of forward and backward: the peak lies elsewhere in the step."
    return f"{many} left out: the records do not say in which phase memory peaked."


def _by_cause(point: StudyPoint) -> Iterator[Ratio]:
    form, found = point.predicted_memory, point.memory
    both = {cause: (getattr(form, cause), getattr(found, cause)) for cause in CAUSES}
    known = {cause: pair for cause, pair in both.items() if pair[0] is not None}
    for cause, (said, was) in known.items():
        if said and was:
            yield Ratio(CAUSES[cause][0], said / was, point)
    measured = [was for _, was in known.values() if was is not None]
    if sum(measured) and len(measured) == len(known):
        yield Ratio(TOGETHER, sum(said for said, _ in known.values()) / sum(measured), point)


def _whole(points: Sequence[StudyPoint]) -> Iterator[Ratio]:
    """Yield the ratios of points of kind `predicted` to those that ran."""
    ran: dict[tuple[object, ...], list[StudyPoint]] = {}
    for point in points:
        if point.first.kind != "predicted":
            ran.setdefault(_place(point), []).append(point)
    for point in points:
        for other in ran.get(_place(point), []) if point.first.kind == "predicted" else ():
            if point.images_per_s and other.images_per_s:
                yield Ratio(RATE, point.images_per_s / other.images_per_s, other)
            alike = point.memory_source == other.memory_source
            if alike and point.memory_bytes and other.memory_bytes:
                yield Ratio(PEAK, point.memory_bytes / other.memory_bytes, other)


def _place(point: StudyPoint) -> tuple[object, ...]:
    context = dict(zip(CONTEXT, point.context, strict=True))
    record = point.first
    sizes = (record.world_size, record.nodes, record.micro_batch, record.accumulate)
    return (*(context[name] for name in CONTEXT if name not in _FREE), point.layout, *sizes)


def _claim(found: Sequence[Ratio]) -> str:
    """Return between which factors the predictions of what decides lie."""
    for what in (TOGETHER, RATE, PEAK):
        values = sorted(ratio.value for ratio in found if ratio.what == what)
        if values:
            outside = len(values) // 10  # of many, at either end
            low, high = times(values[outside]), times(values[-1 - outside])
            extent = low if low == high else f"{low.removesuffix(' x')} to {high}"
            most = ", eight of ten" if outside else ""
            return f"Predicted {what}: {extent} of measured{most}"
    return "Predicted against measured"


def _sentences(found: Sequence[Ratio], study: Study) -> Iterator[str]:
    """Yield what is furthest off, of the causes and of whole points."""
    causes = [ratio for ratio in found if _is_cause(ratio)]
    for chosen in (causes, [ratio for ratio in found if not _is_cause(ratio)]):
        worst = max(chosen, key=lambda ratio: ratio.off, default=None)
        if worst and worst.off > 1 + OFF:
            name = study.called(worst.point)
            yield f"Furthest off: {worst.what} of {name}, {times(worst.value)} of measured."


def _is_cause(ratio: Ratio) -> bool:
    return ratio.what not in (TOGETHER, RATE, PEAK)


def _few(alike: Sequence[Ratio]) -> Iterator[Ratio]:
    """Yield of each layout its ratios; of many the lowest, the middle and the highest."""
    layouts: dict[tuple[str, str], list[Ratio]] = {}
    for ratio in sorted(alike, key=lambda one: one.value):
        layouts.setdefault((ratio.point.layout, ratio.point.first.model), []).append(ratio)
    for own in layouts.values():
        yield from own if len(own) <= MANY else (own[0], own[len(own) // 2], own[-1])


def _draw(found: Sequence[Ratio], study: Study) -> str:
    names = (*(name for name, _ in CAUSES.values()), TOGETHER, PEAK, RATE)
    shown = [name for name in names if any(ratio.what == name for ratio in found)]
    values = [ratio.value for ratio in found]
    bottom = 8 + ROW * len(shown)
    canvas = Canvas(WIDTH, bottom + 20)
    x = Scale(min([0.5, *values]), max([2.0, *values]), LEFT, WIDTH - 12, 2)
    for value in (tick for tick in _TICKS if x.low <= tick <= x.high):
        css = "axis" if value == 1 else "grid"
        canvas.add(path([(x(value), 4), (x(value), bottom)], class_=css))
        canvas.text(x(value), bottom + 13, f"{value:g} x", "muted", "middle", SMALL)
    for row, what in enumerate(shown):
        y = 8 + ROW * (row + 0.5)
        canvas.text(LEFT - 8, y + 3.5, what, "", "end", SMALL)
        for ratio in _few([one for one in found if one.what == what]):
            look = style(ratio.point.layout)
            said = tip(f"{what} of {study.called(ratio.point)}: {times(ratio.value)}")
            owner = {"data_line": ratio.point.layout, "data_model": ratio.point.first.model}
            where = (x(ratio.value), y)
            canvas.add(mark(look.mark, *where, said, style=f"fill:{look.css}", **owner))
    parts = [
        f"{what} {times(min(own))} to {times(max(own))}"
        for what in shown
        if (own := [ratio.value for ratio in found if ratio.what == what])
    ]
    return canvas.svg(f"Predicted over measured. {listed(parts)}.")
