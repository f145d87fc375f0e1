"""Like is compared with like: points become lines, lines get an efficiency.

Two points share a comparison only where their keys agree, or where what differs was asked to lie
together. Within one, weak scaling fixes what a device does in a step, strong scaling fixes what all
devices do.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from hpcgeo.records import SOFT
from hpcgeo_analysis.formatting import listed
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.separation import (
    BATCHING,
    TRANSPORT,
    differing,
    footnotes,
    merged,
    parted,
    phrase,
    setting,
    sides,
    telling,
    value,
)

Mode = Literal["weak", "strong"]

#: The order of lines in figures and tables; strategies not named here follow by name.
STRATEGIES = (
    *("DDP", "NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD", "HYBRID_SHARD"),
    *("ZERO1", "ZERO2", "ZERO3"),
)


#: What the setting of a comparison says, beside its model; options are too many.
_SAID = tuple(name for name in CONTEXT if name not in ("model", "options", *SOFT))

#: What weak and strong scaling fix, unless lines may differ in it.
_FIXES: dict[Mode, str] = {"weak": "micro_batch", "strong": "global_batch"}


@dataclass(frozen=True, eq=False)
class Scaled:
    """A point on a line, with its efficiency against the line's smallest run."""

    point: StudyPoint
    line: str
    base: StudyPoint | None = None
    efficiency: float | None = None
    low: float | None = None
    high: float | None = None
    #: What its records note, and what it has unlike the base, in words: versions, variables, and
    #: what was asked together.
    footnotes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The line, with the mark of this point."""
        return f"{self.line} ({self.point.mark})" if self.point.mark else self.line

    @property
    def uncertain(self) -> bool:
        """Whether the point or its base is noisy, or was still getting faster."""
        return bool(self.point.marks or (self.base and self.base.marks))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Lines that may be compared.

    `setting` says what separates it from other comparisons, `apart` in what its own lines differ
    because that was asked for.
    """

    number: int
    context: dict[str, str]
    mode: Mode
    fixed: str
    setting: str
    apart: str
    lines: dict[str, list[Scaled]]
    #: Lines of what was run alike without communication: what compute alone reaches.
    baseline: dict[str, list[Scaled]] = field(default_factory=dict)

    @cached_property
    def scaled(self) -> list[Scaled]:
        """All points, by number of devices, then in the order of lines."""
        points = [scaled for line in self.lines.values() for scaled in line]
        return sorted(points, key=lambda scaled: scaled.point.devices)

    @cached_property
    def devices(self) -> list[int]:
        """The numbers of devices of all points."""
        return sorted({scaled.point.devices for scaled in self.scaled})

    @property
    def model(self) -> str:
        return self.context["model"]

    @property
    def noun(self) -> str:
        """What it trains on: images, or samples of a mixture."""
        return "samples" if any(scaled.point.first.mixed for scaled in self.scaled) else "images"


def compare(found: Sequence[StudyPoint], together: Sequence[str] = ()) -> list[Comparison]:
    """Return every comparison: measured first, then by size of model, weak before strong.

    Args:
        found: points; those that left something out of their steps stand in none.
        together: keys in which lines of one comparison may differ.
    """
    asked = tuple(dict.fromkeys([*together, BATCHING]))
    blocks = _blocks([point for point in found if point.candidate], asked)
    silent = _blocks([point for point in found if point.baseline], (*asked, TRANSPORT))
    order = sorted(blocks, key=lambda key: (key[0], _size(blocks[key]), key))
    apart = differing(blocks)
    comparisons: list[Comparison] = []
    for key in order:
        for mode, fixed, chosen in _groups(blocks[key], asked):
            members = [point for _, point in chosen]
            comparison = Comparison(
                number=len(comparisons) + 1,
                context=_context(members),
                mode=mode,
                fixed=fixed,
                setting=_setting(key, apart),
                apart=_apart(members, asked),
                lines=_scale(chosen, [name for name in asked if name == _FIXES[mode]]),
                baseline=_scale(_alike(chosen[0][1], mode, silent.get(_silent(key), ())), ()),
            )
            comparisons.append(comparison)
    return comparisons


