"""Answers of overlapping tiles become rows of a map, a strip at a time: memory follows the width.

Letters: K outputs, t rows of a tile, W columns of the map, h x w cells. A cell of the map is a
pixel of the scene, or a square of s x s of them.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hpcgeo.data.labelled_batches import ENOUGH
from hpcgeo.data.sample import Float32, Sample
from hpcgeo.maps.reading import SceneReader
from hpcgeo.maps.tiles import Tiling, batches

Bool = npt.NDArray[np.bool_]

#: Averaged answers (b, K, H, W) to samples.
Ask = Callable[[Sequence[Sample]], Tensor]


def cells(there: Bool, scale: int) -> Bool:
    """Return which cells are there: those with at least half of their pixels.

    >>> cells(np.array([[True, True, False], [False, False, True]]), 2).tolist()
    [[True, False]]
    """
    if scale == 1:
        return there
    height, width = (-(-side // scale) * scale for side in there.shape)
    whole = np.zeros((height, width), np.bool_)
    whole[: there.shape[0], : there.shape[1]] = there
    parts = whole.reshape(height // scale, scale, width // scale, scale).mean((1, 3))
    found: Bool = parts >= ENOUGH
    return found


class Blender:
    """The sum of weighted answers over the rows of tiles that still change."""

    def __init__(self, tiling: Tiling, num_outputs: int) -> None:
        """Begin with nothing.

        Args:
            tiling: of the scene.
            num_outputs: K.
        """
        rows = min(tiling.tile[0], tiling.height)
        self._sums: Float32 = np.zeros((num_outputs, rows, tiling.width), np.float32)
        self._weights: Float32 = np.zeros((rows, tiling.width), np.float32)
        self._there: Bool = np.zeros((rows, tiling.width), np.bool_)
        self._each = tiling.weights()

    def add(self, left: int, there: Bool, answer: Float32) -> None:
        """Add the answer to a tile, (K, t, t), at a column; `there` (h, w) is cut at the edge."""
        height, width = there.shape
        part = slice(left, left + width)
        weight = self._each[:height, :width]
        self._sums[:, :height, part] += answer[:, :height, :width] * weight
        self._weights[:height, part] += weight
        self._there[:height, part] |= there

    def take(self, rows: int) -> tuple[Float32, Bool]:
        """Return averages (K, h, W) of the first rows, and which are there; move on by them."""
        weights = self._weights[:rows].copy()
        weights[weights == 0] = 1
        mean: Float32 = self._sums[:, :rows] / weights
        there = self._there[:rows].copy()
        for array in (self._sums, self._weights[None], self._there[None]):
            array[:, : array.shape[1] - rows] = array[:, rows:].copy()
            array[:, array.shape[1] - rows :] = 0
        return mean, there


def strips(
    reader: SceneReader,
    tiling: Tiling,
    wanted: Sequence[int],
    ask: Ask,
    num_outputs: int,
    batch: int,
    alive: Callable[[int], None],
    scale: int = 1,
) -> Iterator[tuple[int, Float32, Bool]]:
    """Yield strips of a map: number, averages (K, h, W), and which pixels are there, (h, W).

    A strip is the same whichever others are asked for: the tiles over it are added from the top,
    in batches that the scene alone determines.

    Args:
        reader: the open scene.
        tiling: its tiles, in cells.
        wanted: numbers of strips, rising without a gap.
        ask: the model.
        num_outputs: K.
        batch: tiles that are read and answered together.
        alive: called with the number of tiles of each batch.
        scale: s, pixels on a side of a cell; the model answers for cells.
    """
    first, last = tiling.first_of(wanted[0]), wanted[-1]
    blender, bounds = Blender(tiling, num_outputs), tiling.strips
    height, width = tiling.tile
    for number in range(first, last + 1):
        top, bottom = bounds[number]
        for columns in batches(tiling.lefts, batch):
            lefts, side = [left * scale for left in columns], (height * scale, width * scale)
            tiles = reader.tiles(top * scale, lefts, side)
            seen = [cells(tile.there, scale) for tile in tiles]
            some = [n for n, each in enumerate(seen) if each.any()]
            if some:
                answers = ask([tiles[n].sample for n in some]).numpy()
                for n, answer in zip(some, answers, strict=True):
                    blender.add(columns[n], seen[n], answer)
            if number >= wanted[0]:
                alive(len(columns))
        mean, there = blender.take(bottom - top)
        if number >= wanted[0]:
            yield number, mean, there
