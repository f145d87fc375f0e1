"""What is hidden of a sample, a function of (seed, position): patches of an image, or tokens."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcgeo.data.labelled_batches import Bool, Drawn
from hpcgeo.data.sampling.order import uniform

#: What is hidden together: any tokens, all bands and dates of a place, a date, a band, a sensor.
WAYS = ("tokens", "places", "dates", "bands", "sensors")


def noise(seed: int, position: NDArray[np.int64], num_patches: int) -> Tensor:
    """Return one number per patch, (B, N) float32; the smallest ones stay visible.

    Args:
        seed: of the run.
        position: (B,) global positions; they carry the epoch.
    """
    return torch.from_numpy(uniform(seed, position, "mask", num_patches).astype(np.float32))


def hide(drawn: Drawn, ratio: float, seed: int) -> tuple[tuple[Bool, ...], tuple[Bool, ...]]:
    """Return which tokens of a sample stay visible, and which are hidden, by observation.

    One of `WAYS` is drawn from (seed, position); whole units of it are hidden until the next would
    leave fewer than 1 - ratio of the tokens, and single tokens make up the rest.
    """
    position = np.array([drawn.position])
    way = WAYS[int(uniform(seed, position, "way", 1)[0, 0] * len(WAYS))]
    sizes = [kept.size for kept in drawn.kept]
    names = np.concatenate([_units(kept, number, way) for number, kept in enumerate(drawn.kept)])
    kept = np.concatenate([part.ravel() for part in drawn.kept])
    units, unit_of = np.unique(names, return_inverse=True)
    order = uniform(seed, position, "hide", len(units))[0].argsort(kind="stable")
    held = np.bincount(unit_of, weights=kept, minlength=len(units))
    budget = int(ratio * kept.sum())
    chosen = np.zeros(len(units), dtype=bool)
    left = float(budget)
    for unit in order:
        if held[unit] <= left:
            chosen[unit] = True
            left -= held[unit]
    hidden = chosen[unit_of] & kept
    rest = np.flatnonzero(kept & ~hidden)
    noise = uniform(seed, position, "rest", len(rest))[0] if len(rest) else np.zeros(0)
    hidden[rest[noise.argsort(kind="stable")[: budget - int(hidden.sum())]]] = True
    parts = np.split(hidden, np.cumsum(sizes)[:-1])
    masks = tuple(part.reshape(k.shape) for part, k in zip(parts, drawn.kept, strict=True))
    return tuple(k & ~m for k, m in zip(drawn.kept, masks, strict=True)), masks


def _units(kept: Bool, number: int, way: str) -> Any:
    """Return the unit that each token of an observation belongs to, as a number."""
    shape = (*kept.shape, 1, 1)[:4]
    t, b, i, j = np.indices(shape).reshape(4, -1)
    units = {
        "tokens": np.arange(kept.size),
        "places": i * shape[3] + j,
        "dates": t,
        "bands": b,
        "sensors": np.zeros(kept.size, dtype=np.int64),
    }[way]
    return units + number * 10**9  # never shared between observations
