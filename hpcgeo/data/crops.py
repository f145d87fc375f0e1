"""Random crops of labelled images, brought back to their size: labels of pixels with them."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import interpolate

from hpcgeo.data.sample import Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Array


def cropped(sample: Sample, area: tuple[float, float], chance: Float64) -> Sample:
    """Return a crop of a sample, of its own aspect and size; vectors stay as they are.

    Pixels are interpolated, and cover as many metres fewer; missing ones and labels of pixels are
    those of the nearest.

    Args:
        sample: images of one frame.
        area: least and most of the frame, as fractions.
        chance: (3,) uniform numbers: of the area, and of where it lies, down and right.
    """
    low, high = area
    side = float(np.sqrt(low + (high - low) * chance[0]))
    top, left = (1 - side) * chance[1], (1 - side) * chance[2]

    def cut(shape: tuple[int, ...]) -> tuple[slice, slice]:
        found = []
        for size, begin in zip(shape, (top, left), strict=True):
            length = max(1, round(side * size))
            first = min(round(begin * size), size - length)
            found.append(slice(first, first + length))
        return found[0], found[1]

    def seen(one: Observation) -> Observation:
        if one.values.ndim != 4:
            return one
        rows, columns = cut(one.values.shape[-2:])
        part = one.values[..., rows, columns]
        scale = part.shape[-2] / one.values.shape[-2]
        values = _resized(part, one.values.shape[-2:])
        return replace(one, values=values, gsd_m=one.gsd_m * scale)

    target = sample.target
    if sample.dense:
        rows, columns = cut(target.shape[-2:])
        target = _nearest(target[..., rows, columns], target.shape[-2:])
    return replace(sample, observations=tuple(map(seen, sample.observations)), target=target)


def refuse_crop(name: str, sample: Sample) -> None:
    """Refuse crops of a task that has no images; an InputError says so."""
    if not any(seen.values.ndim == 4 and seen.values.shape[-1] > 1 for seen in sample.observations):
        raise InputError(
            f"data.tasks.{name}.crop has no effect: its samples are no images; leave it out"
        )


def _resized(part: Float32, size: tuple[int, ...]) -> Float32:
    """Return pixels (T, L, h, w) at another size, (T, L, H, W)."""
    there = np.isfinite(part)
    filled = torch.from_numpy(np.where(there, part, 0))
    values = interpolate(filled, size, mode="bilinear", align_corners=False).numpy()
    return values if there.all() else np.where(_nearest(there, size), values, np.float32(np.nan))


def _nearest(part: Array, size: tuple[int, ...]) -> Array:
    """Return an array (..., h, w) at another size, every value that of the nearest pixel."""
    rows, columns = (
        ((np.arange(wanted) + 0.5) * has / wanted).astype(np.int64)
        for wanted, has in zip(size, part.shape[-2:], strict=True)
    )
    return part[..., rows[:, None], columns]
