"""Collectives: what a link carries by size of message, alone and in training steps."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from hpcgeo.measured import Spread, Traffic, Transfer
from hpcgeo.plan import links as machine_files
from hpcgeo.plan.links import Curve, in_words
from hpcgeo.records import MISSING, LinksRecord, pairs, software
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.figures import axes
from hpcgeo_analysis.figures.axes import WIDTH, DrawnLine, Place
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.figures.steps import WORTH
from hpcgeo_analysis.formatting import counted, listed, percent, seconds, size
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.separation import phrase
from hpcgeo_analysis.styles import LineStyle
from hpcgeo_analysis.svg import Scale

#: A collective, its group, ranks, and nodes.
Key = tuple[str, str, int, int]

#: Looks of groups, the smallest first, and of what training reached.
_LOOKS = (
    LineStyle("part-parameters", "circle", ""),
    LineStyle("part-optimizer", "square", ""),
    LineStyle("part-gathered", "up", ""),
    LineStyle("part-data", "down", ""),
)
_TRAINING = LineStyle("ink", "diamond", "")

#: Pixels: left of the axis, from the top to it, its height, and below it.
LEFT, TOP, HEIGHT, FOOT = 52.0, 38.0, 150.0, 20.0


def figure(study: Study) -> Figure | None:
    """Return bandwidth against message size of every collective that was measured alone."""
    groups: dict[tuple[str, ...], list[LinksRecord]] = defaultdict(list)
    for link in study.links:
        groups[tuple(_surroundings(link).values())].append(link)
    longest, *slowest = _slowest(study) or ("Collectives",)
    if not groups:
        hint = "For curves of the links: hpcgeo-profile collectives, on the nodes of the runs."
        return Figure("collectives", longest, sentences=tuple(slowest), missing=hint)
    columns = [sorted(set(column)) for column in zip(*groups, strict=True)]
    panels, sentences = list[str](), list[str]()
    for _, links in sorted(groups.items()):
        named = zip(_surroundings(links[0]).items(), columns, strict=True)
        apart = ", ".join(phrase(n, value, among) for (n, value), among in named if len(among) > 1)
        joined = _repeats_joined(links)
        curves = machine_files.of(
            links[0].model_copy(update={"transfers": [m for own in joined.values() for m in own]})
        ).curves
        sentences += _cliffs(curves, apart)
        for collective in dict.fromkeys(key[0] for key in joined):
            own = {key: moved for key, moved in joined.items() if key[0] == collective}
            dots = _dots(study.points, links[0], collective)
            panels.append(_draw(collective, own, dots, apart or links[0].backend))
    claim = "A collective slows at larger messages" if sentences else _best(study.links)
    return Figure(
        "collectives",
        claim,
        panels=tuple(panels),
        caption="Bus bandwidth: message over time, times 2 (n - 1) / n for all_reduce, else "
        "(n - 1) / n: what a link carries.",
        sentences=(*sentences, *slowest),
    )


def traffic(point: StudyPoint) -> dict[tuple[str, str, int, int], list[Traffic]]:
    """Return the collectives of a point, repeats together, by kind, group, ranks and bytes."""
    found: dict[tuple[str, str, int, int], list[Traffic]] = defaultdict(list)
    for record in point.records:
        for moved in record.traffic:
            key = (moved.collective, moved.group, moved.ranks, moved.message_bytes)
            found[key].append(moved)
    return dict(found)


def _surroundings(link: LinksRecord) -> dict[str, str]:
    """Return what must agree between two measurements of one curve."""
    return {
        "machine": link.machine,
        "backend": link.backend,
        "kind": link.kind,
        "device": link.device,
        "torch": link.versions.get("torch", MISSING),
        "software": software(link),
        "environment": pairs(link.environment),
    }


def _repeats_joined(links: Sequence[LinksRecord]) -> dict[Key, list[Transfer]]:
    """Return every curve by size; of repeats of a size the median, with the spread of all."""
    found: dict[tuple[Key, int], list[Transfer]] = defaultdict(list)
    for moved in (moved for link in links for moved in link.transfers):
        place: Key = (moved.collective, moved.group, moved.ranks, moved.nodes)
        found[place, moved.message_bytes].append(moved)
    curves: dict[Key, list[Transfer]] = defaultdict(list)
    for (key, _), same in sorted(found.items()):
        middle = sorted(same, key=lambda moved: moved.seconds.median)[(len(same) - 1) // 2]
        low = min(moved.seconds.p10 for moved in same)
        high = max(moved.seconds.p90 for moved in same)
        seconds_of_all = Spread(median=middle.seconds.median, p10=low, p90=high)
        curves[key].append(middle.model_copy(update={"seconds": seconds_of_all}))
    return curves


def _cliffs(curves: Sequence[Curve], apart: str) -> Iterator[str]:
    """Yield where larger messages take a lower bandwidth than smaller ones."""
    where = f" ({apart})" if apart else ""
    for curve in curves:
        for cliff in curve.cliffs:
            yield (
                f"{curve.title}{where} falls from {size(cliff.from_bytes_per_s)}/s to "
                f"{size(cliff.lowest_bytes_per_s)}/s at {in_words(cliff.lowest_bytes)}."
            )


def _best(links: Sequence[LinksRecord]) -> str:
    moved = max(
        (moved for link in links for moved in link.transfers), key=lambda one: one.bus_bytes_per_s
    )
    return f"{moved.collective} reaches {size(moved.bus_bytes_per_s)}/s over {moved.ranks:,} ranks"


def _dots(
    points: Sequence[StudyPoint], link: LinksRecord, collective: str
) -> list[tuple[float, float]]:
    """Return the bandwidth that training reached on the same devices: of a size least and most."""
    found: dict[int, list[float]] = defaultdict(list)
    for point in points:
        made = point.first
        if (made.kind, made.machine, made.device) == (link.kind, link.machine, link.device):
            for (kind, _, _, message), moved in traffic(point).items():
                rates = [each.bus_bytes_per_s for each in moved if each.bus_bytes_per_s]
                if kind == collective and rates:
                    found[message].append(median(rates))
    return [
        (float(message), rate)
        for message, rates in sorted(found.items())
        for rate in dict.fromkeys((min(rates), max(rates)))
    ]


def _draw(
    collective: str,
    curves: Mapping[Key, Sequence[Transfer]],
    dots: Sequence[tuple[float, float]],
    below: str,
) -> str:
    lines = []
    for number, ((_, group, ranks, nodes), moved) in enumerate(curves.items()):
        label = f"{group}, {counted(ranks, 'rank')}"
        label += f", {counted(nodes, 'node')}" * (nodes > 1)
        places = [
            Place(
                float(one.message_bytes),
                one.bus_bytes_per_s,
                f"{label}: {in_words(one.message_bytes)} in {seconds(one.seconds.median)}, "
                f"{size(one.bus_bytes_per_s)}/s",
            )
            for one in moved
        ]
        lines.append(DrawnLine(label, "", _LOOKS[number % len(_LOOKS)], places))
    if dots:
        places = [Place(at, rate, f"in training: {size(at)}, {size(rate)}/s") for at, rate in dots]
        lines.append(DrawnLine("training steps", "", _TRAINING, places, joined=False))
    sizes = [place.x for line in lines for place in line.places]
    rates = [place.y for line in lines for place in line.places]
    room = axes.label_room([line.label for line in lines])
    canvas = axes.headed(TOP + HEIGHT + FOOT, collective, f"bytes/s; {below}")
    x = Scale(min(sizes), max(sizes), LEFT, WIDTH - room - 8, 10)
    y = Scale(min(rates) / 1.2, max(rates) * 1.2, TOP + HEIGHT, TOP + 4, 10)
    axes.horizontal(canvas, y, x, y.ticks(5), _plain)
    ticks = x.ticks(5)
    axes.below(canvas, y, x, ticks, _plain)
    if ticks:
        axes.named(canvas, y, x, ticks[-1], _plain(ticks[-1]), "message")
    axes.draw(canvas, x, y, lines)
    said = [f"{line.label} up to {size(max(place.y for place in line.places))}/s" for line in lines]
    return canvas.svg(f"{collective}: bus bandwidth against message size. {listed(said)}.")


def _plain(value: float) -> str:
    """Return bytes of a tick.

    >>> _plain(1e6), _plain(2e3)
    ('1 MB', '2 KB')
    """
    return size(value).replace(".00", "").replace(".0", "")


def _slowest(study: Study) -> tuple[str, ...]:
    """Return which collective takes most of a step, waiting for others included, and how much."""
    found = [
        (median(each.seconds for each in moved) / point.step_s, key, moved, point)
        for point in study.points
        if point.step_s and point.candidate and not point.marks
        for key, moved in traffic(point).items()
    ]
    if not found:
        return ()
    share, (collective, _, _, message), _, point = max(found, key=lambda one: one[0])
    if share < WORTH:
        return ()
    what = f"{collective} in messages of {size(message)}"
    return (
        f"Of the collectives {what} takes longest",
        f"{what} takes {percent(share)} of a step: {study.called(point)}.",
    )
