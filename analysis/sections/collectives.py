"""Collectives against bandwidth: as they ran in training, and as they ran alone."""

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from hpcgeo.measured import Spread, Traffic, Transfer
from hpcgeo.plan import links as machine_files
from hpcgeo.plan.links import in_words
from hpcgeo.records import MISSING, LinksRecord, pairs, software
from hpcgeo.variables import of
from hpcgeo_analysis import charts
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.charts import BandwidthCurve
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.formatting import counted, seconds, size
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.separation import phrase
from hpcgeo_analysis.tables import Table, line, number, text, valued, whole, without_empty

#: A collective, its group, ranks, and nodes or bytes of a message.
Key = tuple[str, str, int, int]


def section(study: Study) -> Section:
    """Return curves with the points of training, cliffs, and the traffic of every comparison."""
    blocks = _curves(study)
    for comparison in study.once:
        known = [s for s in comparison.scaled if traffic(s.point)]
        if known:
            found = _slowest(known)
            blocks.append(ReportBlock(comparison.title, found, (), [_table(known)]))
    intro = (
        "Bus bandwidth is message over time, times 2 (n - 1) / n for all_reduce and (n - 1) / n "
        "for the others: what a link carries. Where a bandwidth is said to fall, it is that of "
        "messages: message over time."
    )
    return Section("collectives", "Collectives against bandwidth", intro, blocks)


def traffic(point: StudyPoint) -> dict[Key, list[Traffic]]:
    """Return the collectives of a point, repeats together, by kind, group and size."""
    found: dict[Key, list[Traffic]] = defaultdict(list)
    for record in point.records:
        for moved in record.traffic:
            key = (moved.collective, moved.group, moved.ranks, moved.message_bytes)
            found[key].append(moved)
    return dict(found)


def _curves(study: Study) -> list[ReportBlock]:
    """Return a block for each machine, and for whatever else keeps curves apart."""
    groups: dict[tuple[str, ...], list[LinksRecord]] = defaultdict(list)
    for link in study.links:
        groups[tuple(_surroundings(link).values())].append(link)
    columns = [sorted(set(column)) for column in zip(*groups, strict=True)]
    blocks: list[ReportBlock] = []
    for _, links in sorted(groups.items()):
        named = zip(_surroundings(links[0]).items(), columns, strict=True)
        said = [phrase(name, value, among) for (name, value), among in named if len(among) > 1]
        title = ", ".join(dict.fromkeys([links[0].machine, links[0].backend, *said]))
        blocks.append(_curve_block(title, f"{len(blocks) + 1}-{links[0].machine}", links, study))
    return blocks


def _surroundings(link: LinksRecord) -> dict[str, str]:
    """Return what must agree between two measurements of one curve."""
    return {
        "machine": link.machine,
        "backend": link.backend,
        "kind": link.kind,
        "device": link.device,
        "torch": link.versions.get("torch", MISSING),
        "software": software(link),
        "environment": pairs(of(link.environment, "transport") | of(link.environment, "tuning")),
    }


def _curve_block(title: str, name: str, links: Sequence[LinksRecord], study: Study) -> ReportBlock:
    first = links[0]
    sentences, curves, rows = [], defaultdict(list), list[Transfer]()
    for (collective, group, ranks, nodes), by_size in _repeats_joined(links).items():
        where = f"{group}, {counted(ranks, 'rank')} on {counted(nodes, 'node')}"
        label = f"{collective} ({where})"
        (curve,) = machine_files.of(first.model_copy(update={"transfers": by_size})).curves
        sentences += [_ends(label, by_size), *(f"{label}: {cliff}." for cliff in curve.cliffs)]
        curves[collective].append(
            BandwidthCurve(where, [(float(m.message_bytes), m.bus_bytes_per_s) for m in by_size])
        )
        rows += by_size
    plots = []
    for collective, found in curves.items():
        file = re.sub(r"[^A-Za-z0-9_.]+", "_", f"{name}-{collective}")
        heading = f"{collective}: bus bandwidth against message size"
        below = f"{title}, {first.kind}" if first.kind not in title.split(", ") else title
        dots = _dots(study.points, first, collective)
        plots.append(charts.curves(f"links-{file}", heading, below, [*found, *dots]))
    return ReportBlock(title, sentences, plots, [_transfers(rows)])


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


def _ends(label: str, by_size: Sequence[Transfer]) -> str:
    smallest = by_size[0]
    best = max(by_size, key=lambda moved: moved.bus_bytes_per_s)
    return (
        f"{label}: {seconds(smallest.seconds.median)} for {in_words(smallest.message_bytes)}, bus "
        f"bandwidth up to {size(best.bus_bytes_per_s)}/s at {in_words(best.message_bytes)}."
    )


def _dots(points: Sequence[StudyPoint], link: LinksRecord, collective: str) -> list[BandwidthCurve]:
    """Return what training reached on the same devices."""
    dots = []
    for point in points:
        made = point.first
        if (made.kind, made.machine, made.device) == (link.kind, link.machine, link.device):
            for (kind, _, _, message), moved in traffic(point).items():
                rate = _bus(moved)
                if kind == collective and rate:
                    dots.append((float(message), rate))
    return [BandwidthCurve("in training steps", sorted(set(dots)), joined=False)] if dots else []


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


def _transfers(moved: Sequence[Transfer]) -> Table:
    rows = [
        [
            text(each.collective),
            text(each.group),
            whole(each.ranks),
            whole(each.nodes),
            number(in_words(each.message_bytes), each.message_bytes),
            valued(seconds, each.seconds.median),
            valued(_per_second, each.algorithm_bytes_per_s),
            valued(_per_second, each.bus_bytes_per_s),
        ]
        for each in moved
    ]
    head = ["collective", "group", "ranks", "nodes", "message", "median time"]
    head += ["algorithm bandwidth", "bus bandwidth"]
    return Table("Collectives alone, slowest rank", head, rows)


def _per_second(value: float) -> str:
    return f"{size(value)}/s"
