"""A regression check: the points of two sets of records, faster, slower or within noise."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from hpcgeo.errors import InputError
from hpcgeo.profiling.intervals import ALONE, BLOCKS, METHOD, interval, middle
from hpcgeo.records import SOFT, UNSTARTED, Record, read_on
from hpcgeo.tables import find

Verdict = Literal[
    "faster",
    "slower",
    "within noise",
    "within tolerance",
    "no interval",
    "failed",
    "mended",
    "failed in both",
]
Change = Literal["more", "less", "same"]
COLOURS = {"slower": "red", "failed": "red", "faster": "green", "mended": "green"}

#: What a point is: the key of its records and where they ran, without what may differ.
PointKey = tuple[tuple[str, str], ...]
Points = dict[PointKey, list[Record]]


class Side(BaseModel):
    """The runs of one point on one side."""

    runs: int
    step_s: float | None = None
    peak_memory_bytes: int | None = None
    commits: list[str]


class Pair(BaseModel):
    """One point on both sides; ratios are B over A."""

    point: dict[str, str]
    a: Side
    b: Side
    verdict: Verdict
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    memory: Change | None = None
    memory_ratio: float | None = None
    notes: list[str] = []

    @property
    def worse(self) -> bool:
        """Whether B is slower, takes more memory, or fails where A did not."""
        return self.verdict in ("slower", "failed") or self.memory == "more"


class RecordComparison(BaseModel):
    """What `compare` found; as it is printed with --json."""

    method: str = METHOD
    confidence: float
    tolerance: float
    between: list[str]
    pairs: list[Pair]
    only_a: list[str]
    only_b: list[str]
    notes: list[str]

    @property
    def worse(self) -> bool:
        """Whether any point is."""
        return any(pair.worse for pair in self.pairs)


class KeyedRecord(NamedTuple):
    """A record, and all that makes it a repeat of another one."""

    record: Record
    identity: dict[str, str]

    def point(self, apart: Sequence[str]) -> PointKey:
        """Return the point it belongs to where some keys may differ."""
        return tuple((key, value) for key, value in self.identity.items() if key not in apart)


def compare(
    a: Path, b: Path, *, tolerance: float, confidence: float, between: Sequence[str]
) -> RecordComparison:
    """Compare the records of two files or folders.

    Args:
        a, b: the earlier and the later one.
        tolerance: changes of a median up to this share are none.
        confidence: of an interval.
        between: keys that may differ between the sides.

    Raises:
        InputError: no records, an unknown key, nothing that is in both, or unlike records that
            would become one point.
    """
    rows = _rows(a), _rows(b)
    for key in between:
        find(rows[0][0].identity, key, "key")
        if key in SOFT:
            raise InputError(
                f"--between {key}: it may differ without, and the pair says so; leave it out"
            )
    points = [_points(side, between, path) for side, path in zip(rows, (a, b), strict=True)]
    matched = _matched(*points)
    failed = list(_failed(rows, between))
    known = {tuple(pair.point.items()) for pair in failed}
    pairs = failed + [
        _pair(
            tuple(each for each in one if each in other),
            points[0][one],
            points[1][other],
            tolerance=tolerance,
            confidence=confidence,
        )
        for one, other in matched
    ]
    if not pairs:
        raise InputError(
            f"nothing to compare: no point of {a} is in {b}; the first of A "
            f"{_nearest(rows[0][0].identity, [row.identity for row in rows[1]])}; --between KEY "
            f"lets a key differ"
        )
    pairs.sort(key=lambda pair: _order(pair.point))
    timed = [pair for pair in pairs if pair.low is not None]
    notes = [ALONE] if any(pair.a.runs + pair.b.runs == 2 for pair in timed) else []
    if len(timed) > 1:
        chance = len(timed) * (1 - confidence)
        notes.append(f"of {len(timed)} intervals about {chance:.2g} miss by chance alone")
    return RecordComparison(
        confidence=confidence,
        tolerance=tolerance,
        between=list(between),
        pairs=pairs,
        only_a=_only(points[0], known.union(one for one, _ in matched), rows[1]),
        only_b=_only(points[1], known.union(other for _, other in matched), rows[0]),
        notes=notes,
    )


def label(point: dict[str, str]) -> str:
    """Return a point in few words."""
    names = ("model", "layout", "ranks", "micro_batch", "accumulate")
    model, layout, ranks, micro_batch, accumulate = (point.get(name, "any") for name in names)
    more = "" if accumulate == "1" else f" x {accumulate}"
    word = "rank" if ranks == "1" else "ranks"
    return f"{model} {layout}, {ranks} {word}, micro-batch {micro_batch}{more}"


def table(comparison: RecordComparison) -> Table:
    """Return the pairs as a table."""
    found = Table("point", "verdict")
    for name in ("A, ms", "B, ms", "change", f"{comparison.confidence:.4g} interval", "memory"):
        found.add_column(name, justify="right")
    found.add_column("notes")
    for pair in comparison.pairs:
        sides = [side.step_s for side in (pair.a, pair.b)]
        span = [f"{end - 1:+.1%}" for end in (pair.low, pair.high) if end is not None]
        memory = _change(pair.memory_ratio)
        found.add_row(
            escape(label(pair.point)),
            f"[{COLOURS.get(pair.verdict, 'default')}]{pair.verdict}[/]",
            *("" if side is None else f"{side * 1e3:.4g}" for side in sides),
            _change(pair.ratio),
            " to ".join(span),
            f"[red]{memory}[/]" if pair.memory == "more" else memory,
            escape("; ".join(pair.notes)),
        )
    return found


def _change(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio - 1:+.1%}"


def _rows(path: Path) -> list[KeyedRecord]:
    records = read_on([path])
    if not records:
        raise InputError(f"{path}: no records in it; `hpcgeo-profile run` writes them")
    rows = []
    for record in records:
        where = {
            "layout": record.layout,
            "ranks": str(record.world_size),
            "nodes": str(record.nodes),
            "micro_batch": str(record.micro_batch),
            "accumulate": str(record.accumulate),
        }
        rows.append(KeyedRecord(record, record.key | where))
        values = [record.images_per_s, record.peak_memory_bytes, record.global_batch]
        if record.step_s:
            values += [record.step_s.median, *record.step_s.values]
        if any(value is not None and not 0 < value < math.inf for value in values):
            raise InputError(
                f"{path}: {label(rows[-1].identity)}: a time, rate or size is not above zero"
            )
    return rows


def _points(rows: Sequence[KeyedRecord], between: Sequence[str], path: Path) -> Points:
    """Return the records that were timed by point, repeats together."""
    found: Points = {}
    values: dict[tuple[PointKey, str], str] = {}
    for row in rows:
        if not _worked(row.record):
            continue
        point = row.point(between)
        found.setdefault(point, []).append(row.record)
        for key in between:
            known = values.setdefault((point, key), row.identity[key])
            if known != row.identity[key]:
                raise InputError(
                    f"{path}: {label(dict(point))} has several values of {key} "
                    f"({known[:100]}, {row.identity[key][:100]}): keep one in each of A and B"
                )
    return found


def _matched(a: Points, b: Points) -> list[tuple[PointKey, PointKey]]:
    """Return the points that are on both sides.

    Versions and variables may differ where that leaves one point on each side.
    """
    found = [(point, point) for point in a if point in b]
    loose: dict[PointKey, tuple[list[PointKey], list[PointKey]]] = defaultdict(lambda: ([], []))
    for side, (own, others) in enumerate(((a, b), (b, a))):
        for point in own.keys() - others.keys():
            loose[tuple(each for each in point if each[0] not in SOFT)][side].append(point)
    pairs = [(one, other) for one, other in loose.values() if len(one) == len(other) == 1]
    return found + [(one[0], other[0]) for one, other in pairs]


def _worked(record: Record) -> bool:
    return record.status == "ok" and bool(_times(record))


def _times(record: Record) -> list[float]:
    """Return the step times of a run; where they were not kept, their median; or nothing."""
    if record.step_s:
        return record.step_s.values or [record.step_s.median]
    return [record.global_batch / record.images_per_s] if record.images_per_s else []


def _pair(
    point: PointKey, a: list[Record], b: list[Record], *, tolerance: float, confidence: float
) -> Pair:
    sides, notes = (_side(a), _side(b)), []
    for name, runs, side in zip("AB", (a, b), sides, strict=True):
        if any(record.noisy for record in runs):
            notes.append(f"{name} is noisy")
        if len(side.commits) > 1:
            notes.append(f"{name} holds {len(side.commits)} commits together")
    notes += _unlike(a[0], b[0])
    times = [[_times(record) for record in runs] for runs in (a, b)]
    ratio, span = middle(times[1]) / middle(times[0]), interval(times[0], times[1], confidence)
    verdict: Verdict
    if span is None:
        verdict = "no interval"
        notes.append(f"one run a side, and fewer than {2 * BLOCKS} step times of it")
    elif span[0] <= 1 <= span[1]:
        verdict = "within noise"
    elif 1 / (1 + tolerance) <= ratio <= 1 + tolerance:
        verdict = "within tolerance"
    else:
        verdict = "slower" if ratio > 1 else "faster"
    memory_ratio, memory = _memory(a, b, tolerance)
    if memory is None and all(side.peak_memory_bytes for side in sides):
        notes.append("memory was not measured alike")
    return Pair(
        point=dict(point),
        a=sides[0],
        b=sides[1],
        verdict=verdict,
        ratio=ratio,
        low=span and span[0],
        high=span and span[1],
        memory=memory,
        memory_ratio=memory_ratio,
        notes=notes,
    )


def _unlike(a: Record, b: Record) -> list[str]:
    """Return in words what surrounds the two sides of a pair unlike: versions and variables."""
    ours, theirs = a.surroundings, b.surroundings
    return [
        f"{name} {ours.get(name, 'not set')} in A, {theirs.get(name, 'not set')} in B"
        for name in sorted(ours | theirs)
        if ours.get(name) != theirs.get(name)
    ]


def _side(runs: Sequence[Record]) -> Side:
    return Side(
        runs=len(runs),
        step_s=middle([_times(record) for record in runs]) if runs else None,
        peak_memory_bytes=max((record.peak_memory_bytes or 0 for record in runs), default=0)
        or None,
        commits=sorted({record.commit or "not recorded" for record in runs}),
    )


def _memory(
    a: list[Record], b: list[Record], tolerance: float
) -> tuple[float | None, Change | None]:
    """Return the ratio of the highest peaks, and whether all of one side are above the other's."""
    peaks = [[r.peak_memory_bytes for r in runs if r.peak_memory_bytes] for runs in (a, b)]
    if not all(peaks) or len({record.memory_source for record in [*a, *b]}) > 1:
        return None, None
    change: Change = "same"
    if min(peaks[1]) > max(peaks[0]) * (1 + tolerance):
        change = "more"
    elif max(peaks[1]) * (1 + tolerance) < min(peaks[0]):
        change = "less"
    return max(peaks[1]) / max(peaks[0]), change


