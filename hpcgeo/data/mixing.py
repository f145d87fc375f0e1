"""Two labelled images become one, and labels become soft: mixup, CutMix, label smoothing.

A sample is mixed with another of its own task, which is drawn from (seed, position) and read beside
it. So what a position holds does not depend on how the samples of a step are dealt to ranks, and
every sample has a partner it can be mixed with; the price is that twice as many are read.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from hpcgeo.data.sample import Float32, Sample

#: Of samples that could be mixed either way, the fraction that CutMix has (as timm's Mixup).
SWITCH = 0.5


class Softens(Protocol):
    """How labels are made soft: by their kind of task (`hpcgeo.kinds.kind.Kind`)."""

    def soft(self, label: Any, num_outputs: int, smoothing: float) -> Float32:
        """Return a label as a number for each output, (K,), of which mixtures are labels too."""
        ...


@dataclass(frozen=True)
class Mixing:
    """How training samples are mixed and their labels smoothed; 0: not at all.

    Attributes:
        mixup: alpha of the Beta distribution that shares of a blend are drawn from (Zhang et al.
            2018, arXiv 1710.09412).
        cutmix: of the area that a rectangle of the other image leaves (Yun et al. 2019, arXiv
            1905.04899).
        smoothing: fraction of a label that is spread evenly over all outputs.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0

    @property
    def pairs(self) -> bool:
        """Whether samples are mixed at all."""
        return self.mixup > 0 or self.cutmix > 0

    def softened(self, sample: Sample, kind: Softens, num_outputs: int) -> Sample:
        """Return a sample with a soft label (K,)."""
        return replace(sample, target=kind.soft(sample.target, num_outputs, self.smoothing))

    def mixed(self, sample: Sample, other: Sample, random: np.random.Generator) -> Sample:
        """Return the mixture of two samples that are `alike`, with soft labels."""
        cut = self.cutmix > 0 and (self.mixup == 0 or random.random() < SWITCH)
        alpha = self.cutmix if cut else self.mixup
        share = random.beta(alpha, alpha)
        if cut:
            box, share = _box(sample.observations[0].values.shape[-2:], share, random)
        observations = []
        for own, theirs in zip(sample.observations, other.observations, strict=True):
            if cut:
                values = own.values.copy()
                rows, columns = _slices(box, values.shape[-2:])
                values[..., rows, columns] = theirs.values[..., rows, columns]
            else:
                values = _blend(own.values, theirs.values, share)
            observations.append(replace(own, values=values))
        own_label, other_label = (one.target.astype(np.float32) for one in (sample, other))
        target = _blend(own_label, other_label, share)
        return replace(sample, observations=tuple(observations), target=target)


def alike(sample: Sample, other: Sample) -> bool:
    """Return whether two samples are images of the same bands and sizes, one by one."""

    def form(one: Sample) -> list[Any]:
        return [(seen.channels, seen.values.shape, seen.patch) for seen in one.observations]

    return form(sample) == form(other) and are_images(sample)


def are_images(sample: Sample) -> bool:
    """Return whether all that was observed are images, not vectors and not single pixels."""
    return all(
        seen.values.ndim == 4 and min(seen.values.shape[-2:]) > 1 for seen in sample.observations
    )


def _blend(own: Float32, theirs: Float32, share: float) -> Float32:
    """Return `share` of one and the rest of the other; where one is missing, the other."""
    both = (share * own + (1 - share) * theirs).astype(np.float32)
    only: Float32 = np.where(np.isfinite(own), own, theirs)
    return np.where(np.isfinite(both), both, only)


def _box(
    shape: tuple[int, ...], share: float, random: np.random.Generator
) -> tuple[tuple[float, float, float, float], float]:
    """Return a rectangle as fractions (top, bottom, left, right), and the area that it leaves.

    Its middle lies anywhere, and what reaches over the edge is cut off, as in the paper's code.
    """
    ends, area = [], 1.0
    for size in shape:
        half, middle = int(size * np.sqrt(1 - share)) // 2, int(random.integers(size))
        first, last = max(0, middle - half), min(size, middle + half)
        ends += [first / size, last / size]
        area *= (last - first) / size
    top, bottom, left, right = ends
    return (top, bottom, left, right), 1 - area


def _slices(box: tuple[float, float, float, float], shape: tuple[int, ...]) -> tuple[slice, slice]:
    top, bottom, left, right = box
    rows, columns = shape
    return (
        slice(round(top * rows), round(bottom * rows)),
        slice(round(left * columns), round(right * columns)),
    )
