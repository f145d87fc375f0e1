"""A report is sections, a section is blocks: sentences, figures and tables about one comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hpcgeo.records import LinksRecord, Record
from hpcgeo_analysis.comparisons import Comparison
from hpcgeo_analysis.plots import LineStyles, Plot
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.separation import differing, phrase, value
from hpcgeo_analysis.tables import Table

#: Comparisons that get figures: more than a reader looks at, and drawing takes time.
DRAWN = 6
#: The setting of a point that differs in nothing from the others.
ALIKE = "as the rest"


@dataclass(frozen=True)
class ReportBlock:
    """Sentences, figures and tables that belong together."""

    title: str = ""
    sentences: Sequence[str] = ()
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    #: Sentences that warn.
    warns: bool = False

    @property
    def empty(self) -> bool:
        return not (self.sentences or self.plots or self.tables)


@dataclass(frozen=True)
class Section:
    """One question and its answer; without blocks it says what is missing, or nothing."""

    anchor: str
    title: str
    intro: str = ""
    blocks: list[ReportBlock] = field(default_factory=list)
    missing: str = "Not measured."


@dataclass(frozen=True)
class Study:
    """Everything the sections are drawn from."""

    records: Sequence[Record]
    links: Sequence[LinksRecord]
    points: Sequence[StudyPoint]
    comparisons: Sequence[Comparison]
    styles: LineStyles
    copies: int = 0
    #: Fields of records of a newer minor version, left out, and how many records have each.
    newer: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def plotted(self) -> set[int]:
        """The numbers of the comparisons that get figures: of each model those with most points."""
        turns: dict[str, int] = {}
        order = []
        for comparison in sorted(self.comparisons, key=lambda c: -len(c.scaled)):
            turn = turns[comparison.model] = turns.get(comparison.model, 0) + 1
            order.append((turn, -len(comparison.scaled), comparison.number))
        return {number for _, _, number in sorted(order)[:DRAWN]}

    @cached_property
    def _apart(self) -> dict[str, list[str]]:
        found = differing({point.context for point in self.points})
        return {key: found[key] for key in found if key in CONTEXT and key != "model"}

    def setting(self, point: StudyPoint) -> str:
        """Return what separates a point from others of this study, beside model and options."""
        apart = self._apart.items()
        said = (phrase(key, text, among) for key, among in apart if (text := value(point, key)))
        return ", ".join(said) or ALIKE

    @cached_property
    def once(self) -> list[Comparison]:
        """The comparisons that show a point no earlier one has shown, for what has no mode."""
        seen: set[StudyPoint] = set()
        chosen = []
        for comparison in self.comparisons:
            points = {scaled.point for scaled in comparison.scaled}
            if not points <= seen:
                chosen.append(comparison)
            seen |= points
        return chosen


def name(point: StudyPoint, *others: StudyPoint) -> str:
    """Return a point in words with its marks and those of others, e.g. ``vit_tiny, DDP on 4 devices
    (noisy)``.
    """
    devices = f"{point.devices:,} device{'' if point.devices == 1 else 's'}"
    marks = dict.fromkeys(mark for each in (point, *others) for mark in each.marks)
    mark = f" ({', '.join(marks)})" if marks else ""
    return f"{point.first.model}, {point.layout} on {devices}{mark}"
