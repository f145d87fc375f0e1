"""The first screen: a title that answers, one line of trust, and a card a question."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from hpcgeo_analysis import messages, naming
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.figures.steps import SLOWED, WORTH
from hpcgeo_analysis.formatting import counted, digits, gib, listed, percent, rate, size
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.sections.omissions import failed
from hpcgeo_analysis.winner_map import WinnerMap
from hpcgeo_analysis.winners import (
    LEVEL,
    Field,
    LineLoss,
    SmallestGroup,
    losses_of,
    node_hours,
    shared_by,
    smallest_group,
)

#: What the comparisons that the cards speak of have in common with the first map.
_TOGETHER = ("kind", "machine")
#: What starts several ranks.
_LAUNCHERS = ("torchrun", "mpirun", "mpiexec", "srun")


@dataclass(frozen=True)
class Card:
    """One question and its answer.

    Attributes:
        title: the question.
        number: what answers it.
        sentence: what the number is of.
        more: what follows for the rest, in small words.
        link: the anchor of the figure that shows it.
        command: to copy.
    """

    title: str
    number: str
    sentence: str
    more: str = ""
    link: str = ""
    command: str = ""


@dataclass(frozen=True)
class Answers:
    """What the first screen says."""

    title: str
    trust: str
    cards: tuple[Card, ...]


def answers(study: Study, maps: Sequence[WinnerMap]) -> Answers:
    """Return the first screen; `maps` begin with the one it speaks of."""
    labels = naming.models(list(dict.fromkeys(r.model for r in study.records)))[1]
    ours = [each for each in study.comparisons if each.context["kind"] != "predicted"]
    if maps:
        labels |= maps[0].names[1]
        first = maps[0].fields[0].comparison.context
        ours = [each for each in ours if all(each.context[n] == first[n] for n in _TOGETHER)]
    if not study.points:
        return Answers(_title(study, maps), _trust(study), ())
    cards = [
        _run(maps[0], labels) if maps else None,
        _breaks(ours, labels),
        _fits(ours, maps, labels),
        _holds_up(maps[0]) if maps else None,
    ]
    return Answers(_title(study, maps), _trust(study), tuple(c for c in cards if c))


def _title(study: Study, maps: Sequence[WinnerMap]) -> str:
    models = list(dict.fromkeys(record.model for record in study.records))
    machines = list(dict.fromkeys(naming.place(m.machine) for m in (*study.records, *study.links)))
    if not maps:
        return f"{listed(models or ['Collectives'])} on {listed(machines)}"
    first = maps[0]
    family, labels = first.names
    head = f"{family} on {naming.place(first.fields[0].comparison.context['machine'])}"
    fields = list(first.largest.values())
    if len(fields) == 1:
        return f"{head}: {_alone(fields[0])}"
    parts: list[str] = []
    for advice, group in groupby(fields, key=_advice):
        own = [labels[each.comparison.model] for each in group]
        if not parts and len(own) < len(fields):
            parts.append(f"{advice} to {own[-1]}")
        elif len(own) == len(fields):
            parts.append(advice)
        else:
            parts.append(f"{advice} at {own[0]}" if len(own) == 1 else f"{advice} from {own[0]}")
    return f"{head}: {', '.join(parts)}"


def _advice(each: Field) -> str:
    """Return what to do: of lines that tie the one that shards least."""
    level = [each.best, *each.tied]
    return naming.advice(min(level, key=lambda scaled: shared_by(scaled.point) or 10**9).point)


def _alone(each: Field) -> str:
    """Return who is fastest on the most devices of one model, and what it keeps there."""
    best = each.best
    on = counted(each.devices, "device") + _keeping(each)
    if len(each.ranked) == 1:
        speed = f"{rate(best.point.images_per_s)} {each.comparison.noun}/s"
        return f"{best.name} reaches {speed} on {on}"
    if each.tied:
        names = [best.name, *(other.name for other in each.tied)]
        return f"{listed(names) if len(names) < 4 else f'{len(names)} strategies'} tie on {on}"
    if len(each.ranked) == 2:
        verb = "beats" if each.spread else "has a higher rate than"
        return f"{best.name} {verb} {each.ranked[1].name} on {on}"
    return f"{best.name} {'is fastest' if each.spread else 'has the highest rate'} on {on}"


def _keeping(each: Field) -> str:
    """Return what the best keeps; nothing of noise, or where one that ties keeps another share."""
    best, level = each.best, [each.best, *each.tied]
    grew = best.efficiency is not None and best.base is not best.point
    alike = len({percent(scaled.efficiency) for scaled in level}) == 1
    if not grew or not alike or any(scaled.uncertain for scaled in level):
        return ""
    return f", keeping {percent(best.efficiency)} per device"


def _trust(study: Study) -> str:
    """Return what was counted, the rule of ties, and what is not to be trusted."""
    parts = []
    for kind in ("measured", "published", "predicted"):
        own = [point for point in study.points if point.first.kind == kind]
        if own:
            counts = sorted({point.devices for point in own})
            span = f"{counts[0]:,} to {counts[-1]:,}" if len(counts) > 1 else f"{counts[0]:,}"
            noun = "device" if counts == [1] else "devices"
            parts.append(f"{counted(len(own), f'{kind} point')} on {span} {noun}")
    said = [f"{'; '.join(parts) or counted(len(study.links), 'curve')}."]
    timed = [p for p in study.points if p.images_per_s and p.first.kind != "predicted"]
    spread = sum(point.range is not None for point in timed)
    level = f"rates within {percent(LEVEL).removesuffix(' %').rstrip('0').rstrip('.')} % tie."
    if timed and spread == len(timed):
        said.append("Spread p10 to p90: rates whose spreads overlap tie.")
    elif spread:
        said.append(f"Rates whose spreads overlap tie; without a spread {level}")
    elif timed:
        said.append(f"No spread given: {level}")
    noisy = sum(point.noisy for point in study.points)
    if noisy:
        said.append(f"{counted(noisy, 'noisy point')}, hatched.")
    lost = len(failed(study.records)[0])
    if lost:
        said.append(f"{counted(lost, 'failed point')}.")
    trained = {point.layout for point in study.points if point.candidate}
    silent = sorted({point.layout for point in study.points if point.baseline} - trained)
    if silent:
        said.append(f"{listed(silent)} exchanged no gradients: baseline, not ranked.")
    return " ".join(said)


def _run(first: WinnerMap, labels: dict[str, str]) -> Card:
    each = list(first.largest.values())[-1]
    best, noun = each.best, each.comparison.noun
    what = f"{labels[each.comparison.model]} on {counted(each.devices, 'device')}: {best.name}"
    if each.tied:
        what += f", level with {listed([other.name for other in each.tied])}"
    hours = node_hours(best.point)
    more = f"{digits(hours)} node-hours per million {noun}." if hours else ""
    number = f"{rate(best.point.images_per_s)} {noun}/s"
    command = _launched(best.point, _command(best.point))
    return Card("Run this", number, f"{what}.", more, "scaling", command)


def _command(point: StudyPoint) -> str:
    """Return the command that measured a point last, as its ranks saw it."""
    return (point.all(lambda record: record.command) or [""])[-1]


def _launched(point: StudyPoint, command: str) -> str:
    """Return a command with a launcher; nothing where that of several nodes was not recorded."""
    if not command or point.devices == 1 or command.startswith(_LAUNCHERS):
        return command
    start = f"torchrun --nproc-per-node {point.devices} --no-python"
    return f"{start} {command}" if point.nodes == 1 else ""


def _breaks(ours: Sequence[Comparison], labels: dict[str, str]) -> Card | None:
    """Return which line loses most where it first breaks, and where it does with other models."""
    lines = [line for comparison in ours for line in comparison.lines.values()]
    breaks = ([loss for loss in losses_of(line) if loss.breaks] for line in lines)
    found = sorted((first[0] for first in breaks if first), key=lambda loss: -loss.share)
    if not found:
        return _unbroken([line for line in lines if line[-1].efficiency is not None])
    worst = found[0]
    first, second = worst.before.point, worst.after.point
    where = f"from {first.devices:,} to {counted(second.devices, 'device')}"
    sentence = f"per device for {worst.after.name} of {labels[second.first.model]} {where}"
    large, small = messages.of_point(first), messages.of_point(second)
    if large and small and small.rank_bytes < large.rank_bytes:
        sentence += f": {small.collective} falls to {size(small.rank_bytes)} a rank"
    others: dict[str, LineLoss] = {}
    for loss in found:
        if (
            loss.after.line == worst.after.line
            and loss.after.point.first.model != second.first.model
        ):
            others.setdefault(loss.after.point.first.model, loss)
    by_size = sorted(others.items(), key=lambda pair: pair[1].after.point.parameters or 0)
    more = [
        f"{labels[model]} {_minus(loss.share)} at {loss.after.point.devices:,}"
        for model, loss in by_size[:4]
    ]
    also = f"{', '.join(more)}." if more else ""
    return Card("It breaks here", _minus(worst.share), f"{sentence}.", also, "scaling")


def _unbroken(grown: Sequence[Sequence[Scaled]]) -> Card | None:
    """Return what all lines keep, or that none has two sizes; nothing where one is noisy."""
    if not grown:
        how = "One size a line. Measure a second: hpcgeo-profile sweep."
        return Card("It breaks here", "not known", how)
    if any(scaled.uncertain for line in grown for scaled in line):
        return None
    least = min(grown, key=lambda line: line[-1].efficiency or 0)[-1]
    sentence = f"of its rate per device kept to {counted(least.point.devices, 'device')}"
    return Card(
        "Nothing breaks",
        percent(least.efficiency),
        f"{least.name} keeps least: so much {sentence}.",
        "",
        "scaling",
    )


def _minus(share: float) -> str:
    return f"\N{MINUS SIGN}{percent(share)}"


def _fits(ours: Sequence[Comparison], maps: Sequence[WinnerMap], labels: dict[str, str]) -> Card:
    """Return the largest model that fits one device, and what larger ones need.

    Of several precisions it is the one of the first map.
    """
    best: dict[str, SmallestGroup] = {}
    dtypes = {maps[0].fields[0].comparison.context["dtype"]} if maps else set()
    for comparison in [each for each in ours if each.context["dtype"] in dtypes] or ours:
        fit = smallest_group(comparison)
        known = best.get(comparison.model)
        if fit and (
            known is None or (fit.group, fit.taken_bytes) < (known.group, known.taken_bytes)
        ):
            best[comparison.model] = fit
    found = sorted(best.values(), key=lambda fit: fit.point.parameters or 0)
    if not found:
        how = "Memory was not recorded; hpcgeo profile records it."
        return Card("It fits", "not known", how, "", "memory")
    alone = [place for place, fit in enumerate(found) if fit.group == 1]
    chosen = alone[-1] if alone else 0
    fit = found[chosen]
    on = "1 device" if fit.group == 1 else f"each of {fit.group:,} devices"
    sentence = f"of {on} for {labels[fit.point.first.model]}, {fit.point.layout}"
    if fit.limit_bytes:
        sentence += f": {gib(fit.taken_bytes)} of {gib(fit.limit_bytes)} GiB"
    larger = [
        f"{labels[other.point.first.model]} needs {counted(other.group, 'device')}"
        for other in found[chosen + 1 :]
    ]
    number = percent(fit.share) if fit.share else f"{gib(fit.taken_bytes)} GiB"
    more = f"{'; '.join(larger)}." if larger else ""
    words = f"{sentence} {fit.kind}{', tight' * fit.tight}."
    return Card("It fits", number, words, more, "memory")


@dataclass(frozen=True)
class _Cause:
    """What takes time beside compute: its share of a point's step, and the options to turn."""

    words: str
    share: Callable[[StudyPoint], float | None]
    options: Callable[[StudyPoint], tuple[str, ...]]