def _failed(rows: Sequence[Sequence[KeyedRecord]], between: Sequence[str]) -> Iterator[Pair]:
    """Yield the points that failed on a side and never worked there.

    A point that failed before it started knows neither device nor driver nor the variables of its
    ranks: these keys are left out, as are those that may differ in any pair.
    """
    apart = [*between, *UNSTARTED, *SOFT]
    good, bad = (
        [{row.point(apart): row for row in side if belongs(row.record)} for side in rows]
        for belongs in (_worked, lambda record: record.status != "ok")
    )
    for loose in {**bad[0], **bad[1]}:
        sides = [good[n].get(loose) or bad[n].get(loose) for n in (0, 1)]
        if not (sides[0] and sides[1]) or (loose in good[0] and loose in good[1]):
            continue
        failed = [row.record.status != "ok" for row in sides if row]
        verdict: Verdict = "failed in both" if all(failed) else "failed" if failed[1] else "mended"
        known = sides[1] if failed[0] else sides[0]
        yield Pair(
            point=dict(known.point(between)),
            a=_side([] if failed[0] else [sides[0].record]),
            b=_side([] if failed[1] else [sides[1].record]),
            verdict=verdict,
            notes=[
                f"{name}: {row.record.error or row.record.status}"
                for name, row, broken in zip("AB", sides, failed, strict=True)
                if row and broken
            ],
        )


