"""Every number that a report states, computed a second time from the raw records.

    python tests/analysis/recompute.py report/report.md profiles/records/frontier

Nothing of `hpcgeo_analysis` is used. From the JSON lines follow facts: a value with its dimension,
its model, its strategies and its numbers of devices. A sentence names some of these; each of its
numbers has to be the value of a fact of what it names, to the last digit printed. A new kind of
number is a new line in `of_point`, `of_pair` or `of_line`.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise, permutations
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from hpcgeo.zoo import models

#: Thresholds of the report's rules: ties, losses, noise, tight memory, a prediction that is off.
RULES = {"%": (5, 15, 25, 97, 100), "s": (0.05,)}

#: Units: dimension, and the value of one.
UNITS = {
    "%": ("share", 0.01),
    "x": ("ratio", 1.0),
    **dict.fromkeys(("images/s", "samples/s"), ("rate", 1.0)),
    **dict.fromkeys(("tokens", "tokens/s"), ("tokens", 1.0)),
    "node-hours": ("hours", 1.0),
    **{"B": ("bytes", 1.0), "KB": ("bytes", 1e3), "MB": ("bytes", 1e6), "GB": ("bytes", 1e9)},
    **{"KiB": ("bytes", 2.0**10), "MiB": ("bytes", 2.0**20), "GiB": ("bytes", 2.0**30)},
    **{"KB/s": ("bandwidth", 1e3), "MB/s": ("bandwidth", 1e6), "GB/s": ("bandwidth", 1e9)},
    **{"ms": ("seconds", 1e-3), "s": ("seconds", 1.0)},
    **{"TFLOP/s": ("flops", 1e12), "GFLOP/s": ("flops", 1e9)},
}

LAYOUT = re.compile(r"\b(?:DDP|NO_SHARD|SHARD_GRAD_OP|FULL_SHARD|HYBRID_SHARD|ZERO\d)(?:\(\d+\))?")
NUMBER = re.compile(
    r"(?<![\w.,])[-\N{MINUS SIGN}]?(\d[\d,]*(?:\.\d+)?|\.\d+)(?![\w.]*\d)\s*([%\w/-]*)"
)
#: What holds digits and is no number: marks, names, sizes of chips, threads of a device.
NAMES = (
    r"`[^`]*`|\b[pE]\d+\b|2\^\d+|MI\d+X?|\b\w*float\d+\b|times 2|\(n - 1\)|\bfsdp1\S*"
    r"|\b\d+[BbM]\b|\d+\.\d+\.\d+\S*|\d+ x \d+|Rank \d+|\\\[.*?\\\]|\d+ threads?"
    r"|\b\d+(\.\d+)? of a core"
)
#: Words that say of what a share is.
TOPICS = {
    "mfu": r"MFU|HFU",
    "padding": r"is padding",
    "line": r"loses|kept|keeps|of its smallest run|per device (between|for)|breaks here",
    "memory": r"of a device has|GiB of a device|of (what )?(a|its) device|reserved|It fits",
    "cause": r"most is taken by|what tensors hold",
    "traffic": r"in messages of",
    "activity": r"Exposed|Idle|idle|Launching",
    "silent": r"hurts|Without (communication|reading)",
    "collectives": r"goes to collectives",
    "late": r"wait .* longer",
}
CAUSES = ("parameters", "gradients", "optimizer", "gathered", "activations", "batch", "other")
PEAKS = ("reserved", "resident", "allocated", "active")

Row = dict[str, Any]


class Fact(NamedTuple):
    """A value that a sentence may state."""

    dimension: str
    value: float
    model: str
    layouts: frozenset[str]
    devices: frozenset[int]
    topic: str = ""


class RawPoint(NamedTuple):
    """The repeats of one configuration."""

    rows: list[Row]

    @property
    def row(self) -> Row:
        return self.rows[0]

    @property
    def layout(self) -> str:
        group = self.row["group_size"]
        return self.row["strategy"] + (f"({group})" if group else "")

    @property
    def devices(self) -> int:
        return int(self.row["world_size"])

    def value(self, *path: str) -> float | None:
        """Return the median of a field of the repeats."""
        found = [value for row in self.rows if (value := _at(row, path)) is not None]
        return median(found) if found else None

    @property
    def rate(self) -> float | None:
        rates = [
            row["images_per_s"] or row["global_batch"] / row["step_s"]["median"]
            for row in self.rows
            if row["images_per_s"] or row["step_s"]
        ]
        return median(rates) if rates else None

    @property
    def held(self) -> dict[str, float]:
        """Peaks in bytes by kind, the highest of the repeats."""
        found: dict[str, float] = {}
        for row in self.rows:
            peaks = {kind: (row["memory"] or {}).get(f"peak_{kind}_bytes") for kind in PEAKS}
            if row["peak_memory_bytes"]:
                peaks[row["memory_source"]] = row["peak_memory_bytes"]
            for kind, value in peaks.items():
                found[kind] = max(found.get(kind, 0), value or 0)
        return {kind: value for kind, value in found.items() if value}

    def alike(self, *free: str) -> str:
        """Return all that makes it unlike others, but what is free."""
        names = ("kind", "machine", "device", "model", "objective", "dtype", "micro_batch", "chip")
        names += ("accumulate", "data", "communication", "recompute", "strategy", "group_size")
        config = {k: v for k, v in (self.row["config"] or {}).items() if k not in ("parallel",)}
        own = {name: self.row[name] for name in names if name not in free}
        return json.dumps([own, None if "config" in free else config])


def facts(rows: Iterable[Row], links: Iterable[Row] = ()) -> list[Fact]:
    """Return all facts of records, and of curves of collectives."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in of_one_peak([row for row in rows if row["status"] == "ok"]):
        point = RawPoint([row])
        groups[f"{point.devices} {row['nodes']} {point.alike()}"].append(row)
    points = [RawPoint(group) for group in groups.values()]
    found = [fact for point in points for fact in of_point(point)]
    sides, lines = defaultdict(list), defaultdict(list)
    for point in points:
        free = ("strategy", "group_size", "communication", "data", "dtype", "config")
        sides[point.devices, point.alike(*free)].append(point)
        lines[point.alike()].append(point)
    for group in sides.values():
        for pair in permutations(group, 2):
            found += of_pair(*pair)
    for line in lines.values():
        found += of_line(sorted(line, key=lambda point: point.devices))
    return found + [fact for link in links for fact in of_links(link)] + counts(points)