def _phase(*names: str) -> Callable[[StudyPoint], float | None]:
    def share(point: StudyPoint) -> float | None:
        phases = point.typical("phases") or {}
        known = [phases[name] for name in names if name in phases]
        return sum(known) / phases["step_s"] if known and phases["step_s"] else None

    return share


def _trusted(point: StudyPoint) -> bool:
    """Whether a trace divides the step, and hardly slowed it."""
    step, own = (point.typical("activity") or {}).get("step_s"), point.step_s
    return bool(step and own and step <= SLOWED * own)


def _collectives(point: StudyPoint) -> float | None:
    """Return the share of a step in which a collective runs, where no trace says what is hidden."""
    own, step = point.median(lambda record: record.comm_s), point.step_s
    return own / step if own is not None and step and not _trusted(point) else None


def _traced(name: str) -> Callable[[StudyPoint], float | None]:
    def share(point: StudyPoint) -> float | None:
        activity = point.typical("activity")
        return activity[name] / activity["step_s"] if activity and _trusted(point) else None

    return share


def _workers(point: StudyPoint) -> tuple[str, ...]:
    data = (point.first.config or {}).get("data")
    now = data.get("workers") if isinstance(data, dict) else None
    return (f"data.workers={max(2, 2 * now) if isinstance(now, int) else 2}",)


