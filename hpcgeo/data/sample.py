"""A sample of any sensors: what was observed, where and when, and what it is labelled with.

Letters: T dates, L bands, H x W pixels, V values of a vector. Whatever is not known has a wide
spread, not a made-up value: an unknown time is one with an infinite half-width.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

#: What a task predicts: one of several classes, each of several classes or not, numbers, one of
#: several classes for each pixel; `change` is that of two dates of one place. What is unlabelled is
#: for pretraining.
Kind = Literal["classification", "multilabel", "regression", "segmentation", "change", "unlabelled"]

#: Classes of pixels that are not labelled.
IGNORED = -1

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
        observations: at least one; a dense target lies on the frame of the first one.
        target: classification: int64 (); multilabel: float32 (K,) of 0 and 1; regression: float32
            (K,); segmentation and change: int64 (H, W), `IGNORED` where not labelled; unlabelled:
            empty.
        place: (2,) longitude and latitude in degrees; NaN: unknown.
        place_spread_m: half-width of what is known of the place, in metres.
        elevation_m: (2,) centre and half-width; NaN: unknown.
    """

    observations: tuple[Observation, ...]
    target: npt.NDArray[np.generic]
    place: tuple[float, float] = UNKNOWN
    place_spread_m: float = 0.0
    elevation_m: tuple[float, float] = UNKNOWN


@dataclass(frozen=True)
class Target:
    """What is predicted: `names` of the classes or of the numbers, one for each output.

    Numbers are standardised by `mean` and `std` of the training split, (K,): the model predicts the
    standardised ones, metrics see the real ones.
    """

    kind: Kind
    names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
