"""The winner map: which strategy is fastest for which model on how many devices."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcgeo.records import SOFT
from hpcgeo_analysis import naming
from hpcgeo_analysis.comparisons import Scaled
from hpcgeo_analysis.formatting import digits, percent
from hpcgeo_analysis.separation import phrase
from hpcgeo_analysis.winners import Field

#: Words of a setting that names a line; of a longer one the model stands in its place.
BRIEF = 3

#: What models of one map need not share.
_FREE = ("model", "options", *SOFT)


@dataclass(frozen=True)
class MapCell:
    """One place of the map: whose line it is, what it says, what a pointer shows.

    Attributes:
        line: of the best, or of the row; it gives colour and letter.
        model: of the point.
        mark: ``=`` where others tie.
        number: images/s per device, or percent of the best.
        words: the same in words, with the lines that tie.
        share: how strong the colour is, 0 to 1.
        best: whether it is the best or ties with it.
        hatched: whether a point behind it is noisy, or unlike the best in versions or variables.
    """

    line: str
    model: str
    mark: str
    number: str
    words: str
    share: float = 1.0
    best: bool = True
    hatched: bool = False


@dataclass(frozen=True)
class WinnerMap:
    """What was run alike: models by devices, or, of one model, strategies by devices."""

    fields: tuple[Field, ...]

    @cached_property
    def models(self) -> list[str]:
        """By size."""
        sizes = {each.comparison.model: each.best.point.parameters or 0 for each in self.fields}
        return sorted(sizes, key=lambda model: (sizes[model], model))

    @cached_property
    def counts(self) -> list[int]:
        """Numbers of devices."""
        return sorted({each.devices for each in self.fields})

    @cached_property
    def largest(self) -> dict[str, Field]:
        """Of each model the field of the most devices."""
        order = sorted(self.fields, key=lambda each: each.devices)
        found = {each.comparison.model: each for each in order}
        return {model: found[model] for model in self.models}

    @property
    def rivals(self) -> int:
        """How many fields have at least two lines."""
        return sum(len(each.ranked) > 1 for each in self.fields)

    @cached_property
    def names(self) -> tuple[str, dict[str, str]]:
        """What its models are called together, and each of them beside the others."""
        return naming.models(self.models)

    @property
    def noun(self) -> str:
        return self.fields[0].comparison.noun

    @cached_property
    def rows(self) -> list[tuple[str, list[MapCell | None]]]:
        """Return head and cells of every row: models, or the strategies of one model."""
        if len(self.models) > 1:
            at = {(each.comparison.model, each.devices): each for each in self.fields}
            return [
                (self.names[1][model], [_winner(at.get((model, n))) for n in self.counts])
                for model in self.models
            ]
        found: dict[str, dict[int, MapCell]] = defaultdict(dict)
        order = list(dict.fromkeys(line for e in self.fields for line in e.comparison.lines))
        for each in self.fields:
            for scaled in each.ranked:
                found[scaled.line][each.devices] = _of_best(each, scaled)
        lines = [line for line in order if line in found]
        return [(line, [found[line].get(n) for n in self.counts]) for line in lines]


def maps(fields: Sequence[Field]) -> list[WinnerMap]:
    """Return what was run alike, that with most fields of rivals first.

    What has no rival anywhere is no map where others have some; nor is one number of devices of
    models that are there already.
    """
    groups: dict[tuple[str, ...], list[Field]] = defaultdict(list)
    for each in fields:
        comparison = each.comparison
        alike = (v for name, v in comparison.context.items() if name not in _FREE)
        key = (*alike, comparison.mode, comparison.fixed)
        groups[key].append(each)
    found = [WinnerMap(tuple(group)) for group in groups.values()]
    rivals = [one for one in found if one.rivals] or found
    kept: list[WinnerMap] = []
    there: set[tuple[str, int]] = set()
    for one in sorted(rivals, key=lambda one: (-one.rivals, -len(one.fields))):
        own = {(each.comparison.model, each.devices) for each in one.fields}
        if len(one.counts) > 1 or not own <= there:
            kept.append(one)
        there |= own
    return kept


def alone(fields: Sequence[Field], shown: Sequence[WinnerMap]) -> list[str]:
    """Return the lines that have no rival in their setting, and so stand in no map."""
    there = {id(each) for one in shown for each in one.fields}
    lines: dict[str, None] = {}
    for each in fields:
        if id(each) not in there and len(each.ranked) == 1:
            setting = each.comparison.setting or each.comparison.fixed.split(" (")[0]
            brief = len(setting.split()) <= BRIEF
            apart = f" ({setting})" if brief else f" of {each.comparison.model}"
            lines[each.best.line + apart] = None
    return [*lines]


def settings(shown: Sequence[WinnerMap]) -> list[str]:
    """Return of each map what was run alike, where maps of the same models differ in it."""
    found = []
    for one in shown:
        own = [o.fields[0].comparison for o in shown if o.models == one.models]
        comparison = one.fields[0].comparison
        values = {name: {each.context[name] for each in own} for name in comparison.context}
        said = [
            phrase(name, comparison.context[name], among)
            for name, among in values.items()
            if len(among) > 1 and name not in _FREE
        ]
        found.append(", ".join([comparison.fixed.split(" (")[0], *said]))
    return found


def _winner(each: Field | None) -> MapCell | None:
    if each is None:
        return None
    best, tied = each.best, each.tied
    rate = best.point.per_device or 0.0
    words = f"{best.name}: {digits(rate)} {each.comparison.noun}/s per device"
    if tied:
        words += f"; tied: {', '.join(other.name for other in tied)}"
    close = {scaled.line for scaled in (*each.ranked[:2], *tied)}
    unlike = {line: said for line, said in each.unlike.items() if line in close}
    words += "".join(f"; {line} has {', '.join(said)}" for line, said in unlike.items())
    hatched = each.noisy or bool(unlike)
    return MapCell(
        best.line, each.comparison.model, "=" * bool(tied), digits(rate), words, hatched=hatched
    )


def _of_best(each: Field, scaled: Scaled) -> MapCell:
    share = (scaled.point.images_per_s or 0) / (each.best.point.images_per_s or 1)
    best = scaled is each.best or scaled in each.tied
    mark = "=" * (best and bool(each.tied))
    per = digits(scaled.point.per_device or 0.0)
    words = f"{scaled.name}: {per} {each.comparison.noun}/s per device"
    number = percent(share).replace(" %", "")
    unlike = each.unlike.get(scaled.line, ())
    words += f"; {', '.join(unlike)}" * bool(unlike)
    hatched = bool(scaled.point.marks or unlike)
    return MapCell(scaled.line, each.comparison.model, mark, number, words, share, best, hatched)
