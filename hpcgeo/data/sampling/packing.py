"""Which samples of a step are computed together, when each has a number of tokens of its own.

A step's samples are split into forward-backward passes that fit into memory; within a pass, samples
of one cluster are stacked and padded to the longest of them. Padding of a
cluster: the sum of (longest - n).
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from hpcgeo.errors import InputError

#: `padding`: one cluster. `dbscan`: that of the GPNA paper, its limit kept. `bins`: the fewest runs
#: of the sorted samples that keep the limit. `packed`: one cluster, end to end without padding.
Mode = Literal["padding", "dbscan", "bins", "packed"]

Int = npt.NDArray[np.int64]


def clusters(lengths: Sequence[int], mode: Mode, max_padding: int) -> list[list[int]]:
    """Return the samples of each cluster, longest first; every sample is in exactly one.

    Args:
        lengths: tokens of each sample, at least 1, (B,).
        mode: how.
        max_padding: most padding of a cluster, in tokens; of `dbscan` and `bins` alone.

    Raises:
        InputError: no such mode, or a negative limit.

    >>> clusters([7, 20, 8, 19, 6], "bins", 3)
    [[1, 3], [2, 0, 4]]
    """
    if mode not in get_args(Mode):
        raise InputError(f"batching mode {mode!r}: it is one of {', '.join(get_args(Mode))}")
    if max_padding < 0:
        raise InputError(f"max_padding {max_padding}: at least 0 tokens")
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    if mode in ("padding", "packed"):
        return [order.tolist()] if len(order) else []
    tokens = np.asarray(lengths, dtype=np.int64)[order]  # falling
    ends = _greedy(tokens, max_padding) if mode == "bins" else _dbscan(tokens, max_padding)
    return [part.tolist() for part in np.split(order, ends) if len(part)]


def waste(lengths: Sequence[int], clusters: list[list[int]], mode: Mode) -> float:
    """Return padding / (padding + tokens) of these clusters; 0 where nothing is padded."""
    tokens = sum(lengths)
    if mode == "packed" or not tokens:
        return 0.0
    stacked = sum(len(cluster) * max(lengths[i] for i in cluster) for cluster in clusters)
    return 1 - tokens / stacked


def passes(lengths: Sequence[int], max_tokens: int, count: int | None = None) -> list[list[int]]:
    """Split the samples of a step into passes of at most `max_tokens` tokens each.

    A longer sample is a pass of its own. Without `count` there are as few passes as first-fit
    decreasing finds. With it there are exactly that many: ranks agree on the largest number that
    one of them needs, so that all run the same collectives. The most tokens of a pass are then as
    few as first-fit decreasing finds for that many passes (MULTIFIT, Coffman, Garey and Johnson
    1978); what is left over are empty passes at the end.

    Args:
        lengths: tokens of each sample, (B,).
        max_tokens: of a pass.
        count: passes, at least as many as are returned without it.

    >>> passes([3, 3, 2, 2, 2], 7)
    [[0, 1], [2, 3, 4]]
    >>> passes([3, 3, 2, 2, 2], 7, 3)
    [[0, 2], [1, 3], [4]]
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens {max_tokens}: at least 1 token")
    found = _first_fit(lengths, max_tokens)
    if count is None:
        return found
    assert len(found) <= count, f"{len(found)} passes are needed, {count} agreed"
    low, high = max(1, -(-sum(lengths) // max(count, 1))), max_tokens  # high always fits
    while low < high:
        middle = (low + high) // 2
        tried = _first_fit(lengths, middle)
        if len(tried) <= count:
            found, high = tried, middle
        else:
            low = middle + 1
    return found + [[] for _ in range(count - len(found))]


def _greedy(tokens: Int, max_padding: int) -> list[int]:
    """Return where runs of falling lengths end that are each as long as the limit allows.

    No cut of the sorted samples has fewer runs: a part of a run has no more padding than the run.
    """
    ends, start = [], 0
    padding = 0
    for number, n in enumerate(tokens.tolist()):
        padding += int(tokens[start]) - n
        if padding > max_padding:
            ends.append(number)
            start, padding = number, 0
    return ends


def _dbscan(tokens: Int, max_padding: int) -> list[int]:
    """Return where DBSCAN's clusters of falling lengths end, cut where they break the limit.

    In one dimension DBSCAN chains: lengths 1, 2, 3, ... are one cluster, however many. Such a
    cluster is cut at its widest gap, as DBSCAN does with a smaller eps; of equal gaps at the one
    nearest to the middle.
    """
    # A gap of more than max_padding is itself more padding than allowed.
    # With min_samples=1 every sample is a core, so clusters end where a gap is wider than eps.
    ends = (np.flatnonzero(-np.diff(tokens) > max_padding) + 1).tolist()
    parts = list(zip([0, *ends], [*ends, len(tokens)], strict=True))
    while parts:
        start, end = parts.pop()
        run = tokens[start:end]
        if len(run) and int((run[0] - run).sum()) > max_padding:
            gaps = -np.diff(run)
            widest = np.flatnonzero(gaps == gaps.max()) + 1
            cut = start + int(widest[np.argmin(np.abs(2 * widest - len(run)))])
            ends.append(cut)
            parts += [(start, cut), (cut, end)]
    return sorted(ends)


def _first_fit(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return passes by first-fit decreasing: each sample, longest first, to the first with room."""
    found: list[list[int]] = []
    room: list[int] = []
    for sample in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        n = lengths[sample]
        place = next((i for i, left in enumerate(room) if n <= left), len(found))
        if place == len(found):
            found.append([])
            room.append(max_tokens)
        found[place].append(sample)
        room[place] -= n
    return found
