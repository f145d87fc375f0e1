"""Tokens of a forward-backward pass: samples of any length in a flat tensor (N, C), one by one.

Letters: S samples, N tokens of all of them, b samples of a cluster, n tokens of its longest.

A layout is made on the CPU, before its pass. Attention to its samples is either done cluster by
cluster, each padded to its longest sample, or on the flat tensor itself, with nothing padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cluster:
    """Samples that are padded together.

    Attributes:
        rows: (b,) which samples.
        index: (b, n) their tokens in the flat tensor; padding points at token 0.
        mask: (b, n) True at a token, False at padding; None: nothing is padded.
    """

    rows: Tensor
    index: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Padded:
    """Clusters that hold every sample once.

    Attributes:
        clusters: at least one; that of a pass without samples is empty.
        order: (S,) where each sample stands among the rows of all clusters.
    """

    clusters: tuple[Cluster, ...]
    order: Tensor


@dataclass(frozen=True)
class Packed:
    """Samples one behind the other.

    Attributes:
        lengths: tokens of each sample, in their order.
        bounds: (S + 1,) int32, where each begins and the last ends.
    """

    lengths: tuple[int, ...]
    bounds: Tensor


TokenLayout = Padded | Packed


def padded(lengths: Sequence[int], clusters: Sequence[Sequence[int]]) -> Padded:
    """Lay samples out in clusters.

    Args:
        lengths: tokens of each sample, at least 1.
        clusters: numbers of samples, each in one cluster.

    Raises:
        ValueError: a sample is in no cluster or in two, a cluster is or a sample has nothing.
    """
    _check(lengths)
    rows = [row for cluster in clusters for row in cluster]
    if sorted(rows) != list(range(len(lengths))) or not all(clusters):
        raise ValueError(
            f"clusters {clusters} of {len(lengths)} samples: name each of 0 to "
            f"{len(lengths) - 1} once, and no cluster without any"
        )
    starts = [0, *accumulate(lengths)]
    # An empty pass has one empty cluster: attention runs all the same, and every parameter gets a
    # gradient, of zeros.
    made = [_cluster(lengths, starts, cluster) for cluster in clusters or [[]]]
    return Padded(tuple(made), torch.tensor(rows, dtype=torch.long).argsort())


def packed(lengths: Sequence[int]) -> TokenLayout:
    """Lay samples out one behind the other; without any sample, as one empty cluster.

    Args:
        lengths: tokens of each sample, at least 1.

    Raises:
        ValueError: a sample has none.
    """
    if not lengths:
        return padded(lengths, [])
    _check(lengths)
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return Packed(tuple(lengths), bounds)


def _check(lengths: Sequence[int]) -> None:
    if lengths and min(lengths) < 1:
        raise ValueError(f"lengths {list(lengths)}: every sample has at least 1 token")


def _cluster(lengths: Sequence[int], starts: Sequence[int], samples: Sequence[int]) -> Cluster:
    rows = torch.tensor(samples, dtype=torch.long)
    counts = torch.tensor([lengths[sample] for sample in samples], dtype=torch.long)[:, None]
    firsts = torch.tensor([starts[sample] for sample in samples], dtype=torch.long)[:, None]
    place = torch.arange(max((lengths[sample] for sample in samples), default=1))
    mask = place < counts  # (b, n)
    index = (firsts + place).where(mask, 0)
    return Cluster(rows, index, None if mask.all() else mask)
