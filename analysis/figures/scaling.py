"""Images per second against devices: what each line keeps, and where it loses."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpcgeo_analysis import messages
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.figures import axes
from hpcgeo_analysis.figures.axes import SMALL, WIDTH, DrawnLine, Place
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.panels import MOST, Footnotes, LinePanel, PanelLine, of_lines
from hpcgeo_analysis.formatting import counted, digits, listed, percent, rate, size
from hpcgeo_analysis.svg import Canvas, Scale, box, mark, nearest, path
from hpcgeo_analysis.winners import LOSS, LineLoss, losses_of

#: Pixels: left of the axis, from the top to it, its height, and below it.
LEFT, TOP, HEIGHT, FOOT = 38.0, 38.0, 184.0, 20.0

#: From this factor between the largest and the smallest value an axis is logarithmic.
WIDE = 8.0


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
    found = of_lines(study)
    if not found:
        return Figure(
            "scaling",
            "Scaling",
            missing="For scaling, measure a model on two numbers of devices: hpcgeo-profile sweep.",
        )
    shown, notes = _fullest(found), Footnotes()
    views = _views(shown[0])
    caption = f"Dashed: ideal. Red: a loss over {percent(LOSS)} between neighbours."
    sentences = [*_kept(shown), *_messages(shown)]
    if len(found) > len(shown):
        sentences.append(f"{counted(len(found) - len(shown), 'more comparison')} in the table.")
    return Figure(
        "scaling",
        _claim(shown),
        panels=tuple(_draw(panel, notes) for panel in shown),
        views=tuple((view.key, view.label) for view in views),
        caption=caption,
        sentences=tuple(sentences),
        footnotes=notes.all,
    )


def _fullest(found: Sequence[LinePanel]) -> list[LinePanel]:
    """Return the panels that are drawn: of each model the fullest, then its next."""
    turns: Counter[str] = Counter()
    turn = {}
    for panel in sorted(found, key=lambda panel: -len(panel.comparison.scaled)):
        turn[panel] = turns[panel.model]
        turns[panel.model] += 1
    kept = sorted(found, key=lambda panel: turn[panel])[:MOST]
    return [panel for panel in found if panel in kept]


def _breaks(line: PanelLine) -> list[LineLoss]:
    """Return where a line breaks, at points that are well."""
    found = [loss for loss in losses_of(line.members) if loss.breaks]
    return [] if line.baseline else found


def _clear(line: PanelLine) -> list[LineLoss]:
    return [loss for loss in _breaks(line) if not (line.told(loss.before) or line.told(loss.after))]


def _views(panel: LinePanel) -> tuple[View, ...]:
    """Return the ways to look at a panel; the rate is in images per second of all devices."""
    competing = [s for line in panel.alike or panel.lines for s in line.members]
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

    >>> _short(3e6), _short(120_000), _short(2_500), _short(12.5), _short(0.5)
    ('3M', '120k', '2.5k', '12.5', '0.5')
    """
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _draw(panel: LinePanel, notes: Footnotes) -> str:
    lines = panel.lines
    title = panel.title + notes.signs(panel.common)
    labels = {line: line.label(notes) for line in lines}
    room = axes.label_room(labels.values())
    canvas = axes.headed(TOP + HEIGHT + FOOT, title)
    counts = sorted({s.point.devices for line in lines for s in line.members})
    x = Scale(counts[0], counts[-1], LEFT, WIDTH - room - 8, 2)
    for number, view in enumerate(_views(panel)):
        shown = "off" if number else None
        with canvas.group(alone=True, data_view=view.key, class_=shown):
            _view(canvas, x, counts, labels, view, panel)
    return canvas.svg(_alt(panel, lines), data_model=panel.model)


