"""What is the best configuration per model and number of nodes, and by how much."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from hpcgeo.records import SOFT
from hpcgeo_analysis.blocks import ReportBlock, Section, Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.formatting import (
    NOT_MEASURED,
    counted,
    devices,
    gib,
    listed,
    percent,
    rate,
    times,
)
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.sections.scaling import marked
from hpcgeo_analysis.tables import (
    Table,
    TableCell,
    line,
    number,
    text,
    valued,
    whole,
    without_constant,
    without_empty,
)
from hpcgeo_analysis.winners import LEVEL, Field, fields


def section(study: Study) -> Section:
    """Return the table of the best, and who is fastest in sentences."""
    found = fields(study.comparisons)
    blocks = []
    rivals = [each for each in found if len(each.ranked) > 1]
    if found:
        sentences = [*serves(found), *(_alone(found) if rivals else [])]
        blocks.append(ReportBlock("", sentences, tables=[_table(rivals or found)]))
        by_comparison: dict[int, list[Field]] = defaultdict(list)
        for each in found:
            by_comparison[each.comparison.number].append(each)
        blocks += [
            ReportBlock(own[0].comparison.title, fastest(own)) for own in by_comparison.values()
        ]
    return Section("best", "Best configuration", "", [b for b in blocks if not b.empty])


def serves(found: Sequence[Field]) -> list[str]:
    """Return which line serves which model best, where several models were run alike."""
    groups: dict[tuple[str, ...], dict[str, Field]] = defaultdict(dict)
    for each in found:
        context = each.comparison.context
        unsaid = ("model", "options", *SOFT)
        alike = tuple(v for name, v in context.items() if name not in unsaid)
        if len(each.ranked) > 1:
            key = (*alike, each.comparison.fixed)
            largest = groups[key].get(each.comparison.model)
            if largest is None or each.best.point.devices >= largest.best.point.devices:
                groups[key][each.comparison.model] = each
    sentences = []
    for key, models in groups.items():
        if len(models) < 2:
            continue
        counts = {each.best.point.devices for each in models.values()}
        served: dict[str, list[str]] = defaultdict(list)
        for model, each in models.items():
            names = listed([each.best.name, *(other.name for other in each.tied)])
            level = " (not told apart)" if each.tied else ""
            on = f" on {each.best.point.devices:,}" if len(counts) > 1 else ""
            served[names + level].append(f"{model}{on}")
        parts = [f"{names} for {listed(where)}" for names, where in served.items()]
        each = next(iter(models.values()))
        where = f"{key[1]}, {key[-1].split(' (')[0]}"
        where += f", {each.comparison.setting}" if each.comparison.setting else ""
        size = counted(max(counts), "device") if len(counts) == 1 else "the most devices of each"
        spread = all(each.spread for each in models.values())
        what = "Fastest" if spread else "Highest rate"
        end = "" if spread else "; no spread given"
        sentences.append(f"{what} on {size} ({where}): {'; '.join(parts)}{end}.")
    return sentences


def fastest(found: Sequence[Field]) -> list[str]:
    """Return who is fastest at which numbers of devices of one comparison, and by how much."""
    verdicts: dict[tuple[bool, tuple[str, ...]], list[Field]] = defaultdict(list)
    alone = []
    for each in found:
        if len(each.ranked) > 1:
            order = list(each.comparison.lines)
            level = sorted([each.best, *each.tied], key=lambda scaled: order.index(scaled.line))
            verdicts[each.spread, tuple(scaled.line for scaled in level)].append(each)
        else:
            alone.append(each)
    sentences = [_verdict(lines, where) for (_, lines), where in verdicts.items()]
    if alone and verdicts:
        names = [f"{e.best.name} on {counted(e.best.point.devices, 'device')}" for e in alone]
        sentences.append(f"Without a rival: {listed(names)}.")
    return sentences


def _alone(found: Sequence[Field]) -> list[str]:
    """Return which lines have nobody beside them in their whole comparison."""
    rivals = {each.comparison.number for each in found if len(each.ranked) > 1}
    lines: dict[str, list[str]] = defaultdict(list)
    for each in found:
        comparison = each.comparison
        if comparison.number not in rivals:
            what = comparison.setting or comparison.fixed.split(" (")[0]
            lines[f"{each.best.line} ({what})"].append(comparison.model)
    parts = [f"{line} of {listed(list(dict.fromkeys(own)))}" for line, own in lines.items()]
    return [f"Without a rival in its setting, so not ranked: {'; '.join(parts)}."] if parts else []


def _verdict(lines: Sequence[str], found: Sequence[Field]) -> str:
    last = found[-1]
    shown = [scaled for each in found for scaled in each.ranked]
    names = [marked(line, shown) for line in lines]
    best, tied = last.best, last.tied
    counts = [each.best.point.devices for each in found]
    on = f" on {counts[-1]:,}" if len(counts) > 1 else ""
    speed = f"{rate(best.point.images_per_s)} {last.comparison.noun}/s{on}"
    where = f"for {last.comparison.model} on {devices(counts, last.comparison.devices)}"
    slower = [other for other in last.ranked[1:] if other not in tied]
    ratios = [f"{times(_ratio(best, other))} {other.name}" for other in slower]
    if len(slower) > 1:
        ratios = [f"{ratios[0]} (next)", f"{ratios[-1]} (slowest)"]
    if not tied and last.spread:
        return f"{names[0]} is fastest {where}: {speed}, {listed(ratios)}."
    if not tied:
        verb = "has the highest rate"
        return f"{names[0]} {verb} {where}: {speed}, {listed(ratios)}; no spread given."
    why = (
        "their spreads overlap"
        if last.spread
        else f"less than {percent(LEVEL)} apart beside rounding, no spread given"
    )
    sentence = f"{listed(names)} cannot be told apart {where} ({why}): {speed} of {best.name}"
    return f"{', '.join([sentence, 'the highest', *([listed(ratios)] if ratios else [])])}."


def _table(found: Sequence[Field]) -> Table:
    kinds = {kind for each in found for kind in [*each.best.point.held][:1]}
    memory = f"{next(iter(kinds))} (GiB)" if len(kinds) == 1 else "memory (GiB)"
    rows = []
    for each in found:
        best, comparison = each.best, each.comparison
        point = best.point
        rows.append(
            [
                text(comparison.model),
                whole(point.nodes),
                whole(point.devices),
                text(comparison.setting or "as the rest", "words"),
                text(comparison.fixed),
                line(best),
                number(rate(point.images_per_s), point.images_per_s, "best"),
                *_lead(each),
                _memory(point, kinds),
                valued(percent, best.efficiency),
            ]
        )
    nouns = sorted({f"{each.comparison.noun}/s" for each in found})
    head = ["model", "nodes", "devices", "setting", "batch", "best", " or ".join(nouns), "lead"]
    head += ["over", "told apart", memory, "efficiency"]
    apart = sorted(
        {f"{e.comparison.model}: {e.comparison.apart}" for e in found if e.comparison.apart}
    )
    like = "" if apart else ", like with like"
    notes = [f"Not like for like, as asked: {'. '.join(apart)}."] if apart else []
    table = Table(f"The highest rate of each model and number of nodes{like}", head, rows, notes)
    table = without_empty(table, (memory, "efficiency"))
    return without_constant(table, ("nodes", "setting", "batch", "model"))


def _memory(point: StudyPoint, kinds: Collection[str]) -> TableCell:
    """Return the peak that decides whether a model fits, with its kind where there are several."""
    for kind, value in point.held.items():
        return number(f"{gib(value)} {kind}" if len(kinds) > 1 else gib(value), value)
    return number(NOT_MEASURED, None)


def _lead(each: Field) -> list[TableCell]:
    if len(each.ranked) < 2:
        return [number("no rival", None), text("none", "missing"), text("no rival", "missing")]
    other = each.ranked[1]
    ratio = _ratio(each.best, other)
    told = "yes" if each.spread else "no spread"
    if other in each.tied:
        told = "no" if each.spread else "no, level"
    return [
        number(f"{(ratio - 1) * 100:.1f} %", ratio),
        text(other.name, "line noisy" if other.point.mark else "line"),
        text(told),
    ]


def _ratio(best: Scaled, other: Scaled) -> float:
    assert best.point.images_per_s and other.point.images_per_s, NOT_MEASURED
    return best.point.images_per_s / other.point.images_per_s
