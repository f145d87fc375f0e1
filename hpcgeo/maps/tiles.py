"""Tiles of a scene: where they lie, how they are weighted, which are needed for which rows.

Letters: t side of a tile in pixels, o pixels that neighbours share.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hpcgeo.data.sample import Float32

#: Neighbours share at most this fraction of a tile: a pixel then lies in two of a row, or in three
#: where the last tile is shifted.
MOST = 0.5
#: What neighbours share unless told: docs/maps.md has the measurement.
USUAL = 0.25


@dataclass(frozen=True)
class Tiling:
    """Tiles in rows over a scene; the last row and column are shifted to end where it ends.

    Attributes:
        height, width: of the scene, in pixels.
        tile: t, rows and columns.
        overlap: o, rows and columns.
    """

    height: int
    width: int
    tile: tuple[int, int]
    overlap: tuple[int, int]

    @property
    def tops(self) -> tuple[int, ...]:
        """The first row of each row of tiles."""
        return offsets(self.height, self.tile[0], self.overlap[0])

    @property
    def lefts(self) -> tuple[int, ...]:
        """The first column of each column of tiles."""
        return offsets(self.width, self.tile[1], self.overlap[1])

    @property
    def strips(self) -> tuple[tuple[int, int], ...]:
        """First and last row (exclusive) of each strip.

        A strip ends where the next row of tiles begins: no later tile changes it.
        """
        return tuple(pairwise((*self.tops, self.height)))

    def first_of(self, strip: int) -> int:
        """Return the first row of tiles that a strip needs; the last one has its own number."""
        tops = self.tops
        return next(n for n, top in enumerate(tops) if top + self.tile[0] > tops[strip])

    def weights(self) -> Float32:
        """Return the weight of each pixel of a tile, (t, t): less where others lie over it."""
        down, across = (ramp(*each) for each in zip(self.tile, self.overlap, strict=True))
        return np.outer(down, across).astype(np.float32)


def offsets(length: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Return where tiles begin along a side; the last is shifted so that it ends there.

    >>> offsets(10, 4, 2), offsets(9, 4, 0), offsets(3, 4, 2)
    ((0, 2, 4, 6), (0, 4, 5), (0,))
    """
    if length <= tile:
        return (0,)
    return (*range(0, length - tile, tile - overlap), length - tile)


def ramp(tile: int, overlap: int) -> Float32:
    """Return weights along a tile, (t,), whose sum over neighbours is 1.

    >>> ramp(4, 2).round(2).tolist()
    [0.15000000596046448, 0.8500000238418579, 0.8500000238418579, 0.15000000596046448]
    """
    weights = np.ones(tile, dtype=np.float32)
    rising = np.sin((np.arange(overlap) + 0.5) * np.pi / (2 * max(1, overlap))) ** 2
    weights[:overlap] = rising
    weights[tile - overlap :] *= rising[::-1].astype(np.float32)
    return weights


def shared(tile: int, fraction: float, step: int) -> int:
    """Return how many pixels neighbours share: a fraction of a tile, in whole steps.

    >>> shared(64, 0.5, 8), shared(64, 0.2, 8), shared(64, 0.0, 8)
    (32, 16, 0)
    """
    return min(math.ceil(tile * fraction / step) * step, int(tile * MOST) // step * step)


def batches(columns: Sequence[int], size: int) -> list[Sequence[int]]:
    """Return tiles of a row in batches: which share one depends on the scene alone."""
    return [columns[first : first + size] for first in range(0, len(columns), size)]
