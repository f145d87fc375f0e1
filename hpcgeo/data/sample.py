"""A sample of any sensors: what was observed, where and when, and what it is labelled with.

Letters: T dates, L bands, H x W pixels, V values of a vector. Whatever is not known has a wide
spread, not a made-up value: an unknown time is one with an infinite half-width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

#: A place or an elevation that is not known.
UNKNOWN = (float("nan"), float("nan"))

#: The sensor of bands of which nothing but their names is known.
UNKNOWN_SENSOR = "unknown"


class Channel(NamedTuple):
    """A band of a sensor, or with `length` > 0 a vector of so many values in its place."""

    sensor: str
    band: str
    length: int = 0


@dataclass(frozen=True)
class Observation:
    """What one sensor saw of a sample.

    Attributes:
        channels: (L,) which bands, in the order of the values; all images, or all vectors of one
            length.
        values: (T, L, H, W) of images, (T, L, V) of vectors; about zero mean and unit deviation;
            NaN is missing (nodata, clouds, a band that is not there).
        time: (T, 2) centre and half-width, in days since 2000-01-01 UTC; a composite's half-width
            is half its length; infinite: unknown.
        gsd_m: metres of a pixel; NaN: unknown.
        patch: pixels on a side of a token, a power of two that divides H and W; 1 for vectors.
        orbit: of a SAR image: 1 ascending, -1 descending, 0 unknown or none.
    """

    channels: tuple[Channel, ...]
    values: Float32
    time: Float64
    gsd_m: float = float("nan")
    patch: int = 1
    orbit: int = 0


@dataclass(frozen=True)
class Sample:
    """Several observations of one place, and what is to be predicted.

    Attributes:
        observations: at least one; a dense label lies on the frame of the first one.
        target: the label, as its kind of task has it (`hpcgeo list kinds`).
        place: (2,) longitude and latitude in degrees; NaN: unknown.
        place_spread_m: half-width of what is known of the place, in metres.
        elevation_m: (2,) centre and half-width; NaN: unknown.
        dense: whether the last two axes of the label are those of the frame; a split says it.
    """

    observations: tuple[Observation, ...]
    target: npt.NDArray[np.generic]
    place: tuple[float, float] = UNKNOWN
    place_spread_m: float = 0.0
    elevation_m: tuple[float, float] = UNKNOWN
    dense: bool = False
