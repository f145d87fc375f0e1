"""The first screen: a title that answers, one line of trust, and a card a question."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from hpcgeo_analysis import messages, naming
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.formatting import counted, digits, gib, listed, percent, rate, size
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.winner_map import WinnerMap
from hpcgeo_analysis.winners import LEVEL, TIGHT, Field, LineLoss, losses_of, node_hours

#: A cause of time that takes less of a step than this holds nothing up.
WORTH = 0.05
#: Tracing that slows a step by more than this says nothing of the step as it was measured.
SLOWED = 1.15


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
    cards = [
        _run(maps[0], labels) if maps else None,
        _breaks(study, labels),
        _fits(study, labels),
        _holds_up(maps[0]) if maps else None,
    ]
    return Answers(_title(study, maps), _trust(study, maps), tuple(c for c in cards if c))


def _title(study: Study, maps: Sequence[WinnerMap]) -> str:
    models = list(dict.fromkeys(record.model for record in study.records))
    machines = list(dict.fromkeys(naming.place(m.machine) for m in (*study.records, *study.links)))
    if not maps:
        return f"{listed(models or ['Collectives'])} on {listed(machines)}"
    first = maps[0]
    family, labels = naming.models(first.models)
    head = f"{family} on {naming.place(first.fields[0].comparison.context['machine'])}"
    fields = list(first.largest.values())
    if len(fields) == 1:
        return f"{head}: {_alone(fields[0])}"
    parts = []
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
    return naming.advice(min(level, key=lambda scaled: naming.shards(scaled.point) or 10**9).point)


def _alone(each: Field) -> str:
    on = counted(each.devices, "device")
    best = each.best
    if len(each.ranked) == 1:
        speed = f"{best.line} reaches {rate(best.point.images_per_s)} {each.comparison.noun}/s"
        return f"{speed} on {on}"
    if each.tied:
        return f"{listed([best.line, *(other.line for other in each.tied)])} tie on {on}"
    if len(each.ranked) == 2:
        verb = "beats" if each.spread else "has a higher rate than"
        return f"{best.line} {verb} {each.ranked[1].line} on {on}"
    return f"{best.line} {'is fastest' if each.spread else 'has the highest rate'} on {on}"


def _trust(study: Study, maps: Sequence[WinnerMap]) -> str:
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
    if len(maps) > 1:
        said.append(f"{counted(len(maps), 'setting')}, each on its own.")
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
    commands = best.point.all(lambda record: record.command)
    return Card("Run this", number, f"{what}.", more, "scaling", commands[-1] if commands else "")


def _breaks(study: Study, labels: dict[str, str]) -> Card:
    """Return where a line that competes loses most, and where else it does."""
    lines = {
        (line[0].line, line[0].point.first.model, comparison.number): line
        for comparison in study.comparisons
        if comparison.context["kind"] != "predicted"
        for line in comparison.lines.values()
    }
    every = (loss for line in lines.values() for loss in losses_of(line) if loss.breaks)
    found = sorted(every, key=lambda loss: -loss.share)
    if not found:
        return _unbroken([line for line in lines.values() if line[-1].efficiency is not None])
    worst = found[0]
    first, second = worst.before.point, worst.after.point
    name = worst.after.name
    where = f"from {first.devices:,} to {counted(second.devices, 'device')}"
    sentence = f"{name} of {labels[second.first.model]} per device, {where}"
    large, small = messages.of_point(first), messages.of_point(second)
    if large and small and small.rank_bytes < large.rank_bytes:
        sentence += f"; messages fall to {size(small.rank_bytes)}"
    others: dict[str, LineLoss] = {}
    for drop in found:
        if drop.after.line == worst.after.line:
            others.setdefault(drop.after.point.first.model, drop)
    more = [
        f"{labels[model]} {_minus(drop.share)} at {drop.after.point.devices:,}"
        for model, drop in list(others.items())[1:4]
    ]
    also = f"Also {', '.join(more)}." if more else ""
    return Card("It breaks here", _minus(worst.share), f"{sentence}.", also, "scaling")


def _unbroken(grown: Sequence[Sequence[Scaled]]) -> Card:
    """Return what all lines keep, or that none has two sizes."""
    if not grown:
        how = "One size a line. Measure a second: hpcgeo-profile sweep."
        return Card("It breaks here", "not known", how)
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


@dataclass(frozen=True)
class _Fit:
    """The smallest group that holds a copy of a model, and what a device holds there."""

    group: int
    kind: str
    held: int
    point: StudyPoint

    @property
    def share(self) -> float | None:
        """Of what a device has."""
        limit = self.point.memory.limit_bytes if self.point.memory else None
        return self.held / limit if limit else None


def _smallest(study: Study) -> list[_Fit]:
    """Return of each model how it fits on fewest devices, by size of model."""
    found: dict[str, _Fit] = {}
    for point in study.points:
        group = naming.shards(point)
        if group is None or not (point.candidate and point.held) or point.first.kind == "predicted":
            continue
        fit = _Fit(group, *next(iter(point.held.items())), point)
        known = found.get(point.first.model)
        if known is None or (group, fit.held) < (known.group, known.held):
            found[point.first.model] = fit
    return sorted(found.values(), key=lambda fit: fit.point.parameters or 0)


def _fits(study: Study, labels: dict[str, str]) -> Card:
    """Return the largest model that fits one device, and what larger ones need."""
    found = _smallest(study)
    if not found:
        how = "Memory was not recorded; hpcgeo profile records it."
        return Card("It fits", "not known", how, "", "memory")
    alone = [place for place, fit in enumerate(found) if fit.group == 1]
    chosen = alone[-1] if alone else 0
    fit = found[chosen]
    on = "one device" if fit.group == 1 else f"a group of {fit.group:,} devices"
    limit = f" of {gib(fit.held / fit.share)}" if fit.share else ""
    tight = ", tight" if fit.share and fit.share > TIGHT else ""
    sentence = (
        f"{labels[fit.point.first.model]} on {on}: {gib(fit.held)}{limit} GiB {fit.kind}{tight}."
    )
    larger = [
        f"{labels[other.point.first.model]} needs {counted(other.group, 'device')}"
        for other in found[chosen + 1 :]
    ]
    number = percent(fit.share) if fit.share else f"{gib(fit.held)} GiB"
    more = f"{'; '.join(larger)}." if larger else ""
    return Card("It fits", number, sentence, more, "memory")


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


def _traced(name: str) -> Callable[[StudyPoint], float | None]:
    def share(point: StudyPoint) -> float | None:
        activity = point.typical("activity") or {}
        step, own = activity.get("step_s"), point.step_s
        return activity[name] / step if step and own and step <= SLOWED * own else None

    return share


def _workers(point: StudyPoint) -> tuple[str, ...]:
    now = ((point.first.config or {}).get("data") or {}).get("workers") or 0
    return (f"data.workers={max(2, 2 * now)}",)


def _grouping(point: StudyPoint) -> tuple[str, ...]:
    """Shard inside a node where shards cross nodes; else more work between collectives."""
    inside = point.devices // point.nodes
    if point.nodes > 1 and inside > 1 and (naming.shards(point) or 0) > inside:
        return "parallel.strategy=HYBRID_SHARD", f"parallel.group_size={inside}"
    return (f"train.micro_batch={2 * point.first.micro_batch}",)


_CAUSES = (
    _Cause("waiting for data", _phase("data_wait_s"), _workers),
    _Cause("augmentation and copies", _phase("augmentation_s", "host_to_device_s"), _workers),
    _Cause("exposed communication", _traced("exposed_comm_s"), _grouping),
    _Cause("the host, launching work", _traced("idle_s"), lambda _: ("parallel.compile=true",)),
)


def _holds_up(first: WinnerMap) -> Card | None:
    """Return what takes most of the step of the best beside compute, where a clock said so."""
    best = list(first.largest.values())[-1].best
    shares = [(share, cause) for cause in _CAUSES if (share := cause.share(best.point)) is not None]
    if not shares:
        return None
    share, cause = max(shares, key=lambda pair: pair[0])
    what = f"{best.line} on {counted(best.point.devices, 'device')}"
    title = "What holds it up"
    if share < WORTH:
        most = f"The most beside compute: {cause.words}, of a step of {what}."
        return Card(title, percent(share), most, "", "steps")
    options = cause.options(best.point)
    commands = best.point.all(lambda record: record.command)
    command = _turned(commands[-1], options) if commands else " ".join(options)
    sentence = f"of a step of {what} goes to {cause.words}."
    return Card(title, percent(share), sentence, f"Try {' '.join(options)}.", "steps", command)


def _turned(command: str, options: Sequence[str]) -> str:
    """Return a command with options set, before its first flag."""
    names = tuple(f"{option.split('=')[0]}=" for option in options)
    words = [word for word in shlex.split(command) if not word.startswith(names)]
    at = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    return shlex.join([*words[:at], *options, *words[at:]])
