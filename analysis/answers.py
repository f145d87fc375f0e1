"""The first screen: a title that answers, one line of trust, and a card a question."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from hpcgeo_analysis import messages, naming
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.formatting import counted, digits, gib, listed, percent, rate, size
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.sections.best import LEVEL, Field
from hpcgeo_analysis.winner_map import WinnerMap

#: A line breaks where it loses more than this between two neighbouring numbers of devices.
BREAK = 0.15
#: From this share of a device on, memory is tight.
TIGHT = 0.97
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


@dataclass(frozen=True)
class Loss:
    """Two neighbours of a line, and the fraction of its rate per device that it loses there."""

    before: Scaled
    after: Scaled
    lost: float

    @property
    def where(self) -> str:
        """Between which numbers of devices."""
        return f"{self.before.point.devices:,} and {self.after.point.devices:,} devices"


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


def losses(study: Study) -> list[Loss]:
    """Return what every line that ran loses between neighbours, the largest loss first."""
    found = []
    seen = set()
    for comparison in study.comparisons:
        if comparison.context["kind"] == "predicted":
            continue
        for line in comparison.lines.values():
            known = [scaled for scaled in line if scaled.efficiency]
            for before, after in pairwise(known):
                pair = (before.point, after.point)
                if pair not in seen and before.efficiency and after.efficiency:
                    seen.add(pair)
                    found.append(Loss(before, after, 1 - after.efficiency / before.efficiency))
    return sorted(found, key=lambda loss: -loss.lost)


def node_hours(point: StudyPoint) -> float | None:
    """Return node-hours per million images."""
    return point.nodes * 1e6 / point.images_per_s / 3600 if point.images_per_s else None


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
    found = losses(study)
    title, link = "It breaks here", "scaling"
    if not found:
        how = "Run a strategy on two numbers of devices: hpcgeo-profile sweep."
        return Card(title, "not known", how, "", link)
    worst = found[0]
    who = f"{worst.after.name} of {labels[worst.after.point.first.model]}"
    if worst.lost <= BREAK:
        kept = percent(min(1.0, 1 - worst.lost))
        what = f"Every line keeps this or more between neighbours; least {who}, {worst.where}."
        return Card("Nothing breaks", kept, what, "", link)
    sentence = f"{who} per device between {worst.where}"
    first, second = messages.of_point(worst.before.point), messages.of_point(worst.after.point)
    if first and second and second.rank_bytes < first.rank_bytes:
        sentence += f"; messages fall to {size(second.rank_bytes)}"
    others: dict[str, Loss] = {}
    for loss in found:
        if loss.lost > BREAK and loss.after.line == worst.after.line:
            others.setdefault(loss.after.point.first.model, loss)
    rest = list(others.items())[1:4]
    more = [
        f"{labels[model]} {_minus(loss.lost)} at {loss.after.point.devices:,}"
        for model, loss in rest
    ]
    also = f"{worst.after.line} too: {', '.join(more)}." if more else ""
    return Card(title, _minus(worst.lost), f"{sentence}.", also, link)


def _minus(lost: float) -> str:
    return f"\N{MINUS SIGN}{percent(lost)}"


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
        if group is None or not point.held or point.first.kind == "predicted":
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


#: What takes time in a step: how it is said, the share of a point's step, what to turn.
_Share = Callable[[StudyPoint], float | None]


def _phase(name: str) -> _Share:
    def share(point: StudyPoint) -> float | None:
        phases = point.typical("phases") or {}
        return phases[name] / phases["step_s"] if phases.get("step_s") and name in phases else None

    return share


def _traced(name: str) -> _Share:
    def share(point: StudyPoint) -> float | None:
        activity = point.typical("activity") or {}
        step, own = activity.get("step_s"), point.step_s
        if not step or not own or step > SLOWED * own:
            return None
        return activity[name] / step

    return share


_CAUSES: tuple[tuple[str, _Share, str], ...] = (
    ("waiting for data", _phase("data_wait_s"), "data.workers=4"),
    ("augmentation and copies", _phase("host_to_device_s"), "data.augment.rotate=false"),
    ("exposed communication", _traced("exposed_comm_s"), "train.accumulate=2"),
    ("launching kernels", _traced("idle_s"), "parallel.compile=true"),
)


def _holds_up(first: WinnerMap) -> Card | None:
    """Return what takes most of the step of the best beside compute, where a clock said so."""
    best = list(first.largest.values())[-1].best
    shares = [
        (share, words, option)
        for words, of, option in _CAUSES
        if (share := of(best.point)) is not None
    ]
    if not shares:
        return None
    share, words, option = max(shares)
    title, what = "What holds it up", f"{best.line} on {counted(best.point.devices, 'device')}"
    if share < WORTH:
        sentence = f"At most {words}, of a step of {what}: compute is the rest."
        return Card(title, percent(share), sentence, "", "steps")
    commands = best.point.all(lambda record: record.command)
    command = _turned(commands[-1], option) if commands else option
    sentence = f"{words.capitalize()}, of a step of {what}. Try {option}."
    return Card(title, percent(share), sentence, "", "steps", command)


def _turned(command: str, option: str) -> str:
    """Return a command with an option set, before the first flag."""
    name = option.split("=")[0]
    words = [word for word in shlex.split(command) if not word.startswith(f"{name}=")]
    at = next((n for n, word in enumerate(words) if word.startswith("--")), len(words))
    return shlex.join([*words[:at], option, *words[at:]])