def _blocks(
    found: Sequence[StudyPoint], asked: tuple[str, ...]
) -> dict[tuple[str, ...], list[StudyPoint]]:
    """Return points by what separates them; those on one node stand beside every network."""
    alike: dict[tuple[str, ...], list[StudyPoint]] = defaultdict(list)
    for point in found:
        alike[merged(point.context, (*asked, *SOFT, TRANSPORT))].append(point)
    blocks = {}
    place = CONTEXT.index(TRANSPORT)
    for key, members in alike.items():
        networks = sorted({point.context[place] for point in members} - {""})
        if TRANSPORT in asked or len(networks) < 2:
            blocks[key] = members
            continue
        for network in networks:
            own = [point for point in members if point.context[place] in ("", network)]
            named = (*key[:place], network, *key[place + 1 :])
            blocks[named] = own
    return blocks


def _silent(key: tuple[str, ...]) -> tuple[str, ...]:
    """Return what separates points without communication that are otherwise those of a block."""
    named = dict(zip(CONTEXT, key, strict=True)) | {"communication": "off", TRANSPORT: ""}
    return tuple(named.values())


def _alike(
    first: StudyPoint, mode: Mode, found: Iterable[StudyPoint]
) -> list[tuple[str, StudyPoint]]:
    """Return the points, with their lines, whose batches are those of a comparison."""

    def batches(point: StudyPoint) -> tuple[int, ...]:
        record = point.first
        if mode == "strong":
            return (record.global_batch,)
        return (record.micro_batch, record.accumulate, record.global_batch // record.world_size)

    return [(point.layout, point) for point in found if batches(point) == batches(first)]


def rank(line: str, strategy: str) -> tuple[int, str, int, str]:
    """Return where a line stands among others: by strategy, then size of group."""
    place = STRATEGIES.index(strategy) if strategy in STRATEGIES else len(STRATEGIES)
    group = re.search(r"\((\d+)\)", line)
    return place, strategy, int(group[1]) if group else 0, line


def _size(block: Sequence[StudyPoint]) -> float:
    return max((point.parameters or 0) for point in block)


def _setting(key: tuple[str, ...], apart: Mapping[str, Sequence[str]]) -> str:
    """Return in words what separates a block from others."""
    values = {name: setting(key, name) for name in apart if name in _SAID}
    return ", ".join(phrase(name, text, apart[name]) for name, text in values.items() if text)


def _context(members: Sequence[StudyPoint]) -> dict[str, str]:
    columns = zip(*(point.context for point in members), strict=True)
    return {
        name: listed(sorted(set(column))) for name, column in zip(CONTEXT, columns, strict=True)
    }


def _apart(members: Sequence[StudyPoint], asked: Sequence[str]) -> str:
    names = [
        name
        for name in asked
        if name != BATCHING and len({value(point, name) for point in members}) > 1
    ]
    said = " and in ".join(f"{name}: {sides(members, name)}" for name in names)
    return f"lines differ in {said}" if names else ""


def _labels(block: Sequence[StudyPoint], asked: Sequence[str], mode: Mode) -> dict[StudyPoint, str]:
    """Name each point's line: its layout, what differs, the placement where nodes were not full.

    Points that may lie together are one line where it has one value a size; else they are parted.
    """
    fewest: dict[int, int] = {}
    for point in block:
        fewest[point.devices] = min(point.nodes, fewest.get(point.devices, point.nodes))
    fixed = () if _FIXES[mode] in asked else (*(["micro_batch"] * (mode == "weak")), "global_batch")

    def size(point: StudyPoint) -> tuple[object, ...]:
        batches = (getattr(point.first, name) for name in fixed)
        return (point.devices, point.first.accumulate, *batches)

    names = telling(block, asked)
    lines: dict[tuple[str, ...], list[StudyPoint]] = defaultdict(list)
    for point in block:
        full = point.nodes == fewest[point.devices]
        placed = "" if full else f", {point.devices / point.nodes:g} per node"
        mixed = value(point, BATCHING) if BATCHING in names else ""
        lines[point.layout, placed, mixed].append(point)
    among = {name: {value(point, name) for point in block} for name in (*names, *SOFT)}
    labels = {}
    for (layout, placed, _), own in lines.items():
        needed = parted(own, [*names, *SOFT], size)
        shared = [name for name in names if len({value(point, name) for point in own}) == 1]
        for point in own:
            told = [name for name in (*names, *SOFT) if name in needed or name in shared]
            values = {name: value(point, name) for name in told}
            said = (phrase(name, text, among[name]) for name, text in values.items() if text)
            labels[point] = " ".join([layout, *said]) + placed
    return labels


def _groups(
    block: Sequence[StudyPoint], asked: Sequence[str]
) -> list[tuple[Mode, str, list[tuple[str, StudyPoint]]]]:
    lines = _labels(block, [name for name in asked if name != "global_batch"], "weak")
    strong_lines = _labels(block, [name for name in asked if name != "micro_batch"], "strong")
    weak: dict[tuple[int, int, float], list[tuple[str, StudyPoint]]] = defaultdict(list)
    strong: dict[int, list[tuple[str, StudyPoint]]] = defaultdict(list)
    for point in block:
        record = point.first
        share = record.global_batch / record.world_size
        any_size = "micro_batch" in asked
        key = (
            (0, record.accumulate, 0.0)
            if any_size
            else (record.micro_batch, record.accumulate, share)
        )
        weak[key].append((lines[point], point))
        batch = 0 if "global_batch" in asked else record.global_batch
        strong[batch].append((strong_lines[point], point))
    kept = {batch: _unambiguous(group) for batch, group in strong.items()}
    kept = {batch: group for batch, group in kept.items() if _scales(group)}
    covered = {point for group in kept.values() for _, point in group}
    found: list[tuple[Mode, str, list[tuple[str, StudyPoint]]]] = []
    for (micro_batch, accumulate, share), group in sorted(weak.items()):
        if not _scales(group) and all(point in covered for _, point in group):
            continue
        noun = "sample" if block[0].first.mixed else "image"
        text = f"{share:g} {noun}{'' if share == 1 else 's'} per device and step"
        text += f" (micro-batch {micro_batch}, accumulation {accumulate})"
        found.append(("weak", text if micro_batch else "micro-batch by line", group))
    for batch, group in sorted(kept.items()):
        text = f"global batch {batch:,}" if batch else "global batch by line"
        found.append(("strong", text, group))
    return found


def _scales(group: Sequence[tuple[str, StudyPoint]]) -> bool:
    counts: dict[str, set[int]] = defaultdict(set)
    for line, point in group:
        counts[line].add(point.devices)
    return any(len(devices) > 1 for devices in counts.values())


def _unambiguous(group: Sequence[tuple[str, StudyPoint]]) -> list[tuple[str, StudyPoint]]:
    """Split lines by accumulation where one global batch was split in several ways."""
    places = [(line, point.devices) for line, point in group]
    if len(set(places)) == len(places):
        return list(group)
    return [(f"{line}, accumulation {point.first.accumulate}", point) for line, point in group]


def _scale(
    chosen: Sequence[tuple[str, StudyPoint]], batches: Sequence[str]
) -> dict[str, list[Scaled]]:
    members: dict[str, list[StudyPoint]] = defaultdict(list)
    for line, point in chosen:
        members[line].append(point)
    order = sorted(members, key=lambda line: rank(line, members[line][0].first.strategy))
    return {line: _efficiency(line, members[line], batches) for line in order}


def _efficiency(line: str, found: Sequence[StudyPoint], batches: Sequence[str]) -> list[Scaled]:
    ordered = sorted(found, key=lambda point: point.devices)
    timed = [point for point in ordered if point.per_device is not None]
    if len({point.devices for point in timed}) < 2:
        return [Scaled(point, line, footnotes=point.notes) for point in ordered]
    base = timed[0]
    unlike = [(*point.notes, *footnotes(point, base, batches)) for point in ordered]
    return [_against(*each, line, base) for each in zip(ordered, unlike, strict=True)]


def _against(point: StudyPoint, unlike: tuple[str, ...], line: str, base: StudyPoint) -> Scaled:
    if point.per_device is None or base.per_device is None:
        return Scaled(point, line, footnotes=unlike)
    efficiency = point.per_device / base.per_device
    if point is base or point.range is None or base.range is None:
        return Scaled(point, line, base, efficiency, footnotes=unlike)
    low = (point.range[0] / point.devices) / (base.range[1] / base.devices)
    high = (point.range[1] / point.devices) / (base.range[0] / base.devices)
    return Scaled(point, line, base, efficiency, low, high, unlike)