def _only(points: Points, paired: set[PointKey], others: Sequence[KeyedRecord]) -> list[str]:
    """Return the points without a partner; with what differs, where one looks the same."""
    alike: dict[str, list[dict[str, str]]] = {}
    for row in others:
        alike.setdefault(label(row.identity), []).append(row.identity)
    found = []
    for point in sorted(points.keys() - paired, key=lambda point: _order(dict(point))):
        text = label(dict(point))
        found.append(f"{text}: {_nearest(dict(point), alike[text])}" if text in alike else text)
    return found


def _nearest(mine: dict[str, str], others: Sequence[dict[str, str]]) -> str:
    """Return in words what the nearest of other points differs in."""
    unlike = [[key for key in mine if mine[key] != other[key]] for other in others]
    unlike = [[key for key in keys if key not in SOFT] or keys for keys in unlike]
    keys, theirs = min(zip(unlike, others, strict=True), key=lambda pair: len(pair[0]))
    values = []
    for key in keys:
        if key == "options":
            ours, other = (_options(side[key]) for side in (mine, theirs))
            names = [name for name in sorted(ours | other) if ours.get(name) != other.get(name)]
            values.append(f"options ({', '.join(names[:5])})")
        else:
            values.append(f"{key} ({mine[key][:60]}; there {theirs[key][:60]})")
    return f"differs in {', '.join(values)}" if values else "failed there, or was not timed"


def _options(text: str) -> dict[str, object]:
    return json.loads(text) if text.startswith("{") else {}


def _order(point: dict[str, str]) -> tuple[str, int, str, int]:
    ranks, micro_batch = (int(point.get(name, 0)) for name in ("ranks", "micro_batch"))
    return point.get("model", ""), ranks, point.get("layout", ""), micro_batch
