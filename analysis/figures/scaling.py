"""Images per second against devices: what each line keeps, and where it loses."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hpcgeo_analysis import messages
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.figures import axes
from hpcgeo_analysis.figures.axes import SMALL, WIDTH, Curve, Place
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.panels import MOST, ModelPanel, PanelLine, footnotes, panels
from hpcgeo_analysis.formatting import counted, digits, listed, percent, rate, size
from hpcgeo_analysis.svg import Canvas, Scale, box, nearest, path, width

#: A line loses between two neighbours where its rate per device falls by more than this.
LOSS = 0.15

#: Pixels: left of the axis, from the top to it, its height, and below it.
LEFT, TOP, HEIGHT, FOOT = 38.0, 38.0, 184.0, 20.0

#: From this factor between the largest and the smallest value an axis is logarithmic.
WIDE = 8.0


@dataclass(frozen=True)
class Drop:
    """Two neighbours of a line, between which it loses `share` of its rate per device."""

    before: Scaled
    after: Scaled
    share: float


@dataclass(frozen=True)
class View:
    """One way to look at a line: the value of a point, and of its ends of the spread.

    Attributes:
        value: of a rate at a point, in units of the axis.
        ideal: the value of an ideal line at so many devices on so many nodes, or None.
        words: a value as a tick says it; `unit` follows it.
        drops: whether losses are written beside the lines.
        logarithmic: whether the axis may be.
    """

    key: str
    label: str
    axis: str
    value: Callable[[Scaled, float], float]
    ideal: Callable[[Scaled], float] | None
    words: Callable[[float], str]
    drops: bool = False
    logarithmic: bool = False


def figure(study: Study) -> Figure:
    """Return a panel of every model with more than one number of devices."""
    found = [panel for panel in panels(study) if any(_grows(line) for line in panel.lines)]
    if not found:
        return Figure(
            "scaling",
            "Scaling",
            missing="For a scaling curve, measure the same model on two numbers of devices: "
            "hpcgeo-profile sweep with `ranks: [1, 2, 4]`.",
        )
    shown = found[:MOST]
    views = _views(shown[0])
    caption = f"Dashed: ideal. Red: a loss over {percent(LOSS)} between neighbours."
    sentences = [*_kept(shown), *_messages(shown)]
    if len(found) > len(shown):
        sentences.append(f"{counted(len(found) - len(shown), 'more comparison')} in the table.")
    return Figure(
        "scaling",
        _claim(shown),
        panels=tuple(_draw(panel) for panel in shown),
        views=tuple((view.key, view.label) for view in views),
        caption=caption,
        sentences=tuple(sentences),
        footnotes=footnotes(shown),
    )


def drops(members: Sequence[Scaled]) -> list[Drop]:
    """Return where a line loses more than `LOSS` between neighbours, beyond its spread."""
    found = []
    for before, after in pairwise([s for s in members if s.point.per_device]):
        first, second = before.point, after.point
        assert first.per_device and second.per_device
        share = 1 - second.per_device / first.per_device
        if share <= LOSS or first.devices == second.devices:
            continue
        if first.range and second.range:
            low, high = first.range[0] / first.devices, second.range[1] / second.devices
            if high >= low:
                continue
        found.append(Drop(before, after, share))
    return found


def _grows(line: PanelLine) -> bool:
    return len({scaled.point.devices for scaled in _timed(line)}) > 1


def _timed(line: PanelLine) -> list[Scaled]:
    return [scaled for scaled in line.members if scaled.point.images_per_s]


def _views(panel: ModelPanel) -> tuple[View, ...]:
    """Return the ways to look at a panel; the rate is in images per second of all devices."""
    competing = [s for line in panel.alike or panel.lines for s in _timed(line)]
    least = min(scaled.point.devices for scaled in competing)
    best = max(s.point.images_per_s or 0 for s in competing if s.point.devices == least) / least
    noun = panel.comparison.noun

    def per_device(scaled: Scaled, rate: float) -> float:
        return 100 * rate / scaled.point.devices / best

    def efficiency(scaled: Scaled, rate: float) -> float:
        base = scaled.base.per_device if scaled.base else None
        return 100 * rate / scaled.point.devices / base if base else float("nan")

    def node_hours(scaled: Scaled, rate: float) -> float:
        return 1e6 * scaled.point.nodes / rate / 3600

    return (
        View(
            "per_device",
            "per device",
            f"percent of {rate(best)} {noun}/s per device, the best on {least:,}",
            per_device,
            lambda _: 100.0,
            _percent,
            drops=True,
        ),
        View(
            "total",
            "total",
            f"{noun}/s of all devices",
            lambda _, rate: rate,
            lambda scaled: best * scaled.point.devices,
            _short,
            logarithmic=True,
        ),
        View(
            "efficiency",
            "efficiency",
            "percent of each line's own smallest run",
            efficiency,
            lambda _: 100.0,
            _percent,
            drops=True,
        ),
        View(
            "node_hours",
            "node-hours",
            f"node-hours per million {noun}; less is better",
            node_hours,
            None,
            _short,
            logarithmic=True,
        ),
    )


def _percent(value: float) -> str:
    return f"{value:.0f} %"


def _short(value: float) -> str:
    """Return a value of an axis with few letters.

    >>> _short(120_000), _short(2_500), _short(12.5), _short(0.5)
    ('120k', '2.5k', '12.5', '0.5')
    """
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _draw(panel: ModelPanel) -> str:
    lines = [line for line in panel.lines if _timed(line)]
    room = axes.label_room([line.label for line in lines])
    canvas = Canvas(WIDTH, TOP + HEIGHT + FOOT)
    title = panel.model
    canvas.text(0, 12, axes.fitted(title, WIDTH, 12.5), font=12.5, bold=True)
    counts = sorted({s.point.devices for line in lines for s in _timed(line)})
    x = Scale(counts[0], counts[-1], LEFT, WIDTH - room - 8, 2)
    for number, view in enumerate(_views(panel)):
        shown = "off" if number else None
        with canvas.group(alone=True, data_view=view.key, class_=shown):
            _view(canvas, x, counts, lines, view, panel)
    return canvas.svg(_alt(panel, lines), data_model=panel.model)


def _view(
    canvas: Canvas,
    x: Scale,
    counts: Sequence[int],
    lines: Sequence[PanelLine],
    view: View,
    panel: ModelPanel,
) -> None:
    curves = [_curve(line, view, panel.comparison.noun) for line in lines]
    known = [(line, curve) for line, curve in zip(lines, curves, strict=True) if curve.places]
    if not known:
        canvas.text(LEFT, TOP + 20, "one size a line", "muted", font=SMALL)
        return
    values = [v for _, curve in known for p in curve.places for v in (p.low or p.y, p.high or p.y)]
    ideal = _ideal(lines, view)
    values += [value for _, value in ideal]
    y = _scale(values, view)
    canvas.text(0, 27, view.axis, "muted", font=SMALL)
    axes.horizontal(canvas, y, x, y.ticks(5), view.words)
    axes.below(canvas, y, x, counts, lambda value: f"{value:,.0f}")
    last = width(f"{counts[-1]:,}", SMALL) / 2
    canvas.text(x.end + last + 7, y.start + 15, "devices", "muted", font=SMALL)
    if len(ideal) > 1:
        canvas.add(path([(x(at), y(value)) for at, value in ideal], class_="ideal"))
    axes.draw(canvas, x, y, [curve for _, curve in known])
    if view.drops:
        _write_drops(canvas, x, y, known)


def _curve(line: PanelLine, view: View, noun: str) -> Curve:
    places = []
    for scaled in _timed(line):
        point = scaled.point
        assert point.images_per_s and point.per_device
        value = view.value(scaled, point.images_per_s)
        if value != value:
            continue
        low, high = (
            (sorted(view.value(scaled, r) for r in point.range))
            if point.range
            else (
                None,
                None,
            )
        )
        said = f"{line.name}, {counted(point.devices, 'device')}: "
        said += f"{rate(point.per_device)} {noun}/s per device, {rate(point.images_per_s)} in all"
        said += f", {point.mark}" if point.mark else ""
        hollow = bool(point.mark or line.unlike)
        places.append(Place(point.devices, value, said, low, high, hollow))
    return Curve(line.label, line.name, line.look, places, line.baseline)


def _ideal(lines: Sequence[PanelLine], view: View) -> list[tuple[float, float]]:
    if view.ideal is None:
        return []
    found = {s.point.devices: view.ideal(s) for line in lines for s in _timed(line)}
    return sorted(found.items())


def _scale(values: Sequence[float], view: View) -> Scale:
    low, high = min(values), max(values)
    start, end = TOP + HEIGHT, TOP + 4
    if view.logarithmic and high / low >= WIDE:
        return Scale(low / 1.1, high * 1.1, start, end, 10)
    return Scale(0, max(high, 1e-9) * 1.04, start, end)


def _write_drops(
    canvas: Canvas, x: Scale, y: Scale, known: Sequence[tuple[PanelLine, Curve]]
) -> None:
    """Write losses beside the falling parts of lines, the largest first."""
    drawn = [[(x(p.x), y(p.y)) for p in curve.places] for _, curve in known]
    found = [
        (drop, line, curve)
        for line, curve in known
        if not line.baseline
        for drop in drops(_timed(line))
    ]
    for drop, line, curve in sorted(found, key=lambda one: -one[0].share):
        ends = [
            p for p in curve.places if p.x in (drop.before.point.devices, drop.after.point.devices)
        ]
        middle = (
            sum(x(p.x) for p in ends) / len(ends),
            sum(y(p.y) for p in ends) / len(ends),
        )
        words = f"-{percent(drop.share)}"
        spot = nearest(canvas, words, middle, drawn, bold=True, reach=40)
        if spot:
            ground = box(*spot, words, "middle", bold=True)
            if not ground.near(middle, 7):
                canvas.add(
                    path([middle, ground.edge(middle)], class_="points", data_line=line.name)
                )
            canvas.text(*spot, words, "loss", "middle", bold=True, data_line=line.name)


def _claim(shown: Sequence[ModelPanel]) -> str:
    """Return where which strategy loses most, or what all of them keep."""
    worst = [
        (drop.share, line.name, drop)
        for panel in shown
        for line in panel.alike
        for drop in drops(_clear(line))
    ]
    if worst:
        _, name, _ = max(worst, key=lambda one: one[0])
        firsts = [
            found[0]
            for panel in shown
            for line in panel.alike
            if line.name == name and (found := drops(_clear(line)))
        ]
        counts = sorted({drop.before.point.devices for drop in firsts})
        past = f"{counts[0]:,} to " * (len(counts) > 1)
        return f"{name} breaks past {past}{counted(counts[-1], 'device')}"
    kept = [s.efficiency for p in shown for line in p.alike for s in line.members if s.efficiency]
    if not kept:
        return "How the rate grows with the devices"
    return f"Every strategy keeps at least {percent(min(kept))} of its rate per device"


def _clear(line: PanelLine) -> list[Scaled]:
    return [scaled for scaled in _timed(line) if not scaled.point.mark]


def _kept(shown: Sequence[ModelPanel]) -> Iterator[str]:
    """Yield which strategy keeps most of its rate per device on the most devices."""
    ends: dict[tuple[str, int], list[float]] = {}
    for panel in shown:
        for line in panel.alike:
            last = line.members[-1]
            if last.efficiency is not None and _grows(line) and not last.point.mark:
                ends.setdefault((line.name, last.point.devices), []).append(last.efficiency)
    if not ends:
        return
    most = max(devices for _, devices in ends)
    rivals = {name: shares for (name, devices), shares in ends.items() if devices == most}
    if len(rivals) < 2:
        return
    often = max(len(shares) for shares in rivals.values())
    usual = [(name, shares) for name, shares in rivals.items() if 2 * len(shares) >= often]
    name, shares = max(usual, key=lambda one: min(one[1]))
    low, high = percent(min(shares)), percent(max(shares))
    extent = low if low == high else f"{low.removesuffix(' %')} to {high}"
    yield f"{name} keeps {extent} of its rate per device to {counted(most, 'device')}."


def _messages(shown: Sequence[ModelPanel]) -> Iterator[str]:
    """Yield how small the messages are where a sharded line breaks first."""
    sizes: dict[tuple[str, str, bool], list[float]] = {}
    for panel in shown:
        for line in panel.alike:
            for drop in drops(_clear(line))[:1]:
                large = messages.of_point(drop.before.point)
                message = messages.of_point(drop.after.point)
                if message and large and message.rank_bytes < large.rank_bytes:
                    key = (line.name, message.collective, message.measured)
                    sizes.setdefault(key, []).append(message.rank_bytes)
    for (name, collective, measured), found in sizes.items():
        low, high = size(min(found)), size(max(found))
        extent = low if low == high else f"{low} to {high}"
        how = "measured" if measured else "computed"
        yield f"{name} breaks where its {collective} messages fall to {extent} a rank ({how})."


def _alt(panel: ModelPanel, lines: Sequence[PanelLine]) -> str:
    parts = []
    for line in lines:
        last = line.members[-1]
        if last.point.per_device:
            parts.append(
                f"{line.label} {digits(last.point.per_device)} on {last.point.devices:,} devices"
            )
    noun = panel.comparison.noun
    return f"{panel.model}: {noun}/s per device against devices. {listed(parts)}."
