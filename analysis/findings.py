"""What the data say, in sentences; each one is drawn from points, none is kept ready."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hpcgeo.records import Record
from hpcgeo_analysis.scaling import Comparison, Point, Scaled, differing
from hpcgeo_analysis.words import counted, devices, gib, listed, percent, rate, seconds, times

#: Two medians closer than this are called equal where no spread is given.
EQUAL = 0.005
#: A line "drops" between two counts where its efficiency falls to less than this part.
DROP = 0.75
#: Memory further apart than this is worth a sentence.
MEMORY = 1.02
#: Shares of a step from which waiting for data and communicating are worth a sentence.
WAIT, COMMUNICATION = 0.05, 0.10
#: Largest disagreement between images_per_s and global_batch / median step.
DISAGREE = 0.02


@dataclass(frozen=True)
class Findings:
    """Sentences under one heading."""

    title: str
    sentences: list[str]


def of_comparison(comparison: Comparison) -> Findings:
    """Return what one comparison shows: the fastest, how each line scales, memory, time lost."""
    sentences = [
        *fastest(comparison),
        *scaling(comparison),
        *memory(comparison),
        *lost_time(comparison),
    ]
    return Findings(comparison.title, sentences or ["Nothing was measured here."])


def fastest(comparison: Comparison) -> list[str]:
    """Return who is fastest at which numbers of devices, and by how much."""
    verdicts: dict[tuple[str, tuple[str, ...]], list[list[Scaled]]] = defaultdict(list)
    alone = []
    for count in comparison.devices:
        ranked = sorted(
            (s for s in comparison.scaled if s.point.devices == count and s.point.images_per_s),
            key=lambda scaled: -(scaled.point.images_per_s or 0),
        )
        if len(ranked) > 1:
            tied = tuple(_name(other) for other in ranked[1:] if _within(ranked[0], other))
            verdicts[_name(ranked[0]), tied].append(ranked)
        elif ranked:
            alone.append(f"{ranked[0].line} on {counted(count, 'device')}")
    sentences = [
        _verdict(comparison, best, tied, found) for (best, tied), found in verdicts.items()
    ]
    if alone and len(comparison.lines) > 1:
        sentences.append(f"Without a rival: {listed(alone)}.")
    return sentences


def _verdict(
    comparison: Comparison, best: str, tied: tuple[str, ...], found: list[list[Scaled]]
) -> str:
    ranked = found[-1]
    counts = [row[0].point.devices for row in found]
    last = f" on {counts[-1]:,}" if len(counts) > 1 else ""
    speed = f"{rate(ranked[0].point.images_per_s)} images/s{last}"
    model = comparison.context["model"]
    where = devices(counts, comparison.devices)
    if not tied:
        others = [ranked[1]] if len(ranked) == 2 else [ranked[1], ranked[-1]]
        ratios = [f"{_ratio(ranked[0], other)} {_name(other)}" for other in others]
        if len(others) == 2:
            ratios = [f"{ratios[0]} (next)", f"{ratios[1]} (slowest)"]
        return f"{best} is fastest for {model} on {where}: {speed}, {listed(ratios)}."
    text = f"{best} has the highest median for {model} on {where}, {speed}, "
    text += f"but the lead over {listed(tied)} is within noise"
    clear = [other for other in ranked[1:] if not _within(ranked[0], other)]
    if clear:
        text += f"; it is {_ratio(ranked[0], clear[-1])} {_name(clear[-1])}"
    return f"{text}."


def scaling(comparison: Comparison) -> list[str]:
    """Return how much of its throughput per device each line keeps, and where it loses it."""
    ends: dict[tuple[int, int], list[Scaled]] = defaultdict(list)
    single, drops = [], []
    for line, members in comparison.lines.items():
        known = [scaled for scaled in members if scaled.efficiency is not None]
        if not known:
            single.append(line)
            continue
        assert known[0].base is not None
        ends[known[0].base.devices, known[-1].point.devices].append(known[-1])
        drops += _drops(known)
    sentences = []
    for (base, top), lasts in sorted(ends.items()):
        kept = sorted(lasts, key=lambda scaled: -(scaled.efficiency or 0))
        parts = [f"{_name(scaled)} {_kept(scaled)}" for scaled in kept]
        own = "its own run" if len(kept) == 1 else "their own runs"
        sentences.append(
            f"From {base:,} to {counted(top, 'device')} ({comparison.mode} scaling), throughput "
            f"per device kept of {own} on {base:,}: {listed(parts)}."
        )
    if len({base for base, _ in ends}) > 1:
        sentences.append("Efficiencies against runs of different size are not comparable.")
    sentences += drops
    if single and comparison.devices != [comparison.devices[0]]:
        verb = "was" if len(single) == 1 else "were"
        sentences.append(
            f"{listed(single)} {verb} measured at one number of devices only: no efficiency "
            "is claimed."
        )
    return sentences


def _kept(scaled: Scaled) -> str:
    text = percent(scaled.efficiency)
    if scaled.low is not None and scaled.high is not None and scaled.low <= 1 <= scaled.high:
        return f"{text} (within noise of ideal)"
    return text


def _drops(known: Sequence[Scaled]) -> list[str]:
    steps = [
        (after.efficiency / before.efficiency, before, after)
        for before, after in pairwise(known)
        if before.efficiency and after.efficiency
    ]
    if len(steps) < 2:
        return []
    ratio, before, after = min(steps, key=lambda step: step[0])
    if ratio >= DROP:
        return []
    return [
        f"{_name(after)} loses most between {before.point.devices:,} and "
        f"{after.point.devices:,} devices: from {percent(before.efficiency)} to "
        f"{percent(after.efficiency)} of its throughput per device."
    ]


def memory(comparison: Comparison) -> list[str]:
    """Return who needs least memory, and whose memory changes with the number of devices."""
    sentences = []
    for source in memory_sources(comparison):
        known = [scaled for scaled in comparison.scaled if scaled.point.memory_source == source]
        counts = sorted({scaled.point.devices for scaled in known}, reverse=True)
        rows = ([s for s in known if s.point.devices == count] for count in counts)
        row = next((row for row in rows if len(row) > 1), None)
        if row is not None:
            sentences.append(_least(row, source))
        sentences += _change(comparison, source)
    return sentences


def memory_sources(comparison: Comparison) -> list[str]:
    """Return the kinds of memory that were measured, e.g. ``reserved``."""
    return sorted({s.point.memory_source for s in comparison.scaled if s.point.memory_bytes})


def _least(row: Sequence[Scaled], source: str) -> str:
    ordered = sorted(row, key=lambda scaled: scaled.point.memory_bytes or 0)
    least, most = ordered[0], ordered[-1]
    assert least.point.memory_bytes and most.point.memory_bytes
    ratio = most.point.memory_bytes / least.point.memory_bytes
    where = f"On {counted(least.point.devices, 'device')}"
    if ratio < MEMORY:
        return (
            f"{where} {source} memory differs by less than {percent(MEMORY - 1)} between "
            f"strategies: {gib(least.point.memory_bytes)} GiB per rank."
        )
    return (
        f"{where} {_name(least)} needs least {source} memory, {gib(least.point.memory_bytes)} GiB "
        f"per rank; {_name(most)} most, {gib(most.point.memory_bytes)} GiB ({times(ratio)})."
    )


def _change(comparison: Comparison, source: str) -> list[str]:
    parts = []
    for line, members in comparison.lines.items():
        known = [s.point for s in members if s.point.memory_source == source]
        if len(known) < 2 or not known[0].memory_bytes or not known[-1].memory_bytes:
            continue
        ratio = known[-1].memory_bytes / known[0].memory_bytes
        if not 0.8 <= ratio <= 1.25:
            parts.append(
                f"{line} from {gib(known[0].memory_bytes)} GiB on {known[0].devices:,} to "
                f"{gib(known[-1].memory_bytes)} GiB on {known[-1].devices:,}"
            )
    if not parts:
        return []
    shrinks = " (the micro-batch changes with them)" if comparison.mode == "strong" else ""
    changes = f"{source.capitalize()} memory per rank changes with the devices{shrinks}"
    return [f"{changes}: {listed(parts)}."]


def lost_time(comparison: Comparison) -> list[str]:
    """Return where a step waits for data or communicates for a noticeable share of its time."""
    sentences = []
    for what, name, least in (
        ("Waiting for data takes", "data_wait_s", WAIT),
        ("Collectives run during", "comm_s", COMMUNICATION),
    ):
        shares = []
        for scaled in comparison.scaled:
            part, step = getattr(scaled.point, name), scaled.point.step_s
            if part is not None and step:
                shares.append((part / step, scaled))
        if not shares:
            continue
        share, worst = max(shares, key=lambda pair: pair[0])
        if share >= least:
            low = min(share for share, _ in shares)
            text = f"{what} up to {percent(share)} of a step: {_name(worst)} on "
            text += counted(worst.point.devices, "device")
            sentences.append(text + (f" (least anywhere: {percent(low)})." if low < share else "."))
    return sentences


def noisy(comparisons: Sequence[Comparison]) -> list[str]:
    """Return which points spread too far to be trusted."""
    found: dict[Point, tuple[Scaled, Comparison]] = {}
    for comparison in comparisons:
        for scaled in comparison.scaled:
            if scaled.noisy:
                found.setdefault(scaled.point, (scaled, comparison))
    return [
        f"{comparison.context['model']}, {scaled.line} on "
        f"{counted(scaled.point.devices, 'device')}: {seconds(scaled.point.step_s)} a step, "
        f"{seconds(scaled.point.step_low_s)} to {seconds(scaled.point.step_high_s)}."
        for scaled, comparison in found.values()
    ]


def failures(records: Sequence[Record]) -> list[str]:
    """Return which points failed and why."""
    sentences = []
    for record in records:
        if record.status == "failed":
            what = f"{record.model}, {record.layout} on {counted(record.world_size, 'device')}"
            sentences.append(
                f"{what}: {record.error or 'no cause was recorded'}.".replace("..", ".")
            )
    return sentences


def separated(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what keeps records apart, from their own values."""
    contexts = [tuple(comparison.context.values()) for comparison in comparisons]
    return [f"{name}: {listed(values)}" for name, values in differing(contexts).items()]


