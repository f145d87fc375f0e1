"""A metric over samples that come batch by batch, with its spread from resamples of them.

Samples that share ground are drawn together: a tile beside one that is right tends to be right too.
"""

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from hpcgeo.data.sample import Float64, Target
from hpcgeo.kinds.metrics import Array, size, sums, value

#: Enough for the ends of an interval of 95 %.
RESAMPLES = 1000
#: Of the values of resamples, those that an interval leaves out at either end.
TAIL = 0.025


class Tally:
    """The sums of a metric over all samples, and over resamples of their groups.

    In a resample each group counts as often as a Poisson variable of mean 1 says (Chamandy et al.
    2012, Estimating uncertainty for massive data streams). The draws follow from the group's name:
    every model, and every rank, has the same resamples, so that differences can be taken.

    Attributes:
        sums: (1 + R, M): over all samples, and over each resample.
    """

    def __init__(self, target: Target, resamples: int = 0) -> None:
        """Start from nothing."""
        self.target = target
        self.sums: Float64 = np.zeros((1 + resamples, size(target)))

    def add(self, groups: Sequence[str], prediction: Array, truth: Array) -> None:
        """Count samples (B, ...) of groups (B,); see `sums`."""
        each = zip(prediction, truth, strict=True)
        found = np.stack([sums(p[None], t[None], self.target) for p, t in each])  # (B, M)
        self.sums += np.stack([_weights(group, len(self.sums) - 1) for group in groups], 1) @ found

    def value(self, metric: str) -> tuple[float, Float64]:
        """Return a metric, NaN where it is not defined, and its values over resamples, (R,)."""
        whole, *resampled = (value(metric, each, self.target) for each in self.sums)
        return whole, np.array(resampled)


def interval(values: Float64) -> tuple[float, float]:
    """Return the interval that holds 95 % of values, of those that are defined.

    >>> interval(np.arange(1001.0))
    (25.0, 975.0)
    """
    low, high = np.nanquantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)


def _weights(group: str, resamples: int) -> Float64:
    drawn = np.random.default_rng(crc32(group.encode())).poisson(1.0, resamples)
    return np.append(1.0, drawn)
