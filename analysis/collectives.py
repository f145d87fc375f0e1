"""Collectives against bandwidth: as they ran in training, and as they ran alone."""

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from hpcgeo.records import Links, Traffic, Transfer
from hpcgeo_analysis import charts
from hpcgeo_analysis.charts import Curve
from hpcgeo_analysis.points import Point
from hpcgeo_analysis.scaling import Scaled
from hpcgeo_analysis.sections import Block, Section, Study
from hpcgeo_analysis.tables import Table, line, text, valued, whole, without_empty
from hpcgeo_analysis.words import counted, seconds, size

#: A cliff: the bandwidth of a larger message falls below this share of the best smaller one.
CLIFF = 0.6

Key = tuple[str, str, int, int]


def section(study: Study) -> Section:
    """Return curves with the points of training, cliffs, and the traffic of every comparison."""
    blocks = _curves(study)
    for comparison in study.once:
        known = [s for s in comparison.scaled if traffic(s.point)]
        if known:
            found = _slowest(known)
            blocks.append(Block(comparison.title, found, (), [_table(known)]))
    intro = (
        "Bus bandwidth is message over time, times 2 (n - 1) / n for all_reduce and (n - 1) / n "
        "for the others: what a link carries."
    )
    return Section("collectives", "Collectives against bandwidth", intro, blocks)


def traffic(point: Point) -> dict[Key, list[Traffic]]:
    """Return the collectives of a point, repeats together, by kind, group and size."""
    found: dict[Key, list[Traffic]] = defaultdict(list)
    for record in point.records:
        for moved in record.traffic:
            key = (moved.collective, moved.group, moved.ranks, moved.message_bytes)
            found[key].append(moved)
    return dict(found)


def cliffs(label: str, points: Sequence[tuple[Transfer, float]]) -> list[str]:
    """Return where larger messages are slower, and where they recover.

    Args:
        label: of the curve.
        points: transfers by size, with their bus bandwidth in bytes per second.
    """
    sentences = []
    best, fallen = points[0], False
    for moved, rate in points[1:]:
        if not fallen and rate < CLIFF * best[1]:
            fallen = True
            again = next(
                (m for m, r in points if m.message_bytes > moved.message_bytes and r >= best[1]),
                None,
            )
            end = f", recovered at {size(again.message_bytes)}" if again else ", not recovered"
            sentences.append(
                f"{label}: a cliff at {size(moved.message_bytes)} messages, {size(rate)}/s after "
                f"{size(best[1])}/s at {size(best[0].message_bytes)}{end}."
            )
        if rate >= best[1]:
            best, fallen = (moved, rate), False
    return sentences


def _curves(study: Study) -> list[Block]:
    machines: dict[tuple[str, str], list[Links]] = defaultdict(list)
    for link in study.links:
        machines[link.machine, link.backend].append(link)
    blocks: list[Block] = []
    for (machine, backend), links in sorted(machines.items()):
        groups: dict[tuple[str, str, int, int], list[Transfer]] = defaultdict(list)
        for link in links:
            for moved in link.transfers:
                key = (moved.collective, moved.group, moved.ranks, moved.nodes)
                groups[key].append(moved)
        sentences, drawn = [], defaultdict(list)
        for (collective, group, ranks, nodes), transfers in sorted(groups.items()):
            where = f"{group}, {counted(ranks, 'rank')} on {counted(nodes, 'node')}"
            by_size = sorted(transfers, key=lambda moved: moved.message_bytes)
            points = [(moved, moved.bus_bytes_per_s) for moved in by_size]
            sentences += _ends(f"{collective} ({where})", by_size)
            sentences += cliffs(f"{collective} ({where})", points)
            drawn[collective].append(
                Curve(where, [(m.message_bytes, rate) for m, rate in points if rate > 0])
            )
        plots = []
        for collective, found in drawn.items():
            dots = _dots(study.points, machine, collective)
            name = re.sub(r"[^A-Za-z0-9_.]+", "_", f"{len(blocks) + 1}-{machine}-{collective}")
            title = f"{collective}: bus bandwidth against message size"
            below = f"{machine}, {backend}, {', '.join(sorted({k.kind for k in links}))}"
            plots.append(charts.curves(f"links-{name}", title, below, [*found, *dots]))
        table = _transfers(groups)
        blocks.append(Block(f"{machine}, {backend}", sentences, plots, [table]))
    return blocks


