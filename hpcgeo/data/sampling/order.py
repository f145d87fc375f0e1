"""Random numbers and shuffled orders that are pure functions of (seed, position).

A position counts samples over the whole run: ``position // size`` is the epoch. Nothing is kept
between calls, so any rank can draw any sample's numbers, and no list of indices is ever held.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 6


def uniform(seed: int, position: Int, stream: str, count: int) -> Float:
    """Return independent uniform numbers in [0, 1) for every position.

    Args:
        seed: of the run.
        position: global positions of samples, (B,).
        stream: what the numbers are for ("crop", "mask"); streams are independent of each other.
        count: numbers per position.

    Returns:
        (B, count) float64.

    >>> both = uniform(0, np.array([7, 8]), "crop", 3)
    >>> bool((both[1] == uniform(0, np.array([8]), "crop", 3)[0]).all())
    True
    """
    start = keys(seed, position, stream)
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN  # (count,)
        bits = _mix(start[:, None] + steps)  # (B, count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keys(seed: int, position: Int, stream: str) -> Bits:
    """Return the number (B,) from which those of `uniform` follow at every position."""
    with np.errstate(over="ignore"):
        return _mix(position.astype(np.uint64) * _GOLDEN + _key(seed, stream))


def shuffled(position: Int, size: int, seed: int) -> Int:
    """Return the index of the sample at each position; every epoch is its own permutation.

    A Feistel network over the grid a x b >= size, a = ceil(sqrt(size)), keyed by seed and epoch;
    cells beyond `size` are walked over (Black and Rogaway 2002, section 3). Time and memory depend
    on the number of positions alone.

    Args:
        position: global positions, (B,).
        size: number of samples in an epoch, at least 1.
        seed: of the run.

    Returns:
        (B,) int64 in [0, size).
    """
    rows = np.uint64(max(1, int(np.ceil(np.sqrt(size)))))
    columns = np.uint64(-(-size // int(rows)))
    place = position.astype(np.uint64)
    with np.errstate(over="ignore"):
        key = _mix(place // np.uint64(size) * _GOLDEN + _key(seed, "order"))
        index = place % np.uint64(size)
        outside = np.ones(index.shape, dtype=bool)
        while outside.any():
            index[outside] = _permute(index[outside], rows, columns, key[outside])
            outside = index >= size
    return index.astype(np.int64)


def _permute(cell: Bits, rows: np.uint64, columns: np.uint64, key: Bits) -> Bits:
    row, column = cell // columns, cell % columns
    for number in range(_ROUNDS):
        key = _mix(key + _GOLDEN)
        if number % 2:
            row = (row + _mix(column ^ key) % rows) % rows
        else:
            column = (column + _mix(row ^ key) % columns) % columns
    return row * columns + column


def _mix(bits: Bits) -> Bits:
    """Return the finaliser of splitmix64 (Steele, Lea and Flood 2014): a bijection of 64 bits."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _key(seed: int, stream: str) -> np.uint64:
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))
