"""Features as linear protocols read them: standardised, then turned to their principal axes.

On these axes the features are uncorrelated: a ridge regression is a division, and the curvature of
a logistic regression is nearly diagonal. No penalty on the length of weights sees the turn.

Letters: N samples, D features, A axes (D, or fewer where there are fewer samples).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcgeo.evaluate.protocols.protocol import Described

#: Rows that are read at once.
ROWS = 8192
#: Of the largest variance: axes below it are rounding.
SMALLEST = 1e-12


@dataclass(frozen=True)
class Standard:
    """Mean and deviation (D,) of features over a training split, float64."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, train: Described) -> "Standard":
        """Return the moments of all rows, of the last axis; a constant feature has deviation 1."""
        blocks = range(0, len(train), ROWS)
        mean = deviation = torch.zeros((), dtype=torch.float64)
        for first in blocks:
            mean = mean + _flat(train, first).sum(0)
        count = train.vectors[..., 0].size
        mean = mean / count
        for first in blocks:
            deviation = deviation + (_flat(train, first) - mean).square_().sum(0)
        deviation = (deviation / count).sqrt()
        constant = deviation <= torch.finfo(torch.float32).eps * mean.abs()
        return cls(mean, torch.where(constant, 1.0, deviation))

    def apply(self, vectors: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return standardised vectors (n, ..., D)."""
        mean, deviation = self.mean.to(vectors.device), self.deviation.to(vectors.device)
        return (vectors - mean.to(dtype)) / deviation.to(dtype)

    def matrix(self, train: Described, dtype: torch.dtype) -> Tensor:
        """Return standardised vectors (N, D) of a split."""
        found = [
            self.apply(train.block(slice(first, first + ROWS)).to(dtype), dtype)
            for first in range(0, len(train), ROWS)
        ]
        return torch.cat(found)


def _flat(train: Described, first: int) -> Tensor:
    return train.block(slice(first, first + ROWS)).double().flatten(0, -2)


@dataclass(frozen=True)
class Axes:
    """Centred features on their principal axes.

    Attributes:
        turned: (N, A) the features.
        basis: (D, A) with orthonormal columns: features = turned @ basis.T.
        variance: (A,) of each axis.
        mean: (D,) that was taken off.
    """

    turned: Tensor
    basis: Tensor
    variance: Tensor
    mean: Tensor


def axes(features: Tensor) -> Axes:
    """Return features (N, D) on their principal axes, by one eigendecomposition."""
    size, width = features.shape
    mean = features.mean(0)
    centred = features - mean
    if size >= width:
        variance, basis = torch.linalg.eigh((centred.T @ centred).double() / size)
        basis = basis.to(features.dtype)
        return Axes(centred @ basis, basis, variance.clamp(min=0).to(features.dtype), mean)
    exact = centred.double()
    variance, left = torch.linalg.eigh(exact @ exact.T / size)
    kept = variance > SMALLEST * variance[-1]
    variance, left = variance[kept], left[:, kept]
    length = (variance * size).sqrt()
    turned, basis = left * length, exact.T @ left / length
    return Axes(*(each.to(features.dtype) for each in (turned, basis, variance, mean)))
