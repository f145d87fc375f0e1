"""Like is compared with like: repeats become points, points become lines, lines get an efficiency.

Two points share a comparison only where machine, device, model, objective, bands, chip, dtype,
data, torch version, kind and every knob that changes the work of a step agree. Within one,
weak scaling fixes what a device does in a step, strong scaling fixes what all devices do.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from hpcgeo.records import MISSING, NOISY
from hpcgeo_analysis.load import CONTEXT

Mode = Literal["weak", "strong"]

#: The order of lines in figures and tables; strategies not named here follow by name.
STRATEGIES = (
    *("DDP", "NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD", "HYBRID_SHARD"),
    *("ZERO1", "ZERO2", "ZERO3"),
)

_POINT = ("strategy", "layout", "devices", "nodes", "micro_batch", "accumulate", "global_batch")


@dataclass(frozen=True)
class Point:
    """The repeats of one configuration on one number of devices; None is not measured."""

    context: tuple[str, ...]
    strategy: str
    layout: str
    devices: int
    nodes: int
    micro_batch: int
    accumulate: int
    global_batch: int
    rows: tuple[int, ...]
    noisy: bool
    parameters: int | None
    #: Median of the repeats' medians; `low` and `high` span every repeat's p10 to p90.
    images_per_s: float | None
    low: float | None
    high: float | None
    step_s: float | None
    step_low_s: float | None
    step_high_s: float | None
    data_wait_s: float | None
    comm_s: float | None
    #: Highest of the repeats.
    memory_bytes: float | None
    #: Empty where nothing was measured, or the repeats measured different things.
    memory_source: str
    mfu: float | None
    peak_flops_per_s: float | None
    #: Where the peak comes from; empty where it is unknown or the repeats disagree.
    peak_source: str

    @property
    def per_device(self) -> float | None:
        """Images per second of one device."""
        return None if self.images_per_s is None else self.images_per_s / self.devices


@dataclass(frozen=True)
class Scaled:
    """A point on a line, with its efficiency against the line's smallest run."""

    point: Point
    line: str
    base: Point | None = None
    efficiency: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def noisy(self) -> bool:
        """Whether the point's steps spread too far to be trusted."""
        return self.point.noisy


@dataclass(frozen=True)
class Comparison:
    """Lines that may be held against each other."""

    number: int
    title: str
    context: dict[str, str]
    mode: Mode
    fixed: str
    lines: dict[str, list[Scaled]]

    @property
    def scaled(self) -> list[Scaled]:
        """All points, by number of devices, then in the order of lines."""
        points = [scaled for line in self.lines.values() for scaled in line]
        return sorted(points, key=lambda scaled: scaled.point.devices)

    @property
    def devices(self) -> list[int]:
        """The numbers of devices of all points."""
        return sorted({scaled.point.devices for scaled in self.scaled})

    @property
    def num_records(self) -> int:
        """Records behind the points."""
        return sum(len(scaled.point.rows) for scaled in self.scaled)


def points(frame: pd.DataFrame) -> list[Point]:
    """Return the points of all records that did not fail, repeats joined."""
    good = frame[frame["status"] == "ok"]
    if good.empty:
        return []
    keys = [*CONTEXT, *_POINT]
    groups = good.groupby(keys, sort=True, dropna=False)
    table = groups.agg(
        parameters=("parameters", "max"),
        images_per_s=("images_per_s", "median"),
        images_min=("images_per_s", "min"),
        images_max=("images_per_s", "max"),
        step_s=("step_s", "median"),
        step_low_s=("step_p10_s", "min"),
        step_high_s=("step_p90_s", "max"),
        noisy=("noisy", "any"),
        data_wait_s=("data_wait_s", "median"),
        comm_s=("comm_s", "median"),
        memory_bytes=("peak_memory_bytes", "max"),
        mfu=("mfu", "median"),
        peak_flops_per_s=("peak_flops_per_s", "max"),
        peak_min=("peak_flops_per_s", "min"),
    )
    members = groups.indices
    index = good.index.to_list()
    memory, peak = frame["memory_source"].to_list(), frame["peak_source"].to_list()
    found = []
    for key, row in zip(table.index, table.to_dict("records"), strict=True):
        rows = tuple(index[place] for place in members[key])
        found.append(_point(key, row, rows, _one(memory, rows), _one(peak, rows)))
    return found