def _view(
    canvas: Canvas,
    x: Scale,
    counts: Sequence[int],
    labels: Mapping[PanelLine, str],
    view: View,
    panel: LinePanel,
) -> None:
    curves = [_curve(*named, view, panel.comparison.noun) for named in labels.items()]
    known = [(line, curve) for line, curve in zip(labels, curves, strict=True) if curve.places]
    if not known:
        canvas.text(LEFT, TOP + 20, "one size a line", "muted", font=SMALL)
        return
    values = [v for _, curve in known for p in curve.places for v in (p.low or p.y, p.high or p.y)]
    ideal = _ideal([*labels], view)
    values += [value for _, value in ideal]
    y = _scale(values, view)
    canvas.text(0, 27, view.axis, "muted", font=SMALL)
    axes.horizontal(canvas, y, x, y.ticks(5), view.words)
    axes.below(canvas, y, x, counts, lambda value: f"{value:,.0f}")
    axes.named(canvas, y, x, counts[-1], f"{counts[-1]:,}", "devices")
    if len(ideal) > 1:
        canvas.add(path([(x(at), y(value)) for at, value in ideal], class_="ideal"))
    axes.draw(canvas, x, y, [curve for _, curve in known])
    if view.drops:
        _write_drops(canvas, x, y, known)


def _curve(line: PanelLine, label: str, view: View, noun: str) -> DrawnLine:
    places = []
    for scaled in line.members:
        point = scaled.point
        assert point.images_per_s and point.per_device
        value = view.value(scaled, point.images_per_s)
        if value != value:
            continue
        low, high = sorted(view.value(scaled, r) for r in point.range or ()) or (None, None)
        said = f"{line.name}, {counted(point.devices, 'device')}: "
        said += f"{rate(point.per_device)} {noun}/s per device, {rate(point.images_per_s)} in all"
        said += "".join(f", {text}" for text in line.told(scaled))
        hollow = bool(line.told(scaled) or line.unlike)
        places.append(Place(point.devices, value, said, low, high, hollow))
    return DrawnLine(label, line.name, line.look, places, line.baseline)


def _ideal(lines: Sequence[PanelLine], view: View) -> list[tuple[float, float]]:
    if view.ideal is None:
        return []
    found = {s.point.devices: view.ideal(s) for line in lines for s in line.members}
    return sorted(found.items())


def _scale(values: Sequence[float], view: View) -> Scale:
    low, high = min(values), max(values)
    start, end = TOP + HEIGHT, TOP + 4
    if view.logarithmic and high / low >= WIDE:
        return Scale(low / 1.1, high * 1.1, start, end, 10)
    return Scale(0, max(high, 1e-9) * 1.04, start, end)


def _write_drops(
    canvas: Canvas, x: Scale, y: Scale, known: Sequence[tuple[PanelLine, DrawnLine]]
) -> None:
    """Write losses beside the falling parts of lines, the largest first."""
    drawn = [[(x(p.x), y(p.y)) for p in curve.places] for _, curve in known]
    found = [(loss, line, curve) for line, curve in known for loss in _breaks(line)]
    for loss, line, curve in sorted(found, key=lambda one: -one[0].share):
        sizes = (loss.before.point.devices, loss.after.point.devices)
        ends = [place for place in curve.places if place.x in sizes]
        middle = (
            sum(x(p.x) for p in ends) / len(ends),
            sum(y(p.y) for p in ends) / len(ends),
        )
        _write_drop(canvas, f"-{percent(loss.share)}", middle, line, drawn)


def _write_drop(
    canvas: Canvas,
    words: str,
    middle: tuple[float, float],
    line: PanelLine,
    drawn: Sequence[Sequence[tuple[float, float]]],
) -> None:
    """Write a loss with the mark of its line where there is room, and lead to its place."""
    spot = nearest(canvas, f"  {words}", middle, drawn, bold=True, reach=40)
    if spot is None:
        return
    ground = box(*spot, f"  {words}", "middle", bold=True)
    with canvas.group(data_line=line.name):
        if not ground.near(middle, 7):
            canvas.add(path([middle, ground.edge(middle)], class_="points"))
        look = {"class_": "halo", "style": f"fill:{line.look.css}"}
        canvas.add(mark(line.look.mark, ground.left + 4, spot[1] - 4, **look))
        canvas.text(ground.right, spot[1], words, "loss", "end", bold=True)