def _grouping(point: StudyPoint) -> tuple[str, ...]:
    """Shard inside a node where shards cross nodes; else more work between collectives."""
    inside = point.devices // point.nodes
    if point.nodes > 1 and inside > 1 and (shared_by(point) or 0) > inside:
        return "parallel.strategy=HYBRID_SHARD", f"parallel.group_size={inside}"
    return (f"train.micro_batch={2 * point.first.micro_batch}",)


_CAUSES = (
    _Cause("waiting for data", _phase("data_wait_s"), _workers),
    _Cause("augmentation and copies", _phase("augmentation_s", "host_to_device_s"), _workers),
    _Cause("exposed communication", _traced("exposed_comm_s"), _grouping),
    _Cause("collectives, compute beside them or not", _collectives, _grouping),
    _Cause("the host, launching work", _traced("idle_s"), lambda _: ("parallel.compile=true",)),
)


def _holds_up(first: WinnerMap) -> Card | None:
    """Return what takes most of the step of the best beside compute, where a clock said so.

    Without a trace to trust it is one of collectives and waits, if both were measured and matter.
    """
    best = list(first.largest.values())[-1].best
    trusted = _trusted(best.point)
    if not trusted and _collectives(best.point) is None:
        return None
    shares = [(share, cause) for cause in _CAUSES if (share := cause.share(best.point)) is not None]
    if not shares:
        return None
    share, cause = max(shares, key=lambda pair: pair[0])
    what = f"{best.name} on {counted(best.point.devices, 'device')}"
    title = "What holds it up"
    if share < WORTH and not trusted:
        return None
    if share < WORTH:
        most = f"The most beside compute: {cause.words}, of a step of {what}."
        return Card(title, percent(share), most, "", "steps")
    options = cause.options(best.point)
    command = _launched(best.point, _turned(_command(best.point), options))
    sentence = f"of a step of {what} goes to {cause.words}."
    return Card(title, percent(share), sentence, f"Try {' '.join(options)}.", "steps", command)


def _turned(command: str, options: Sequence[str]) -> str:
    """Return a command with options set, before its first flag; nothing of one that is none."""
    names = tuple(f"{option.split('=')[0]}=" for option in options)
    try:
        words = [word for word in shlex.split(command) if not word.startswith(names)]
    except ValueError:  # a quotation that does not end
        return ""
    if not words:
        return ""
    at = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    return shlex.join([*words[:at], *options, *words[at:]])
