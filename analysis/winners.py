"""Who is best, who ties, where lines lose, what fits, what a device achieves: answers as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from hpcgeo.errors import InputError
from hpcgeo.strategies import strategies
from hpcgeo_analysis.comparisons import Comparison, Scaled
from hpcgeo_analysis.points import StudyPoint
from hpcgeo_analysis.separation import footnotes

#: Two rates closer than this tie where no spread is given.
LEVEL = 0.05
#: A line breaks where it loses more than this of its rate per device between neighbouring sizes.
LOSS = 0.15
#: From this share of what a device has on, memory is tight.
TIGHT = 0.97


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
        return [other for other in self.ranked[1:] if ties(self.best.point, other.point)]

    @property
    def spread(self) -> bool:
        """Whether the best and the next have a spread; only then is one claimed to be faster."""
        return all(scaled.point.range for scaled in self.ranked[:2])

    @property
    def noisy(self) -> bool:
        """Whether a point that decides it is noisy, or was still getting faster."""
        return any(scaled.point.marks for scaled in [*self.ranked[:2], *self.tied])

    @cached_property
    def unlike(self) -> dict[str, tuple[str, ...]]:
        """What lines have unlike the best in versions and variables, in words."""
        words = {s.line: footnotes(s.point, self.best.point) for s in self.ranked[1:]}
        return {line: said for line, said in words.items() if said}


@dataclass(frozen=True)
class LineLoss:
    """Two neighbouring sizes of a line, and the share of its rate per device that it loses there.

    Below zero it gains.
    """

    before: Scaled
    after: Scaled
    share: float

    @property
    def breaks(self) -> bool:
        """Whether it is large, and neither noise nor a spread of the two explains it."""
        first, second = self.before.point, self.after.point
        if first.noisy or second.marks:  # a first that still gets faster hides loss, and makes none
            return False
        if first.range and second.range:
            apart = first.range[0] / first.devices > second.range[1] / second.devices
            return self.share > LOSS and apart
        return self.share > LOSS


@dataclass(frozen=True)
class SmallestGroup:
    """The smallest group of devices that holds one copy of a model, and what a device of it takes.

    Attributes:
        kind: of the peak: reserved, resident, allocated or active.
        limit_bytes: what a device has, if known.
    """

    point: StudyPoint
    group: int
    kind: str
    taken_bytes: int
    limit_bytes: int | None

    @property
    def share(self) -> float | None:
        """Of what a device has."""
        return self.taken_bytes / self.limit_bytes if self.limit_bytes else None

    @property
    def tight(self) -> bool:
        return self.share is not None and self.share > TIGHT


def fields(comparisons: Sequence[Comparison]) -> list[Field]:
    """Return every field of lines that ran, each set of points once."""
    found = []
    seen: set[frozenset[int]] = set()
    for comparison in comparisons:
        for count in comparison.devices if comparison.context["kind"] != "predicted" else ():
            ranked = sorted(
                (s for s in comparison.scaled if s.point.devices == count and s.point.images_per_s),
                key=lambda scaled: -(scaled.point.images_per_s or 0),
            )
            same = frozenset(id(scaled.point) for scaled in ranked)
            if ranked and same not in seen:
                seen.add(same)
                found.append(Field(comparison, ranked))
    return found


def ties(best: StudyPoint, other: StudyPoint) -> bool:
    """Whether a slower point may be as fast.

    The spreads overlap; where one has none, the rates are closer than `LEVEL`, given what rounding
    of printed figures hides.
    """
    if best.range is not None and other.range is not None:
        return other.range[1] >= best.range[0]
    assert best.images_per_s and other.images_per_s, "a field holds points with a rate"
    least, most = best.images_per_s - best.rounding, other.images_per_s + other.rounding
    return least < most * (1 + LEVEL)


def losses(comparison: Comparison) -> list[LineLoss]:
    """Return what each line loses between neighbouring sizes, in the order of lines and sizes."""
    return [loss for members in comparison.lines.values() for loss in losses_of(members)]


def losses_of(members: Sequence[Scaled]) -> list[LineLoss]:
    """Return what one line loses between neighbouring sizes."""
    return [
        LineLoss(before, after, 1 - after.efficiency / before.efficiency)
        for before, after in pairwise([scaled for scaled in members if scaled.efficiency])
        if before.efficiency and after.efficiency
    ]


def smallest_group(comparison: Comparison) -> SmallestGroup | None:
    """Return the smallest group that holds the model, of those the one that takes least.

    None where no memory is known, or where the points know different kinds of it.
    """
    known = [
        (group, value, kind, scaled.point)
        for scaled in comparison.scaled
        if (group := shared_by(scaled.point)) is not None
        for kind, value in [*scaled.point.held.items()][:1]
    ]
    if not known:
        return None
    group = min(group for group, *_ in known)
    kinds = {kind for own, _, kind, _ in known if own == group}
    if len(kinds) > 1:
        return None
    _, value, kind, point = min((row for row in known if row[0] == group), key=lambda row: row[1])
    limit = point.memory.limit_bytes if point.memory else None
    return SmallestGroup(point, group, kind, value, limit)


def shared_by(point: StudyPoint) -> int | None:
    """Return how many devices hold one copy of the optimizer's state; None: strategy unknown."""
    record, row = point.first, strategies().get(point.first.strategy)
    try:
        return row.shard_size(record.world_size, record.group_size) if row else None
    except InputError:
        return None


def node_hours(point: StudyPoint) -> float | None:
    """Return node-hours per million images."""
    return point.nodes * 1e6 / point.images_per_s / 3600 if point.images_per_s else None