def _claim(shown: Sequence[LinePanel]) -> str:
    """Return where which strategy loses most, or what all of them keep; noise decides nothing."""
    broken = [(line, found) for p in shown for line in p.alike if (found := _clear(line))]
    if broken:
        name = max(broken, key=lambda one: max(loss.share for loss in one[1]))[0].name
        firsts = [found[0].before for line, found in broken if line.name == name]
        if any(scaled.point is scaled.base for scaled in firsts):
            return f"{name} loses most per device as devices are added"
        counts = sorted({scaled.point.devices for scaled in firsts})
        past = f"{counts[0]:,} to " * (len(counts) > 1)
        return f"{name} breaks past {past}{counted(counts[-1], 'device')}"
    grown = [
        (scaled.efficiency, line, panel.name, scaled)
        for panel in shown
        for line in panel.alike
        for scaled in line.members
        if scaled.efficiency and scaled.base is not scaled.point
    ]
    known = [one for one in grown if not (one[1].told(one[3]) or one[3].uncertain)]
    if known:
        least, line, model, scaled = min(known, key=lambda one: one[0])
        if least < 1 - LOSS:
            name = f"{line.name} of {model}" if len(shown) > 1 else line.name
            on = counted(scaled.point.devices, "device")
            return f"{name} keeps {percent(least)} of its rate per device on {on}"
        if len(known) == len(grown):
            return f"Every strategy keeps at least {percent(least)} of its rate per device"
    return "How the rate grows with the devices"


def _kept(shown: Sequence[LinePanel]) -> Iterator[str]:
    """Yield which strategy keeps most of its rate per device on the most devices."""
    ends = [
        (line.name, panel.name, line.members[-1])
        for panel in shown
        for line in panel.alike
        if line.members[-1].efficiency and not line.told(line.members[-1])
    ]
    most = max((last.point.devices for *_, last in ends), default=0)
    rivals: dict[str, dict[str, float]] = {}
    for name, model, last in ends:
        if last.point.devices == most:
            rivals.setdefault(name, {})[model] = last.efficiency or 0.0
    often = max((len(shares) for shares in rivals.values()), default=0)
    usual = {name: own for name, own in rivals.items() if 2 * len(own) >= often}
    if len(rivals) > 1:
        name, own = max(usual.items(), key=lambda one: min(one[1].values()))
        whose = f" of {next(iter(own))}" if len(own) == 1 < len(shown) else ""
        low, high = percent(min(own.values())), percent(max(own.values()))
        extent = low if low == high else f"{low} to {high}"
        yield f"{name}{whose} keeps {extent} of its rate per device to {counted(most, 'device')}."


def _messages(shown: Sequence[LinePanel]) -> Iterator[str]:
    """Yield how small the messages are where a sharded line breaks first."""
    sizes: dict[tuple[str, str, bool], list[float]] = {}
    for panel in shown:
        for line in panel.alike:
            for loss in _clear(line)[:1]:
                large = messages.of_point(loss.before.point)
                message = messages.of_point(loss.after.point)
                if message and large and message.rank_bytes < large.rank_bytes:
                    key = (line.name, message.collective, message.measured)
                    sizes.setdefault(key, []).append(message.rank_bytes)
    for (name, collective, measured), found in sizes.items():
        low, high = size(min(found)), size(max(found))
        extent = low if low == high else f"{low} to {high}"
        how = "measured" if measured else "computed"
        yield f"{name} breaks where its {collective} messages fall to {extent} a rank ({how})."


def _alt(panel: LinePanel, lines: Sequence[PanelLine]) -> str:
    parts = []
    for line in lines:
        last = line.members[-1]
        if last.point.per_device:
            parts.append(
                f"{line.name} {digits(last.point.per_device)} on {last.point.devices:,} devices"
            )
    noun = panel.comparison.noun
    return f"{panel.title}: {noun}/s per device against devices. {listed(parts)}."
