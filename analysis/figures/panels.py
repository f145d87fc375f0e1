"""What shares a panel: what is of one model on one machine; what is unlike there gets a sign."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcgeo.records import SOFT
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Comparison, Scaled, rank
from hpcgeo_analysis.formatting import counted
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.separation import BATCHING, differing, phrase, setting
from hpcgeo_analysis.styles import LineStyle, style

#: What is alike in all of a panel.
_TASK = ("kind", "machine", "model", "objective")

#: Panels of a figure: more than a reader looks at. The table has every point.
MOST = 12

#: Differences of a point that are said; more are counted.
UNLIKE = 3

_SIGNS = "†‡§¶"


class Footnotes:
    """The signs of a figure: each text has one, wherever it is meant."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def signs(self, texts: Iterable[str]) -> str:
        """Return the signs of texts, each once."""
        for text in (texts := list(texts)):
            place = len(self._texts)
            sign = _SIGNS[place] if place < len(_SIGNS) else f"({place + 1})"
            self._texts.setdefault(text, sign)
        return "".join(sign for text, sign in self._texts.items() if text in texts)

    @property
    def all(self) -> tuple[tuple[str, str], ...]:
        """Every sign with its text."""
        return tuple((sign, f"{text[0].upper()}{text[1:]}.") for text, sign in self._texts.items())


@dataclass(frozen=True, eq=False)
class PanelLine:
    """A line of a panel: its points with a rate, its look, in what it is unlike the others.

    `common` is what is told of every point of the panel, and so of none alone.
    """

    name: str
    members: Sequence[Scaled]
    look: LineStyle
    unlike: tuple[str, ...] = ()
    common: tuple[str, ...] = ()
    #: Its ranks exchanged no gradients: what compute alone reaches.
    baseline: bool = False

    def label(self, notes: Footnotes) -> str:
        """Return the name with its signs."""
        if self.baseline:
            said = [text for scaled in self.members for text in self.told(scaled)]
            bare = [f"{self.name} without communication: compute alone, no training"]
            return "no gradient exchange" + notes.signs(said or bare)
        said = [text for scaled in self.members for text in self.told(scaled)]
        return self.name + notes.signs([*self.unlike, *said])

    def told(self, scaled: Scaled) -> list[str]:
        """Return what a reader must know of a point of the line."""
        return [text for text in told(scaled) if text not in self.common]


@dataclass(frozen=True, eq=False)
class LinePanel:
    """The lines of one model, by its `name` in sentences; the title tells it from other panels."""

    comparison: Comparison
    name: str
    title: str
    lines: tuple[PanelLine, ...]
    common: tuple[str, ...]

    @property
    def model(self) -> str:
        return self.comparison.model

    @cached_property
    def alike(self) -> list[PanelLine]:
        """The lines that compete: neither unlike nor without exchange of gradients."""
        return [line for line in self.lines if not line.unlike and not line.baseline]


@dataclass(frozen=True, eq=False)
class PanelPoint:
    """A point of a panel: what it is called there, and in a sentence."""

    scaled: Scaled
    label: str
    name: str

    @property
    def point(self) -> StudyPoint:
        return self.scaled.point

    @property
    def line(self) -> str:
        return self.scaled.line


@dataclass(frozen=True, eq=False)
class PointPanel:
    """The points of one model; the title has the signs of all of them."""

    model: str
    title: str
    below: str
    rows: tuple[PanelPoint, ...]


def told(scaled: Scaled) -> list[str]:
    """Return what a reader must know of a point: marks, notes, what is unlike its line's base."""
    return [*scaled.point.marks, *scaled.footnotes]


def _common(found: Sequence[Scaled]) -> tuple[str, ...]:
    """Return what is told of every point."""
    return tuple(text for text in told(found[0]) if all(text in told(other) for other in found))


def of_lines(study: Study) -> list[LinePanel]:
    """Return panels of lines that grow: of every task the fullest comparison, and what joins it.

    A comparison joins a larger one on the same device where none of its lines is there already.
    """
    groups: dict[tuple[str, ...], list[Comparison]] = defaultdict(list)
    for comparison in study.comparisons:
        alike = tuple(comparison.context[name] for name in (*_TASK, "device"))
        place = (*alike, comparison.mode, comparison.fixed)
        groups[place].append(comparison)
    found: list[list[Comparison]] = []
    for group in groups.values():
        ordered = sorted(group, key=lambda one: -len(one.scaled))
        while ordered:
            joined, rest = ordered[:1], list[Comparison]()
            for other in ordered[1:]:
                there = {line for one in joined for line in one.lines}
                (rest if there & {*other.lines} else joined).append(other)
            found.append(joined)
            ordered = rest
    found = [joined for joined in found if any(map(_grows, joined))]
    found.sort(key=lambda joined: joined[0].number)
    titles = _titles(study, [_facts(joined[0], [*joined[0].context][:-1]) for joined in found])
    return [_line_panel(study, *one) for one in zip(found, titles, strict=True)]


