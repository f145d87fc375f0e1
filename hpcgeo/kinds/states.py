"""What metrics are computed from: kept sample by sample, merged over ranks, resampled.

Samples of one cluster (one location) are resampled together: a tile beside one that is right tends
to be right too. In a resample each cluster counts as often as a Poisson variable of mean 1 says
(Chamandy et al. 2012, Estimating uncertainty for massive data streams). The counts follow from the
cluster's name: every model, and every rank, has the same resamples, so that differences can be
taken.

Letters: b samples, K outputs, R resamples, M numbers of a sum.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from torch import Tensor

from hpcgeo.kinds.fidelity import psnr, ssim
from hpcgeo.kinds.target import IGNORED, Array, Float64, Target

#: Enough for the ends of an interval of 95 %.
RESAMPLES = 1000
#: Of the values of resamples, those that an interval leaves out at either end.
TAIL = 0.025
#: Of resamples, those that may be without a value: of two clusters it is 14 %, of three 5 %.
UNDEFINED = 0.1
#: Resamples whose weights are held at once as floating point.
AT_ONCE = 64


class Decides(Protocol):
    """How answers are read: by their kind of task (`hpcgeo.kinds.kind.Kind`)."""

    def decide(self, answer: Tensor) -> Tensor:
        """Return what answers come to, like labels."""
        ...

    def scores(self, answer: Tensor) -> Tensor:
        """Return numbers (b, K) by which samples can be ranked for each output."""
        ...


class State(ABC):
    """What a metric keeps of samples."""

    def __init__(
        self, kind: Decides, target: Target, metric: Callable[..., Any], resamples: int = 0
    ) -> None:
        """Keep nothing yet.

        Args:
            kind: of the task.
            target: of the task.
            metric: what is computed in the end; each class says of what.
            resamples: R.
        """
        self.kind, self.target, self.metric, self.resamples = kind, target, metric, resamples

    def __getstate__(self) -> dict[str, Any]:
        """What another rank merges; the function it has itself, and not every one can be sent."""
        return {name: value for name, value in vars(self).items() if name != "metric"}

    @abstractmethod
    def update(self, clusters: Sequence[str], answer: Tensor, truth: Array) -> None:
        """Count samples.

        Args:
            clusters: (b,) of one location each.
            answer: (b, K), or (b, K, H, W) of a dense kind.
            truth: (b, ...) labels.
        """

    @abstractmethod
    def merge(self, other: Any) -> None:
        """Count the samples of another state of the same metric, too."""

    @abstractmethod
    def compute(self) -> tuple[float, Float64]:
        """Return the metric, NaN where it is not defined, and its values over resamples, (R,)."""


class Sums(State):
    """Sums that add up over samples: `metric(sums, target)` of (M,) numbers."""

    def __init__(
        self, kind: Decides, target: Target, metric: Callable[..., Any], resamples: int = 0
    ) -> None:
        super().__init__(kind, target, metric, resamples)
        size = self.rows(len(target.names)) * len(target.names)
        self.sums: Float64 = np.zeros((1 + resamples, size))  #: of all, and of each resample

    @staticmethod
    @abstractmethod
    def rows(num_outputs: int) -> int:
        """Return how many sums there are for each output."""

    @abstractmethod
    def counted(self, decision: Array, truth: Array) -> Array:
        """Return the sums of samples (b, ...), (M,)."""

    def decided(self, answer: Tensor, truth: Array) -> Array:
        """Return what answers come to, like labels."""
        return self.kind.decide(answer).cpu().numpy()

    def update(self, clusters: Sequence[str], answer: Tensor, truth: Array) -> None:
        decision = self.decided(answer, truth)
        assert decision.shape == truth.shape, (decision.shape, truth.shape)
        if not self.resamples:
            self.sums[0] += self.counted(decision, truth).ravel()
            return
        each = zip(decision, truth, strict=True)
        found = np.stack([self.counted(d[None], t[None]).ravel() for d, t in each])  # (b, M)
        self.sums += _weights(clusters, self.resamples).T.astype(np.float64) @ found

    def merge(self, other: "Sums") -> None:
        self.sums += other.sums

    def compute(self) -> tuple[float, Float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = [float(self.metric(each, self.target)) for each in self.sums]
        return values[0], np.array(values[1:])


class Confusion(Sums):
    """How often each class was taken for each: (K truth x K predicted)."""

    @staticmethod
    def rows(num_outputs: int) -> int:
        return num_outputs

    def counted(self, decision: Array, truth: Array) -> Array:
        known, num_classes = truth != IGNORED, len(self.target.names)
        pairs = truth[known].astype(np.int64) * num_classes + decision[known]
        found = np.bincount(pairs, minlength=num_classes**2)
        assert len(found) == num_classes**2, "a class that the task does not have"
        return found


class TopFive(Sums):
    """Whether the true class is among the five with the highest answers: yes and no (2 x K)."""

    @staticmethod
    def rows(num_outputs: int) -> int:
        return 2

    def decided(self, answer: Tensor, truth: Array) -> Array:
        """Return whether it is; an equal answer of an earlier class is higher."""
        scores = answer.cpu().numpy()
        of_truth = np.maximum(truth, 0)
        own = np.take_along_axis(scores, of_truth[:, None], axis=1)
        earlier = np.arange(scores.shape[1]) < of_truth[:, None]
        return ((scores > own) | ((scores == own) & earlier)).sum(1) < 5

    def counted(self, decision: Array, truth: Array) -> Array:
        known, num_classes = truth != IGNORED, len(self.target.names)
        place = np.where(decision, 0, num_classes)[known] + truth[known]
        return np.bincount(place, minlength=2 * num_classes)


class Hits(Sums):
    """Of several labels each: hits, false alarms and misses (3 x K)."""

    @staticmethod
    def rows(num_outputs: int) -> int:
        return 3

    def counted(self, decision: Array, truth: Array) -> Array:
        said, is_so = decision > 0.5, truth > 0.5
        return np.stack([said & is_so, said & ~is_so, ~said & is_so]).sum(axis=1)


class Moments(Sums):
    """Of standardised numbers: n and the sums of y, p, y², p², y p and |y - p| (7 x K)."""

    @staticmethod
    def rows(num_outputs: int) -> int:
        return 7

    def counted(self, decision: Array, truth: Array) -> Array:
        known = np.isfinite(truth)
        y = np.where(known, truth, 0).astype(np.float64)
        p = np.where(known, decision, 0).astype(np.float64)
        found = np.stack([known, y, p, y * y, p * p, y * p, abs(y - p)])  # (7, b, K, ...)
        return found.sum(axis=(1, *range(3, found.ndim)))


class Fidelity(Sums):
    """Of images: their number and the sums of PSNR and SSIM (3 x K); PSNR is that of all bands.

    Pixels that are not known count as right for SSIM, and not at all for PSNR.
    """

    @staticmethod
    def rows(num_outputs: int) -> int:
        return 3

    def counted(self, decision: Array, truth: Array) -> Array:
        [found], [wanted] = decision, truth  # (K, H, W)
        known = np.isfinite(wanted)
        if not known.any():
            return np.zeros((3, len(wanted)))
        filled = np.where(known, wanted, found)
        ones = np.ones(len(wanted))
        return np.stack([ones, ones * psnr(found[known], wanted[known]), ssim(found, filled)])


class Mean(State):
    """What a model says of its own error: `metric(total, number)`; an answer is a sum of errors."""

    total, number = 0.0, 0

    def update(self, clusters: Sequence[str], answer: Tensor, truth: Array) -> None:
        self.total, self.number = self.total + float(answer), self.number + len(clusters)

    def merge(self, other: "Mean") -> None:
        self.total, self.number = self.total + other.total, self.number + other.number

    def compute(self) -> tuple[float, Float64]:
        value = self.metric(self.total, self.number) if self.number else float("nan")
        return value, np.zeros(0)


class Ranking(State):
    """Scores of whole samples: `metric(scores, is_so, weights)` of each class or label by itself.

    It takes scores (N,), whether each sample is of the class (N,), and weights (r, N) of resamples,
    and returns (r,). Of several classes their mean, of those that are there; of two the second
    one's.
    """

    def __init__(
        self, kind: Decides, target: Target, metric: Callable[..., Any], resamples: int = 0
    ) -> None:
        super().__init__(kind, target, metric, resamples)
        self.clusters: list[str] = []
        self.scores: list[Array] = []
        self.truth: list[Array] = []

    def update(self, clusters: Sequence[str], answer: Tensor, truth: Array) -> None:
        self.clusters += clusters
        self.scores.append(self.kind.scores(answer).float().cpu().numpy())
        self.truth.append(truth)

    def merge(self, other: "Ranking") -> None:
        self.clusters += other.clusters
        self.scores += other.scores
        self.truth += other.truth

    def ranked(self) -> tuple[Array, Array, Array]:
        """Return scores and whether they are of it (N, K), and how often samples count (N, 1 + R).

        Of two classes it is the second one's column alone.
        """
        scores, truth = np.concatenate(self.scores), np.concatenate(self.truth)
        weights = _weights(self.clusters, self.resamples)
        if truth.ndim > 1:
            return scores, truth > 0.5, weights
        num_outputs = len(self.target.names)
        columns = [1] if num_outputs == 2 else list(range(num_outputs))
        is_so = truth[:, None] == np.array(columns)
        return scores[:, columns], is_so, weights * (truth != IGNORED)[:, None]

    def compute(self) -> tuple[float, Float64]:
        if not self.clusters:
            return float("nan"), np.full(self.resamples, np.nan)
        scores, is_so, weights = self.ranked()
        ranked = range(scores.shape[1])
        found = np.concatenate(
            [
                np.stack([self.metric(scores[:, k], is_so[:, k], some) for k in ranked])
                for first in range(0, 1 + self.resamples, AT_ONCE)
                for some in [weights[:, first : first + AT_ONCE].T.astype(np.float64)]
            ],
            axis=1,
        )  # (K, 1 + R)
        there = np.isfinite(found)
        with np.errstate(invalid="ignore"):
            values = np.where(there, found, 0).sum(0) / there.sum(0)
        return float(values[0]), values[1:]


class PooledRanking(Ranking):
    """Scores of several labels each: every label of every sample ranks beside every other."""

    def ranked(self) -> tuple[Array, Array, Array]:
        scores, is_so, weights = super().ranked()
        repeated = np.repeat(weights, scores.shape[1], axis=0)
        return scores.reshape(-1, 1), is_so.reshape(-1, 1), repeated


def interval(values: Float64) -> tuple[float, float]:
    """Return the interval that holds 95 % of values, of those that are defined.

    NaN where more than `UNDEFINED` of them are not: of one or two clusters most of what could be
    drawn was never seen, and an interval would be too narrow.

    >>> interval(np.arange(1001.0))
    (25.0, 975.0)
    """
    if not values.size or np.isnan(values).mean() > UNDEFINED:
        return np.nan, np.nan
    low, high = np.nanquantile(values, [TAIL, 1 - TAIL])
    return float(low), float(high)


def _weights(clusters: Sequence[str], resamples: int) -> Array:
    """Return how often each sample counts: once, and in each resample, (b, 1 + R)."""
    drawn = [
        np.append(1, np.random.default_rng(crc32(cluster.encode())).poisson(1.0, resamples))
        for cluster in clusters
    ]
    return np.stack(drawn).astype(np.uint8)
