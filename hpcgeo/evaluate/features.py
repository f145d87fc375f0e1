"""Samples of any sensors as plain arrays: one vector each, or one image each.

Whatever a sample lacks is NaN in a vector and 0, the mean, in an image. How many dates of a channel
there are, the first training sample says.
"""

from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from hpcgeo.data.sample import Channel, Float32, Sample
from hpcgeo.kinds.target import Target

#: Bins of a histogram of values, over this many deviations to either side.
BINS, DEVIATIONS = 16, 3.0
#: Directions of gradients, counted in each of so many parts of a side.
DIRECTIONS, PARTS = 8, 4
#: Sides of the windows, in pixels, whose mean and deviation describe the pixel in the middle.
WINDOWS = (3, 9)


class Samples(Protocol):
    """Labelled samples; `channels` are all that any of them may hold."""

    @property
    def target(self) -> Target:
        """What is predicted."""
        ...

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Every channel that any sample may hold."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample:
        """Return a sample."""
        ...


class PlainArrays:
    """Where the values of each channel go, as the first training sample has them."""

    def __init__(self, train: Samples) -> None:
        first = train.read(0)
        there = _by_channel(first)
        usual = there[first.observations[0].channels[0]]
        #: (T, H, W), or (T, V) of vectors, of each channel; one it lacks is like its first one.
        self.shapes = {channel: there.get(channel, usual).shape for channel in train.channels}

    def vector(self, sample: Sample) -> Float32:
        """Return a description of a whole sample, (D,).

        Of each channel: a vector's values, averaged over dates; a pixel's series without gaps; an
        image's histograms of values and of directions of its gradients.
        """
        there = _by_channel(sample)
        return np.concatenate([self._described(s, there.get(s)) for s in self.shapes])

    def image(self, sample: Sample) -> Float32:
        """Return each date of each channel in the frame of the first observation, (bands, H, W)."""
        there = _by_channel(sample)
        frame = sample.observations[0].values.shape[2:]
        planes = []
        for channel, (dates, *_) in self.shapes.items():
            values = there.get(channel, np.zeros((0, *frame), np.float32))[:dates]
            values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
            seen = torch.from_numpy(values)[None]  # (1, T, H, W)
            if seen.shape[2:] != frame:
                seen = F.interpolate(seen, frame, mode="bilinear", align_corners=False)
            planes.append(F.pad(seen[0], (0, 0, 0, 0, 0, dates - len(values))))
        return torch.cat(planes).numpy()

    @property
    def has_images(self) -> bool:
        """Whether `image` gives more than single pixels."""
        return all(len(shape) == 3 for shape in self.shapes.values()) and any(
            max(shape[1:]) > 1 for shape in self.shapes.values()
        )

    @property
    def bands(self) -> int:
        """Of the images of `image`."""
        return sum(shape[0] for shape in self.shapes.values())

    def _described(self, channel: Channel, values: Float32 | None) -> Float32:
        dates, *rest = self.shapes[channel]
        if channel.length:
            seen = np.full((1, channel.length), np.nan, np.float32) if values is None else values
            return seen.mean(axis=0)
        if rest == [1, 1]:
            return _filled(np.empty(0, np.float32) if values is None else values[:, 0, 0], dates)
        if values is None:
            return np.full(BINS + DIRECTIONS * PARTS**2, np.nan, np.float32)
        return np.concatenate([_histogram(values), _gradients(values)])


def local(image: Float32) -> Float32:
    """Return what describes each pixel of an image: its values and those around it.

    Args:
        image: (bands, H, W).

    Returns:
        (H x W, D): the values, and their mean and deviation in each of `WINDOWS`.
    """
    values = torch.from_numpy(image)[None]
    found = [values]
    for side in WINDOWS:
        mean, square = (
            F.avg_pool2d(each, side, 1, side // 2, count_include_pad=False)
            for each in (values, values**2)
        )
        found += [mean, (square - mean**2).clamp(min=0).sqrt()]
    return torch.cat(found, dim=1)[0].flatten(1).T.numpy()


def _by_channel(sample: Sample) -> dict[Channel, Float32]:
    """Return the values of each channel, (T, H, W) or (T, V), dates of all its observations."""
    found: dict[Channel, list[Float32]] = {}
    for seen in sample.observations:
        for place, channel in enumerate(seen.channels):
            found.setdefault(channel, []).append(seen.values[:, place])
    return {channel: np.concatenate(parts) for channel, parts in found.items()}


def _filled(series: Float32, dates: int) -> Float32:
    """Return a series (T,) at so many dates; gaps are filled along straight lines."""
    known = np.flatnonzero(np.isfinite(series))
    if not len(known):
        return np.full(dates, np.nan, np.float32)
    at = np.linspace(0, len(series) - 1, dates)
    return np.interp(at, known, series[known]).astype(np.float32)


def _histogram(values: Float32) -> Float32:
    known = np.clip(values[np.isfinite(values)], -DEVIATIONS, DEVIATIONS)
    counts = np.histogram(known, BINS, (-DEVIATIONS, DEVIATIONS))[0]
    return np.sqrt(counts / max(1, len(known))).astype(np.float32)


def _gradients(values: Float32) -> Float32:
    """Return how much of the gradients of images (T, H, W) has each direction, in each part."""
    rows, columns = np.gradient(np.nan_to_num(values), axis=(1, 2))
    strength = np.hypot(rows, columns)
    # Light on dark and dark on light are one direction.
    turn = np.arctan2(rows, columns) % np.pi / np.pi * DIRECTIONS
    direction = np.minimum(turn.astype(np.int64), DIRECTIONS - 1)
    height, width = values.shape[1:]
    row = np.arange(height)[:, None] * PARTS // height
    part = row * PARTS + np.arange(width) * PARTS // width  # (H, W)
    place = np.broadcast_to(part, strength.shape) * DIRECTIONS + direction
    sums = np.bincount(place.ravel(), strength.ravel(), DIRECTIONS * PARTS**2)
    return np.sqrt(sums / strength.size).astype(np.float32)
