"""Stochastic depth (Huang et al. 2016, arXiv 1603.09382): samples skip blocks, in training.

Whether a sample does in a block follows from a number of its own, which is handed down with the
inputs: not from the rank that computes it, the samples beside it, or what was drawn before. So it
is the same under every strategy, and where a block is computed again.

Letters: S samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

#: Of splitmix64 (Steele, Lea and Flood 2014), as signed integers, whose products wrap.
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def rates(rate: float, num_blocks: int) -> list[float]:
    """Return how often each block is skipped: 0 at the first, `rate` at the last, linear between.

    >>> rates(0.2, 3)
    [0.0, 0.1, 0.2]
    """
    return [rate * number / max(1, num_blocks - 1) for number in range(num_blocks)]


def kept(keys: Tensor | None, rate: float, num_blocks: int) -> Sequence[Tensor | None]:
    """Return the factors of what attention and MLP of each block add to each sample.

    They are 0, or the inverse of how often they are not: so that their mean is 1.

    Args:
        keys: (S,) int64, of the samples; None: nothing is skipped.
        rate: of the last block.
        num_blocks: of the backbone.

    Returns:
        (2, S, 1, 1) of each block, or None where nothing is skipped.
    """
    if keys is None or not rate:
        return [None] * num_blocks
    numbers = uniform(keys, 2 * num_blocks).T.reshape(num_blocks, 2, len(keys))  # (blocks, 2, S)
    return [
        ((own >= often) / (1 - often)).float()[..., None, None] if often else None
        for own, often in zip(numbers, rates(rate, num_blocks), strict=True)
    ]


def skipping(added: Tensor, factor: Tensor | None) -> Tensor:
    """Return what is added (S, T, W) times the factor (S, 1, 1) of its sample."""
    return added if factor is None else added * factor.to(added.dtype)


def uniform(keys: Tensor, count: int) -> Tensor:
    """Return uniform numbers in [0, 1), float64 (S, count), of keys (S,) int64.

    They are those of `hpcgeo.data.sampling.order.uniform`, whose keys they are made from.
    """
    steps = torch.arange(1, count + 1, device=keys.device) * GOLDEN
    bits = _mix(keys[:, None] + steps)
    return _shifted(bits, 11).double() * 2.0**-53


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * FACTORS[0]
    bits = (bits ^ _shifted(bits, 27)) * FACTORS[1]
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return bits moved to the right, with zeros in their place."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
