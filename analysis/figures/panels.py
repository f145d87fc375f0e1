"""Which lines share a panel: those of one task on one machine; what is unlike there is marked."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import Comparison, Scaled, rank
from hpcgeo_analysis.formatting import listed
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.separation import differing, phrase, setting
from hpcgeo_analysis.styles import LineStyle, style

#: What two comparisons of one panel must have in common.
_ALIKE = ("kind", "machine", "device", "model", "objective")

#: Panels of a figure: more than a reader looks at. The table has every point.
MOST = 12

UNLIKE, MARKED = "†", "‡"


@dataclass(frozen=True, eq=False)
class PanelLine:
    """A line of a panel: its look, and how it is unlike the others, empty where it is like them."""

    name: str
    members: Sequence[Scaled]
    look: LineStyle
    unlike: str = ""

    @property
    def baseline(self) -> bool:
        """Whether its ranks exchanged no gradients: what compute alone reaches."""
        return all(silent(scaled.point) for scaled in self.members)

    @property
    def label(self) -> str:
        """The name with the signs of its footnotes."""
        if self.baseline:
            return "no gradient exchange"
        marked = any(scaled.point.mark for scaled in self.members)
        return f"{self.name}{UNLIKE * bool(self.unlike)}{MARKED * marked}"


@dataclass(frozen=True, eq=False)
class ModelPanel:
    """The lines of one model, those that may be compared first."""

    comparison: Comparison
    lines: tuple[PanelLine, ...]

    @property
    def model(self) -> str:
        return self.comparison.model

    @cached_property
    def alike(self) -> list[PanelLine]:
        """The lines that compete: neither unlike nor without exchange of gradients."""
        return [line for line in self.lines if not line.unlike and not line.baseline]


def silent(point: StudyPoint) -> bool:
    """Whether a point exchanged no gradients between its ranks."""
    return point.first.kind == "published" and point.layout == "HYBRID_SHARD(1)"


def panels(study: Study) -> list[ModelPanel]:
    """Return the panels of a study: of every model the fullest comparison, and what joins it.

    A comparison joins a larger one of the same task where none of its lines is there already.
    """
    groups: dict[tuple[str, ...], list[Comparison]] = defaultdict(list)
    for comparison in study.comparisons:
        alike = tuple(comparison.context[name] for name in _ALIKE)
        groups[(*alike, comparison.mode, comparison.fixed)].append(comparison)
    found = []
    for group in groups.values():
        ordered = sorted(group, key=lambda one: -len(one.scaled))
        while ordered:
            first, *rest = ordered
            joined, ordered = [first], []
            for other in rest:
                there = {line for one in joined for line in one.lines}
                (ordered if there & {*other.lines} else joined).append(other)
            found.append(_panel(joined))
    order = {comparison.number: place for place, comparison in enumerate(study.comparisons)}
    return sorted(found, key=lambda panel: order[panel.comparison.number])


def _panel(joined: Sequence[Comparison]) -> ModelPanel:
    first = joined[0]
    lines = []
    for comparison in joined:
        unlike = "" if comparison is first else _unlike(comparison, first)
        lines += [(name, members, unlike) for name, members in comparison.lines.items()]
    lines.sort(key=lambda line: rank(line[0], line[1][0].point.first.strategy))
    used: dict[str, int] = defaultdict(int)
    drawn = []
    for name, members, unlike in lines:
        layout = members[0].point.layout
        drawn.append(PanelLine(name, members, style(name, used[layout]), unlike))
        used[layout] += 1
    return ModelPanel(first, tuple(drawn))


def _unlike(comparison: Comparison, first: Comparison) -> str:
    contexts = [one.scaled[0].point.context for one in (comparison, first)]
    parts = []
    for name, values in differing(contexts).items():
        own, other = (phrase(name, setting(each, name), values) for each in contexts)
        parts.append(f"{own}, the others {other}")
    return listed(parts)


def footnotes(shown: Sequence[ModelPanel]) -> tuple[tuple[str, str], ...]:
    """Return what the daggers of panels mean, each once."""
    unlike: dict[str, dict[str, None]] = defaultdict(dict)
    marks: dict[str, None] = {}
    for panel in shown:
        for line in panel.lines:
            if line.unlike:
                unlike[line.unlike][line.name] = None
            marks |= {mark: None for scaled in line.members for mark in scaled.point.marks}
    found = [(UNLIKE, f"{listed([*names])}: {what}.") for what, names in unlike.items()]
    if any(line.baseline for panel in shown for line in panel.lines):
        names = sorted({line.name for p in shown for line in p.lines if line.baseline})
        found.append(("- - -", f"{listed(names)} exchanged no gradients: compute alone."))
    if marks:
        found.append((MARKED, f"Not filled: {' or '.join(sorted(marks))}."))
    return tuple(found)