def compare(found: Sequence[Point]) -> list[Comparison]:
    """Return every comparison: measured first, then by size of model, weak before strong."""
    blocks: dict[tuple[str, ...], list[Point]] = defaultdict(list)
    for point in found:
        blocks[point.context].append(point)
    order = sorted(blocks, key=lambda context: (context[0], _size(blocks[context]), context))
    apart = differing(blocks)
    comparisons: list[Comparison] = []
    for context in order:
        block = blocks[context]
        named = dict(zip(CONTEXT, context, strict=True))
        lines = _placed(block)
        for mode, fixed, chosen in _groups(block, lines):
            comparison = Comparison(
                number=len(comparisons) + 1,
                title=_title(named, mode, fixed, _needed(context, blocks, apart), chosen),
                context=named,
                mode=mode,
                fixed=fixed,
                lines=_scale(chosen),
            )
            comparisons.append(comparison)
    return comparisons


def rank(line: str, strategy: str) -> tuple[int, str, int, str]:
    """Return where a line stands among others: by strategy, then size of group."""
    place = STRATEGIES.index(strategy) if strategy in STRATEGIES else len(STRATEGIES)
    group = re.search(r"\((\d+)\)", line)
    return place, strategy, int(group[1]) if group else 0, line


def differing(contexts: Iterable[tuple[str, ...]]) -> dict[str, list[str]]:
    """Return what separates comparisons: the columns, or knobs, whose values differ, and those."""
    contexts = list(contexts)
    found: dict[str, list[str]] = {}
    for place, name in enumerate(CONTEXT):
        values = sorted({context[place] for context in contexts})
        if len(values) < 2:
            continue
        if name != "knobs":
            found[name] = values
            continue
        known = [json.loads(value) for value in values if value != MISSING]
        if len(known) < len(values):
            found["configuration"] = [MISSING, "recorded"]
        for key in sorted({key for config in known for key in config}):
            settings = sorted({json.dumps(config.get(key)) for config in known})
            if len(settings) > 1:
                found[key] = settings
    return found


def setting(context: dict[str, str], name: str) -> str:
    """Return the value of a column, or of a knob, in a context."""
    if name in context:
        return context[name]
    if context["knobs"] == MISSING:
        return MISSING
    if name == "configuration":
        return "recorded"
    return json.dumps(json.loads(context["knobs"]).get(name))


def _one(values: Sequence[str], rows: Iterable[int]) -> str:
    """Return the value that all rows with one share; empty where there is none, or several."""
    found = {values[row] for row in rows} - {""}
    return found.pop() if len(found) == 1 else ""


def _point(
    key: Any, row: dict[Any, Any], rows: tuple[int, ...], memory_source: str, peak_source: str
) -> Point:
    context = tuple(key[: len(CONTEXT)])
    place = dict(zip(_POINT, key[len(CONTEXT) :], strict=True))
    value = {name: _known(row[name]) for name in row}
    low, high = value["images_min"], value["images_max"]
    step, step_low, step_high = value["step_s"], value["step_low_s"], value["step_high_s"]
    spread = step is not None and step_low is not None and step_high is not None
    if spread and low is not None:
        low = min(low, place["global_batch"] / step_high)
        high = max(high, place["global_batch"] / step_low)
    elif len(rows) < 2:
        low = high = None
    return Point(
        context=context,
        rows=rows,
        noisy=bool(row["noisy"]) or (spread and (step_high - step_low) / step > NOISY),
        parameters=None if value["parameters"] is None else int(value["parameters"]),
        images_per_s=value["images_per_s"],
        low=low,
        high=high,
        step_s=step,
        step_low_s=step_low,
        step_high_s=step_high,
        data_wait_s=value["data_wait_s"],
        comm_s=value["comm_s"],
        memory_bytes=value["memory_bytes"] if memory_source else None,
        memory_source=memory_source,
        mfu=value["mfu"],
        peak_flops_per_s=value["peak_flops_per_s"],
        peak_source=peak_source if value["peak_min"] == value["peak_flops_per_s"] else "",
        **place,
    )


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _size(block: Sequence[Point]) -> float:
    return max((point.parameters or 0) for point in block)


def _placed(block: Sequence[Point]) -> dict[Point, str]:
    """Name each point's line: its layout, with the placement where nodes were not filled."""
    fewest: dict[int, int] = {}
    for point in block:
        fewest[point.devices] = min(point.nodes, fewest.get(point.devices, point.nodes))
    return {
        point: point.layout
        if point.nodes == fewest[point.devices]
        else f"{point.layout}, {point.devices / point.nodes:g} per node"
        for point in block
    }


