"""Samples that show the same: by a perceptual hash of their images, and by their place.

What stands in two splits is learned by heart and then tested.

The hash is that of differences (dHash, N. Krawetz 2013, "Kind of like that"): the image in grey, as
averages over 8 rows of 9 columns, and of each row whether it gets brighter from column to column:
64 bits. Images that differ in a few bits are compared by the correlation of averages over 16 x 16
too, as bits of an even image are those of its noise. Turned or mirrored images are not found.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from hpcgeo.data.duplicate_list import Duplicate
from hpcgeo.data.readers.collection import Collection
from hpcgeo.data.sample import Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.log import log

Int64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]

#: Columns of averages that a hash is taken of, one more than bits in a row; rows.
HASHED = (8, 9)
#: Side of the averages that are correlated.
SMALL = 16
#: Correlation from which on images are the same.
ALIKE = 0.9
#: Images that are compared with all others at once.
AT_ONCE = 2048
#: Fraction of a side within which centres are near: those of tiles beside each other are not.
NEAR = 0.98
EARTH_M = 6_371_000.0


@dataclass(frozen=True)
class Looks:
    """What samples look like and where they are.

    Attributes:
        bits: (N, 64) of -1 and 1; zeros: no image.
        small: (N, 256) averages of the image, of zero mean and unit length; zeros: even, or none.
        places: (N, 2) longitude and latitude, NaN: not known.
        sides_m: (N,) metres on a side of the image, NaN: not known.
    """

    bits: Float32
    small: Float32
    places: Float64
    sides_m: Float64


def looks_of(collection: Collection, workers: int = 1) -> Looks:
    """Return what all samples of a collection look like; a damaged file is said and left out."""
    load = partial(_look, collection)
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(load, range(len(collection.splits))))
    bits, small, places, sides_m = zip(*found, strict=True)
    return Looks(np.stack(bits), np.stack(small), np.array(places), np.array(sides_m))


def _look(
    collection: Collection, index: int
) -> tuple[Float32, Float32, tuple[float, float], float]:
    try:
        sample = collection.load(index)
    except InputError as error:
        log.warning("left out: %s", error)
        sample = Sample((), np.empty(0))
    bits, small = np.zeros(64, np.float32), np.zeros(SMALL**2, np.float32)
    image = next((one for one in sample.observations if one.values.ndim == 4), None)
    if image is None or min(image.values.shape[2:]) < SMALL:  # pixels and vectors have no looks
        return bits, small, sample.place, _side_m(image)
    grey = _grey(image)
    few = averages(grey, *HASHED)
    small = averages(grey, SMALL, SMALL).ravel()
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    bits = np.where(np.diff(few, axis=1) > 0, 1, -1).astype(np.float32).ravel()
    even = length <= 1e-6 * max(1.0, float(np.abs(grey).max())) * SMALL
    return bits, small * 0 if even else small / length, sample.place, _side_m(image)


def _grey(image: Observation) -> Float32:
    """Return the mean of the bands of the first date, (H, W); missing pixels are its mean."""
    bands = image.values[0]
    there = np.isfinite(bands)
    grey = np.where(there, bands, 0).sum(0) / np.maximum(there.sum(0), 1)
    known = there.any(0)
    return np.where(known, grey, grey[known].mean() if known.any() else 0).astype(np.float32)


def _side_m(image: Observation | None) -> float:
    return float("nan") if image is None else image.gsd_m * image.values.shape[-1]


def averages(image: Float32, rows: int, columns: int) -> Float32:
    """Return averages of an image (H, W) over rows x columns fields, each pixel by its area.

    >>> averages(np.arange(8, dtype=np.float32).reshape(2, 4), 1, 2).tolist()
    [[2.5, 4.5]]
    """
    down, across = (
        _shares(size, parts) for size, parts in zip(image.shape, (rows, columns), strict=True)
    )
    return down @ image @ across.T


def _shares(size: int, parts: int) -> Float32:
    """Return how much of each part each pixel of a line is, (parts, size)."""
    edges = np.linspace(0, size, parts + 1)
    starts = np.arange(size)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (np.maximum(overlap, 0) * parts / size).astype(np.float32)


def alike(looks: Looks, splits: Strings, most_bits: int) -> list[Duplicate]:
    """Return the pairs of different splits whose hashes differ in at most so many bits.

    All pairs are compared, a block of rows at a time: of bits as -1 and 1 the scalar product is 64
    less twice the number that differ.
    """
    found = []
    for ours, theirs in _across(splits):
        for start in range(0, len(ours), AT_ONCE):
            mine = ours[start : start + AT_ONCE]
            products = looks.bits[mine] @ looks.bits[theirs].T
            row, column = np.nonzero(products >= 64 - 2 * most_bits)
            first, second = mine[row], theirs[column]
            similar = (looks.small[first] * looks.small[second]).sum(1) >= ALIKE
            bits = ((64 - products[row, column]) / 2).astype(np.int64)
            both = zip(first[similar], second[similar], bits[similar], strict=True)
            found += [Duplicate(int(i), int(j), bits=int(d)) for i, j, d in both]
    return found


def close_by(looks: Looks, splits: Strings) -> list[Duplicate]:
    """Return the pairs of different splits that are nearer to each other than an image is wide."""
    known = np.isfinite(looks.places).all(1) & np.isfinite(looks.sides_m)
    found: list[Duplicate] = []
    for ours, theirs in _across(np.where(known, splits, "")):
        tree = cKDTree(_on_sphere(looks.places[theirs]))
        points = _on_sphere(looks.places[ours])
        widest = float(looks.sides_m[known].max())
        for index, point, near in zip(
            ours, points, tree.query_ball_point(points, widest), strict=True
        ):
            for other in theirs[sorted(near)]:
                metres = float(np.linalg.norm(point - _on_sphere(looks.places[other][None])[0]))
                if metres < NEAR * (looks.sides_m[index] + looks.sides_m[other]) / 2:
                    found.append(Duplicate(int(index), int(other), metres=round(metres, 1)))
    return found


def _across(splits: Strings) -> Iterator[tuple[Int64, Int64]]:
    """Yield the numbers of the samples of every two splits, the larger one first."""
    parts = [np.flatnonzero(splits == split) for split in np.unique(splits) if split]
    parts.sort(key=len, reverse=True)
    for number, ours in enumerate(parts):
        for theirs in parts[number + 1 :]:
            yield ours, theirs


def _on_sphere(places: Float64) -> Float64:
    """Return places (N, 2) as metres from the middle of the Earth, (N, 3)."""
    lon, lat = np.radians(places).T
    return EARTH_M * np.stack(
        [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1
    )


def counted(pairs: Sequence[Duplicate], splits: Strings) -> dict[tuple[str, str], int]:
    """Return the number of pairs of every two splits."""
    names = [tuple(sorted((splits[pair.first], splits[pair.second]))) for pair in pairs]
    return {(a, b): names.count((a, b)) for a, b in sorted(set(names))}
