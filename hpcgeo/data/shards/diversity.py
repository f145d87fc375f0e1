"""How diverse the images of a data set are, by the folder that they come from.

The entropy of an image is that of the histogram of its grey levels (256 levels of the mean of its
bands), in bits, as GFM compares GeoPile with Sentinel-2 (Mendieta et al. 2023, arXiv 2302.04476);
that of a folder is the mean over its images, and beside it stands that of all their pixels
together. Levels of numbers that are no bytes are those of `RANGE` deviations around the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpcgeo.data.shards.dataset import ShardDataset
from hpcgeo.log import track

LEVELS, RANGE = 256, 3.0
#: Samples of a folder that are read, at most, spread over it.
READ = 1000
#: What images without a folder, and all together, are called.
HERE, ALL = ".", "all"

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """Images of one folder.

    Attributes:
        name: of the first folder below the one that was built from.
        samples: there are.
        entropy: of an image, in bits: the mean over those that were read; NaN: none had a pixel.
        together: of all their pixels.
    """

    name: str
    samples: int
    entropy: float
    together: float


def origins(data: ShardDataset, read: int = READ) -> list[Origin]:
    """Return the folders of a data set, by name, and last what all together come to.

    Args:
        data: the data set.
        read: samples of each folder that are read at most.

    Raises:
        InputError: a shard file cannot be read.
    """
    sources = data.metadata().source
    parts = np.char.partition(sources, "/")  # of a name without a folder the first part is all
    names = np.where(parts[:, 1] == "/", parts[:, 0], HERE)
    found, entropies = [], []
    whole = np.zeros(LEVELS, np.int64)
    for name in np.unique(names).tolist():
        own = np.flatnonzero(names == name)
        some = own[np.linspace(0, len(own) - 1, min(read, len(own))).astype(np.int64)]
        counts = [levels(data, int(index)) for index in track(some.tolist(), name)]
        each = [entropy(one) for one in counts if one.any()]
        pooled = np.sum(counts, axis=0)
        # A folder counts as often as it has images, however few of them were read.
        whole += pooled * len(own) // len(some)
        entropies += [(np.mean(each), len(own))] if each else []
        found.append(Origin(name, len(own), _mean(each), entropy(pooled)))
    values, weights = zip(*entropies, strict=True) if entropies else ((np.nan,), (1,))
    total = Origin(ALL, len(sources), float(np.average(values, weights=weights)), entropy(whole))
    return [*found, total]


def levels(data: ShardDataset, index: int) -> Counts:
    """Return how many valid pixels of an image have each grey level, (LEVELS,)."""
    pixels, [(height, width)] = data.read(np.array([index]))
    values = pixels[0, :, :height, :width].astype(np.float64)  # (C, h, w)
    [layout] = data.layout_of(np.array([index]))
    known = np.isfinite(values) & (values != data.nodata[layout])
    if pixels.dtype != np.uint8:
        mean, std = (each[layout][:, None, None] for each in (data.mean, data.std))
        values = ((values - mean) / (std * RANGE) + 1) / 2 * (LEVELS - 1)
    grey = values.mean(0)[known.all(0)]
    found = np.clip(np.rint(grey), 0, LEVELS - 1).astype(np.int64)
    return np.bincount(found, minlength=LEVELS)


def entropy(counts: npt.ArrayLike) -> float:
    """Return the Shannon entropy of counts in bits; NaN of none.

    >>> entropy([1, 1, 1, 1]), entropy([3, 0])
    (2.0, 0.0)
    """
    counts = np.asarray(counts, dtype=np.float64)
    if not counts.any():
        return float("nan")
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