def of_one_peak(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield rows whose measured peak is the highest of their device and dtype, shares with it."""
    tops: dict[tuple[str, ...], float] = defaultdict(float)

    def chip(row: Row) -> tuple[str, ...]:
        return row["machine"], row["device"], row["dtype"]

    measured = [row for row in rows if row["peak_source"] == "measured"]
    for row in measured:
        tops[chip(row)] = max(tops[chip(row)], row["peak_flops_per_s"])
    for row in rows:
        if row["peak_source"] == "measured":
            top, own = tops[chip(row)], row["peak_flops_per_s"]
            shares = {name: row[name] and row[name] * own / top for name in ("mfu", "hfu")}
            row = row | shares | {"peak_flops_per_s": top}
        yield row


def of_point(point: RawPoint) -> Iterator[Fact]:
    """Yield what is known of one point."""

    def fact(
        dimension: str, value: float | None, scale: float = 1.0, topic: str = ""
    ) -> Iterator[Fact]:
        if value is not None:
            layouts, devices = frozenset([point.layout]), frozenset([point.devices])
            yield Fact(dimension, value * scale, point.row["model"], layouts, devices, topic)

    rate, step, devices, row = point.rate, point.value("step_s", "median"), point.devices, point.row
    if rate:
        yield from fact("rate", rate)
        yield from fact("rate", rate / devices)
        yield from fact("hours", row["nodes"] * 1e6 / rate / 3600)
        if flops := point.value("model_flops"):
            yield from fact("flops", flops * rate / row["global_batch"] / devices)
    for name, topic in (("mfu", "mfu"), ("hfu", "mfu"), ("padding", "padding")):
        yield from fact("share", point.value(name), topic=topic)
    for name in ("peak_flops_per_s", "product_flops_per_s"):
        yield from fact("flops", point.value(name))
    for part in ("median", "p10", "p90"):
        yield from fact("seconds", point.value("step_s", part))
        yield from fact("tokens", point.value("tokens_per_s", part))
    for part in ("phases", "activity"):
        whole = point.value(part, "step_s")
        for name in row[part] or ():
            yield from fact("seconds", point.value(part, name))
            yield from fact("share", point.value(part, name), 1 / whole if whole else 0, part)
        if whole and step:
            yield from fact("ratio", whole / step)
    yield from fact("share", point.value("comm_s"), 1 / step if step else 0, "collectives")
    for late in filter(None, [point.value("wait", "late_s")]):
        yield from fact("seconds", late)
        yield from fact("share", late, 1 / step if step else 0, "late")
    yield from _memory(point, fact)
    for moved in (moved for each in point.rows for moved in each["traffic"]):
        yield from fact("bytes", moved["message_bytes"])
        yield from fact("bytes", moved["message_bytes"] / moved["ranks"])
        yield from fact("seconds", moved["seconds"])
        yield from fact("share", moved["seconds"], 1 / step if step else 0, "traffic")
        yield from fact("bandwidth", moved["bus_bytes_per_s"])
        yield from fact("count", moved["calls"])
    if block := _block_bytes(row):
        yield from fact("bytes", block / devices)


def _memory(point: RawPoint, fact: Any) -> Iterator[Fact]:
    limit = point.value("memory", "limit_bytes")
    yield from fact("bytes", limit)
    for value in point.held.values():
        yield from fact("bytes", value)
        for other in point.held.values():
            yield from fact("ratio", value / other)
        if limit:
            yield from fact("share", value / limit, topic="memory")
    for row in point.rows:
        causes = [(row["memory"] or {}).get(f"{cause}_bytes") or 0 for cause in CAUSES]
        if whole := sum(causes):
            yield from fact("bytes", whole)
            for cause in causes:
                yield from fact("share", cause / whole, topic="cause")


def of_pair(one: RawPoint, other: RawPoint) -> Iterator[Fact]:
    """Yield what follows from two points on as many devices."""
    who = one.row["model"], frozenset([one.layout, other.layout]), frozenset([one.devices])
    if one.rate and other.rate:
        yield Fact("ratio", one.rate / other.rate, *who)
        yield Fact("share", one.rate / other.rate, *who)
        yield Fact("share", one.rate / other.rate - 1, *who)
    for kind in one.held.keys() & other.held.keys():
        yield Fact("ratio", one.held[kind] / other.held[kind], *who)
    tokens = [point.value("tokens_per_s", "median") for point in (one, other)]
    if tokens[0] and tokens[1]:
        yield Fact("ratio", tokens[0] / tokens[1], *who)
    steps = [point.value("step_s", "median") for point in (one, other)]
    if steps[0] and steps[1] and one.layout == other.layout:
        yield Fact("share", 1 - steps[1] / steps[0], *who, "silent")


def of_line(line: Sequence[RawPoint]) -> Iterator[Fact]:
    """Yield what a line keeps of its smallest run, and loses between neighbours."""
    timed = [(point, point.rate / point.devices) for point in line if point.rate]
    for (point, own), (base, first) in combinations(timed[::-1], 2):
        if base is timed[0][0]:
            who = point.row["model"], frozenset([point.layout]), frozenset([point.devices])
            yield Fact("share", own / first, *who, "line")
    for (before, first), (after, second) in pairwise(timed):
        sizes, layouts = frozenset([before.devices, after.devices]), frozenset([after.layout])
        yield Fact("share", 1 - second / first, after.row["model"], layouts, sizes, "line")


def of_links(link: Row) -> Iterator[Fact]:
    """Yield what was measured of collectives alone."""
    for moved in link["transfers"]:
        for dimension, value in (
            ("seconds", moved["seconds"]["median"]),
            ("bytes", moved["message_bytes"]),
            ("bandwidth", moved["bus_bytes_per_s"]),
        ):
            yield Fact(dimension, value, "", frozenset(), frozenset([moved["ranks"]]))


def counts(points: Sequence[RawPoint]) -> list[Fact]:
    """Return numbers that are counts: of devices, nodes, batches, and of records of some kind."""
    found: set[tuple[str, float]] = set()
    groups: dict[tuple[str, Any], int] = defaultdict(int)
    for point in points:
        row = point.row
        sizes = [point.devices, row["nodes"], row["micro_batch"], row["accumulate"]]
        sizes += [
            row["global_batch"],
            len(point.rows),
            *(row["chip"] or ()),
            row["bands"] or 1,
        ]
        found |= {(row["model"], float(size)) for size in sizes}
        step = row["tokens_per_s"] or row["step_s"]
        noisy = bool(step) and (step["p90"] - step["p10"]) / step["median"] > 0.25
        found |= {(row["model"], option) for option in _numbers(row["config"])}
        for name, value in (
            *[("note", note) for note in row["notes"]],
            ("all", True),
            ("kind", row["kind"]),
            ("bare", row["communication"] == "off" or row["data"] == "cached"),
            ("noisy", noisy),
            ("timed", bool(point.rate)),
            ("model", row["model"]),
            ("here", (row["model"], point.devices, row["data"], row["communication"])),
            ("waits", bool(row["wait"])),
            ("late", bool(row["wait"]) and row["wait"]["straggler"] is None),
            ("prediction", bool(row["predicted_memory"] and row["memory"])),
        ):
            groups[name, value] += 1
    found |= {("", float(number)) for number in groups.values()}
    found |= {("", float(len({point.layout for point in points}))), ("", 0.0)}
    pairs = defaultdict(set)
    for point in points:
        pairs[point.devices, point.alike("communication")].add(point.row["communication"])
    found.add(("", float(sum(len(sides) == 2 for sides in pairs.values()))))
    return [Fact("count", value, model, frozenset(), frozenset()) for model, value in found]


def unexplained(text: str, known: Sequence[Fact]) -> Iterator[tuple[str, str]]:
    """Yield the numbers of a report in Markdown that no fact explains, each with its line."""
    names = {fact.model for fact in known} - {""}
    sizes = {size for fact in known for size in fact.devices}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line
        if not line or line[0] in "|!":
            continue
        for part in re.split(r"(?<=[.;]) (?!\d)", line):
            bare = _bare(part, names)
            topics = {name for name, words in TOPICS.items() if re.search(words, part)}
            for match in NUMBER.finditer(bare):
                layouts = _near(part, match.start()) or set(LAYOUT.findall(line))
                if not any(
                    _explained(match[1], match[2], _of(*scope, layouts, topics, known))
                    for scope in _scopes(part, line, heading, names, sizes)
                ):
                    yield f"{match[1]} {match[2]}".strip(), line


def _near(part: str, place: int) -> set[str]:
    """Return the strategies named last before a place, and first after it."""
    found = list(LAYOUT.finditer(part))
    before = [match[0] for match in found if match.end() <= place][-1:]
    return {*before, *[match[0] for match in found if match.start() >= place][:1]}


def _scopes(
    part: str, line: str, heading: str, names: set[str], sizes: set[int]
) -> Iterator[tuple[set[str], set[int]]]:
    """Yield models and numbers of devices that a part of a line names, then those of the line."""
    for text in (part, line):
        chosen = _named(text, names) or _named(heading, names) or names
        own = _counts(_bare(text, names), sizes) or _counts(_bare(heading, names), sizes)
        yield chosen, own


def _counts(text: str, sizes: set[int]) -> set[int]:
    """Return the numbers of devices that a text names: ``one device``, or all of ``8 to 64``."""
    found = {int(each.replace(",", "")) for each in re.findall(r"\b\d[\d,]*\b", text)}
    found |= {1} if "one device" in text else set()
    for ends in re.findall(r"\b(\d[\d,]*) to (\d[\d,]*) devices", text):
        low, high = (int(end.replace(",", "")) for end in ends)
        found |= {size for size in sizes if low <= size <= high}
    return found & sizes


def _of(
    chosen: set[str], devices: set[int], layouts: set[str], topics: set[str], known: Iterable[Fact]
) -> Iterator[Fact]:
    """Yield the facts of models, on one of the numbers of devices, of one of the strategies."""
    for fact in known:
        if (
            (not fact.model or fact.model in chosen)
            and (not fact.layouts or not layouts or fact.layouts & layouts)
            and (not fact.devices or not devices or fact.devices & devices)
            and (fact.dimension != "share" or not topics or fact.topic in topics)
        ):
            yield fact


def _explained(number: str, unit: str, known: Iterable[Fact]) -> bool:
    value = float(number.replace(",", ""))
    half = 0.5 * 10.0 ** -len(number.partition(".")[2]) * (1 + 1e-9)
    if value in RULES.get(unit, ()):
        return True
    if unit in UNITS:
        meant = {UNITS[unit]}
    elif "." in number:  # the first of two numbers with one unit
        meant = {*UNITS.values()}
    else:
        meant = {("count", 1.0), ("tokens", 1.0), ("rate", 1.0)}
    return any(
        fact.dimension == dimension and abs(abs(fact.value) / scale - value) <= half
        for fact in known
        for dimension, scale in meant
    )


def _named(text: str, names: Iterable[str]) -> set[str]:
    """Return the models that a text names, by their names or the size in them."""
    found = {name for name in names if name in text}
    for name in names - found if isinstance(names, set) else ():
        size = next((part for part in name.split("_") if re.fullmatch(r"\d+b|base|huge", part)), "")
        if size and re.search(rf"\b{size}\b", text, re.IGNORECASE):
            found.add(name)
    return found


def _bare(text: str, names: Iterable[str]) -> str:
    """Return a text as long, without the digits that belong to names."""
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    for pattern in filter(None, (words, LAYOUT.pattern, NAMES)):
        text = re.sub(pattern, lambda match: " " * len(match[0]), text)
    return text


def _numbers(value: Any) -> Iterator[float]:
    """Yield the whole numbers of a configuration."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, int):
        yield float(value)


def _at(row: Row, path: Sequence[str]) -> Any:
    value: Any = row
    for name in path:
        value = value.get(name) if value else None
    return value


def _block_bytes(row: Row) -> float | None:
    """Return the bytes of one block of a model in the precision of a record."""
    model, size = models().get(row["model"]), {"bfloat16": 2, "float32": 4}.get(row["dtype"])
    if model is None or size is None:
        return None
    return model.encoder.parameters / model.encoder.depth * size


def read(paths: Iterable[Path]) -> tuple[list[Row], list[Row]]:
    """Return the records, and the curves of collectives, of folders."""
    found: tuple[list[Row], list[Row]] = ([], [])
    for path in paths:
        for file in sorted(path.rglob("*.jsonl")):
            for line in file.read_text().splitlines():
                row = json.loads(line)
                if "transfers" not in row:
                    row = {"notes": [], "tokens_per_s": None, "padding": None} | row
                found["transfers" in row].append(row)
    return found


def main() -> int:
    """Say which numbers have no explanation; 1 if there are any."""
    report, *paths = map(Path, sys.argv[1:])
    wrong = list(unexplained(report.read_text("utf-8"), facts(*read(paths))))
    for number, line in wrong:
        print(f"{number}: {line}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
