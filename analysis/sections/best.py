"""Who is fastest among like on each number of devices, and who ties with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.figures.panels import silent
from hpcgeo_analysis.formatting import NOT_MEASURED

#: Two rates closer than this tie where no spread is given.
LEVEL = 0.05


@dataclass(frozen=True)
class Field:
    """All lines of one comparison on one number of devices, fastest first."""

    comparison: Comparison
    ranked: list[Scaled]

    @property
    def best(self) -> Scaled:
        return self.ranked[0]

    @property
    def devices(self) -> int:
        return self.best.point.devices

    @cached_property
    def tied(self) -> list[Scaled]:
        """The lines that tie with the best."""
        return [other for other in self.ranked[1:] if _tied(self.best, other)]

    @property
    def spread(self) -> bool:
        """Whether the best and the next have a spread; only then is one claimed to be faster."""
        return all(scaled.point.range for scaled in self.ranked[:2])


def fields(comparisons: Sequence[Comparison]) -> list[Field]:
    """Return every field of lines that ran, each set of points once."""
    found = []
    seen: set[frozenset[int]] = set()
    for comparison in comparisons:
        for count in comparison.devices if comparison.context["kind"] != "predicted" else ():
            ranked = sorted(
                (s for s in comparison.scaled if s.point.devices == count and _competes(s)),
                key=lambda scaled: -(scaled.point.images_per_s or 0),
            )
            same = frozenset(id(scaled.point) for scaled in ranked)
            if ranked and same not in seen:
                seen.add(same)
                found.append(Field(comparison, ranked))
    return found


def _competes(scaled: Scaled) -> bool:
    return scaled.point.images_per_s is not None and not silent(scaled.point)


def _tied(best: Scaled, other: Scaled) -> bool:
    """Whether the spreads of two points overlap; without spreads, whether they are level."""
    if best.point.range is None or other.point.range is None:
        assert best.point.images_per_s and other.point.images_per_s, NOT_MEASURED
        return best.point.images_per_s / other.point.images_per_s < 1 + LEVEL
    return other.point.range[1] >= best.point.range[0]