def _grows(comparison: Comparison) -> bool:
    """Whether a line has a rate on more than one number of devices."""
    return any(
        len({scaled.point.devices for scaled in members if scaled.point.images_per_s}) > 1
        for members in comparison.lines.values()
    )


def _facts(comparison: Comparison, names: Iterable[str]) -> dict[str, str]:
    """Return what a title may have to say."""
    found = {name: phrase(name, comparison.context[name]) for name in names if name not in SOFT}
    return found | {"model": comparison.model, "batch": comparison.fixed.split(" (")[0]}


def _titles(study: Study, panels: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the titles of panels: the model, and in what those of one model differ."""
    titles = []
    for own in panels:
        same = [other for other in panels if other["model"] == own["model"]]
        apart = [said for key, said in own.items() if len({other[key] for other in same}) > 1]
        titles.append(", ".join([study.names[own["model"]], *apart]))
    return titles


def _line_panel(study: Study, joined: Sequence[Comparison], title: str) -> LinePanel:
    first = joined[0].scaled[0].point.context
    lines = [
        (name, timed, _unlike(timed[0].point, first) if comparison is not joined[0] else ())
        for comparison in joined
        for name, members in comparison.lines.items()
        if (timed := [scaled for scaled in members if scaled.point.images_per_s])
    ]
    lines.sort(key=lambda line: rank(line[0], line[1][0].point.first.strategy))
    every = [scaled for _, members, _ in lines for scaled in members]
    common = (*filter(None, [joined[0].apart]), *_common(every))
    used: Counter[str] = Counter()
    drawn = []
    for name, members, unlike in lines:
        layout = members[0].point.layout
        drawn.append(PanelLine(name, members, style(name, used[layout]), unlike, common))
        used[layout] += 1
    bare = [
        (max(scaled.point.per_device or 0.0 for scaled in timed), name, timed)
        for name, members in joined[0].baseline.items()
        if (timed := [scaled for scaled in members if scaled.point.images_per_s])
    ]
    if bare:
        _, name, members = max(bare, key=lambda one: one[:2])
        drawn.append(PanelLine(name, members, style(name), (), common, baseline=True))
    name = study.names[joined[0].model]
    return LinePanel(joined[0], name, title, tuple(drawn), common)


def of_points(
    study: Study, wanted: Callable[[StudyPoint], object], notes: Footnotes
) -> list[PointPanel]:
    """Return panels of the points that are wanted, each point once.

    Args:
        study: all points that may be compared.
        wanted: whether a point has what is shown.
        notes: gets what is unlike in a panel.
    """
    groups: dict[tuple[str, ...], dict[StudyPoint, Scaled]] = defaultdict(dict)
    facts: dict[tuple[str, ...], dict[str, str]] = {}
    for comparison in study.comparisons:
        own = _facts(comparison, _TASK) | {"batch": ""}
        for scaled in comparison.scaled:
            if wanted(scaled.point):
                task = tuple(own.values())
                groups[task].setdefault(scaled.point, scaled)
                facts[task] = own
    titles = _titles(study, [*facts.values()])
    return [
        _point_panel(study, [*group.values()], title, notes)
        for group, title in zip(groups.values(), titles, strict=True)
    ]


def _point_panel(study: Study, group: Sequence[Scaled], title: str, notes: Footnotes) -> PointPanel:
    contexts = Counter(scaled.point.context for scaled in group)
    usual = max(contexts, key=lambda context: contexts[context])
    batches = {scaled.point.first.micro_batch for scaled in group}
    common = _common(group)
    model = group[0].point.first.model
    title += notes.signs(common)
    rows = []
    for scaled in group:
        point = scaled.point
        on = counted(point.devices, "device")
        label = f"{scaled.line}, {on}"
        label += f", micro-batch {point.first.micro_batch:,}" * (len(batches) > 1)
        own = [text for text in told(scaled) if text not in common]
        label += notes.signs([*_unlike(point, usual), *own])
        rows.append(PanelPoint(scaled, label, f"{scaled.line} of {study.names[model]} on {on}"))
    below = f"micro-batch {batches.pop():,}" if len(batches) == 1 else ""
    return PointPanel(model, title, below, tuple(rows))


def _unlike(point: StudyPoint, usual: tuple[str, ...]) -> tuple[str, ...]:
    """Return in what a point differs from the usual context, but for what its line says."""
    found: list[str] = []
    for name, values in differing([point.context, usual]).items():
        if name not in (BATCHING, *SOFT):
            own, other = (
                phrase(name, setting(each, name), values) for each in (point.context, usual)
            )
            found.append(f"{own}, the others {other}")
    more = len(found) - UNLIKE
    return (*found[:UNLIKE], f"{more} more options differ") if more > 1 else tuple(found)