def _groups(
    block: Sequence[Point], lines: dict[Point, str]
) -> list[tuple[Mode, str, list[tuple[str, Point]]]]:
    weak: dict[tuple[int, int, float], list[tuple[str, Point]]] = defaultdict(list)
    strong: dict[int, list[tuple[str, Point]]] = defaultdict(list)
    for point in block:
        share = point.global_batch / point.devices
        weak[point.micro_batch, point.accumulate, share].append((lines[point], point))
        strong[point.global_batch].append((lines[point], point))
    kept = {batch: _unambiguous(group) for batch, group in strong.items()}
    kept = {batch: group for batch, group in kept.items() if _scales(group)}
    found: list[tuple[Mode, str, list[tuple[str, Point]]]] = []
    for (micro_batch, accumulate, share), group in sorted(weak.items()):
        if not _scales(group) and all(point.global_batch in kept for _, point in group):
            continue
        text = f"{share:g} image{'' if share == 1 else 's'} per device and step"
        text += f" (micro-batch {micro_batch}, accumulation {accumulate})"
        found.append(("weak", text, group))
    for batch, group in sorted(kept.items()):
        found.append(("strong", f"global batch {batch:,}", group))
    return found


def _scales(group: Sequence[tuple[str, Point]]) -> bool:
    counts: dict[str, set[int]] = defaultdict(set)
    for line, point in group:
        counts[line].add(point.devices)
    return any(len(devices) > 1 for devices in counts.values())


def _unambiguous(group: Sequence[tuple[str, Point]]) -> list[tuple[str, Point]]:
    """Split lines by accumulation where one global batch was cut in several ways."""
    places = [(line, point.devices) for line, point in group]
    if len(set(places)) == len(places):
        return list(group)
    return [(f"{line}, accumulation {point.accumulate}", point) for line, point in group]


def _scale(chosen: Sequence[tuple[str, Point]]) -> dict[str, list[Scaled]]:
    members: dict[str, list[Point]] = defaultdict(list)
    for line, point in chosen:
        members[line].append(point)
    order = sorted(members, key=lambda line: rank(line, members[line][0].strategy))
    return {line: _efficiency(line, members[line]) for line in order}


def _efficiency(line: str, found: Sequence[Point]) -> list[Scaled]:
    ordered = sorted(found, key=lambda point: point.devices)
    timed = [point for point in ordered if point.per_device is not None]
    if len({point.devices for point in timed}) < 2:
        return [Scaled(point, line) for point in ordered]
    base = timed[0]
    return [_against(point, line, base) for point in ordered]


def _against(point: Point, line: str, base: Point) -> Scaled:
    if point.per_device is None or base.per_device is None:
        return Scaled(point, line)
    efficiency = point.per_device / base.per_device
    if point is base or None in (point.low, point.high, base.low, base.high):
        return Scaled(point, line, base, efficiency)
    assert point.low and point.high and base.low and base.high
    low = (point.low / point.devices) / (base.high / base.devices)
    high = (point.high / point.devices) / (base.low / base.devices)
    return Scaled(point, line, base, efficiency, low, high)


def _needed(
    context: tuple[str, ...], blocks: Iterable[tuple[str, ...]], apart: Iterable[str]
) -> list[str]:
    """Return what a title must say: kind and machine, and what separates runs of this model."""
    model = CONTEXT.index("model")
    own = differing(other for other in blocks if other[model] == context[model])
    return [name for name in apart if name in own or name in ("kind", "machine")]


def _title(
    context: dict[str, str],
    mode: Mode,
    fixed: str,
    needed: Sequence[str],
    chosen: Sequence[tuple[str, Point]],
) -> str:
    counts = sorted({point.devices for _, point in chosen})
    short = fixed.split(" (")[0]
    if _scales(chosen):
        text = f"{context['model']}, {mode} scaling, {short}"
    else:
        text = f"{context['model']} on {', '.join(f'{count:,}' for count in counts)} "
        text += f"device{'' if counts == [1] else 's'}, {short}"
    extra = [_short(name, setting(context, name)) for name in needed]
    return f"{text} ({', '.join(extra)})" if extra else text


def _short(name: str, value: str) -> str:
    plain = ("kind", "machine", "device", "dtype", "objective")
    if name in plain and value != MISSING:
        return value
    return f"{name} {value}"
