"""What a report is made from, and sections: sentences and tables about one question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hpcgeo.records import LinksRecord, Record
from hpcgeo_analysis import naming
from hpcgeo_analysis.comparisons import Comparison
from hpcgeo_analysis.formatting import counted
from hpcgeo_analysis.points import CONTEXT, StudyPoint
from hpcgeo_analysis.separation import differing, phrase, value
from hpcgeo_analysis.tables import Table

#: The setting of a point that differs in nothing from the others.
ALIKE = "as the rest"


@dataclass(frozen=True)
class ReportBlock:
    """Sentences and tables that belong together."""

    title: str = ""
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()

    @property
    def empty(self) -> bool:
        return not (self.sentences or self.tables)


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
    copies: int = 0
    #: Fields of records of a newer minor version, left out, and how many records have each.
    newer: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def names(self) -> dict[str, str]:
        """What models are called where they stand beside each other."""
        return naming.models(list(dict.fromkeys(record.model for record in self.records)))[1]

    def called(self, point: StudyPoint) -> str:
        """Return a point in a sentence, e.g. ``FULL_SHARD of 3B on 8 devices``."""
        on = counted(point.devices, "device")
        return f"{point.layout} of {self.names[point.first.model]} on {on}"

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