def cautions(
    comparisons: Sequence[Comparison], records: Sequence[Record], copies: int
) -> list[str]:
    """Return what a reader should know before trusting the numbers."""
    sentences = []
    if copies:
        sentences.append(f"{counted(copies, 'record')} read twice and counted once.")
    dirty = sum(record.dirty is True for record in records)
    if dirty:
        sentences.append(f"{counted(dirty, 'record')} made from a tree with uncommitted changes.")
    timed = {s.point for c in comparisons for s in c.scaled if s.point.images_per_s}
    bare = sum(point.low is None for point in timed)
    if bare:
        sentences.append(
            f"{counted(bare, 'point')} of {len(timed):,} without a spread: small differences "
            "between them cannot be told from noise."
        )
    for comparison in comparisons:
        rows = [row for scaled in comparison.scaled for row in scaled.point.rows]
        commits = sorted({(records[row].commit or "")[:10] for row in rows} - {""})
        if len(commits) > 1:
            sentences.append(f"{comparison.title}: made by several commits: {listed(commits)}.")
    above = [record.mfu for record in records if record.mfu is not None and record.mfu > 1]
    if above:
        sentences.append(
            f"{counted(len(above), 'record')} with an MFU above 100 % (up to "
            f"{percent(max(above))}): impossible, so the peak or the FLOPs are wrong; not shown."
        )
    for record in records:
        where = f"{record.model}, {record.layout} on {counted(record.world_size, 'device')}"
        if record.step_s and record.images_per_s:
            implied = record.global_batch / record.step_s.median
            if abs(record.images_per_s / implied - 1) > DISAGREE:
                sentences.append(
                    f"{where}: images_per_s is {rate(record.images_per_s)}, but global batch over "
                    f"median step is {rate(implied)}."
                )
    return sentences


def _within(best: Scaled, other: Scaled) -> bool:
    """Whether the spreads of two points overlap."""
    if best.point.low is None or other.point.high is None:
        return False
    return other.point.high >= best.point.low


def _ratio(best: Scaled, other: Scaled) -> str:
    assert best.point.images_per_s and other.point.images_per_s
    ratio = best.point.images_per_s / other.point.images_per_s
    return "level with" if ratio < 1 + EQUAL else times(ratio)


def _name(scaled: Scaled) -> str:
    return f"{scaled.line} (noisy)" if scaled.noisy else scaled.line