def _ends(label: str, by_size: Sequence[Transfer]) -> list[str]:
    smallest = by_size[0]
    best = max(by_size, key=lambda moved: moved.bus_bytes_per_s)
    return [
        f"{label}: {seconds(smallest.seconds.median)} for {size(smallest.message_bytes)}, up to "
        f"{size(best.bus_bytes_per_s)}/s at {size(best.message_bytes)}."
    ]


def _dots(points: Sequence[Point], machine: str, collective: str) -> list[Curve]:
    dots = []
    for point in points:
        if point.first.machine == machine:
            for (kind, _, _, message), moved in traffic(point).items():
                rate = _bus(moved)
                if kind == collective and rate:
                    dots.append((float(message), rate))
    return [Curve("in training steps", sorted(set(dots)), joined=False)] if dots else []


def _bus(moved: Sequence[Traffic]) -> float | None:
    rates = [each.bus_bytes_per_s for each in moved if each.bus_bytes_per_s]
    return median(rates) if rates else None


def _slowest(known: Sequence[Scaled]) -> list[str]:
    """Return which collective takes most of a step, on the most devices."""
    most = known[-1].point.devices
    found = []
    for scaled in known:
        if scaled.point.devices == most:
            for key, moved in traffic(scaled.point).items():
                found.append((median(each.seconds for each in moved), key, moved, scaled))
    spent, (collective, group, ranks, message), moved, scaled = max(found, key=lambda row: row[0])
    rate = _bus(moved)
    speed = f" at {size(rate)}/s of bus bandwidth" if rate else ""
    return [
        f"On {counted(most, 'device')} most time goes to {collective} over {group} "
        f"({counted(ranks, 'rank')}) under {scaled.name}: {seconds(spent)} of a step in "
        f"{median(each.calls for each in moved):g} calls of {size(message)}, "
        f"{size(message / ranks)} a rank{speed}."
    ]


def _table(known: Sequence[Scaled]) -> Table:
    rows = []
    for scaled in known:
        for (collective, group, ranks, message), moved in traffic(scaled.point).items():
            first = [each.transfer_s for each in moved if each.transfer_s is not None]
            rows.append(
                [
                    line(scaled),
                    whole(scaled.point.devices),
                    text(collective),
                    text(group),
                    whole(ranks),
                    valued(size, message),
                    valued(size, message / ranks),
                    valued("{:g}".format, median(each.calls for each in moved)),
                    valued(seconds, median(each.seconds for each in moved)),
                    valued(seconds, median(first) if first else None),
                    valued(_per_second, _bus(moved)),
                ]
            )
    head = ["strategy", "devices", "collective", "group", "ranks", "message", "a rank", "calls"]
    head += ["time per step", "transfer", "bus bandwidth"]
    caption = "Collectives of a step; transfer is a call on the rank that came last"
    return without_empty(Table(caption, head, rows), ("transfer", "bus bandwidth"))


def _transfers(groups: dict[tuple[str, str, int, int], list[Transfer]]) -> Table:
    rows = [
        [
            text(collective),
            text(group),
            whole(ranks),
            whole(nodes),
            valued(size, moved.message_bytes),
            valued(seconds, moved.seconds.median),
            valued(_per_second, moved.algorithm_bytes_per_s),
            valued(_per_second, moved.bus_bytes_per_s),
        ]
        for (collective, group, ranks, nodes), transfers in sorted(groups.items())
        for moved in sorted(transfers, key=lambda moved: moved.message_bytes)
    ]
    head = ["collective", "group", "ranks", "nodes", "message", "median time"]
    head += ["algorithm bandwidth", "bus bandwidth"]
    return Table("Collectives alone, slowest rank", head, rows)


def _per_second(value: float) -> str:
    return f"{size(value)}/s"
