"""What a map of a whole scene shows: how averaged answers become the pixels of a raster.

Letters: K outputs of a task, L bands of the map, h x w pixels.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from hpcgeo.kinds.target import Array, Target
from hpcgeo.pictures import pages

Bool = npt.NDArray[np.bool_]


class MapForm(ABC):
    """One thing that a map can show; it has no state of its own.

    Attributes:
        dtypes: of its pixels, the usual first.
        overviews: how smaller versions are made.
    """

    dtypes: ClassVar[tuple[str, ...]]
    overviews: ClassVar[Literal["NEAREST", "AVERAGE"]] = "AVERAGE"

    @abstractmethod
    def bands(self, target: Target) -> tuple[str, ...]:
        """Return the names of its bands, (L,)."""

    @abstractmethod
    def encode(self, mean: Array, there: Bool, dtype: str) -> Array:
        """Return its pixels, (L, h, w).

        Args:
            mean: averaged answers (K, h, w), float32.
            there: (h, w) pixels that have any; the others become nodata.
            dtype: one of `dtypes`.
        """

    @abstractmethod
    def picture(self, pixels: Array, target: Target, dtype: str) -> tuple[pages.Rgb, pages.Legend]:
        """Return pixels (L, h, w) in colours (3, h, w), and what they mean; nodata is grey."""

    def holds(self, num_outputs: int, dtype: str) -> bool:
        """Say whether pixels of a data type can show so many outputs."""
        return True

    def nodata(self, dtype: str) -> float:
        """Return what stands where there is nothing: the largest integer, or NaN."""
        return float("nan") if np.dtype(dtype).kind == "f" else float(np.iinfo(dtype).max)

    def scale(self, dtype: str) -> float:
        """Return what a pixel is multiplied with to be a value."""
        return 1.0

    def colours(self, target: Target) -> dict[int, pages.Colour]:
        """Return the colours of pixels, where each has one."""
        return {}

    def tags(self, target: Target) -> dict[str, str]:
        """Return what the file says of its values."""
        return {}


class ClassMap(MapForm):
    """The most probable class."""

    dtypes = ("uint8", "uint16")
    overviews = "NEAREST"

    def holds(self, num_outputs: int, dtype: str) -> bool:
        return num_outputs <= self.nodata(dtype)

    def bands(self, target: Target) -> tuple[str, ...]:
        return ("class",)

    def encode(self, mean: Array, there: Bool, dtype: str) -> Array:
        classes = np.where(there, mean.argmax(axis=0), self.nodata(dtype))
        return classes[None].astype(dtype)

    def picture(self, pixels: Array, target: Target, dtype: str) -> tuple[pages.Rgb, pages.Legend]:
        count = len(target.names)
        classes = np.where(pixels == self.nodata(dtype), -1, pixels.astype(np.int64))
        legend = {name: pages.colour(number, count) for number, name in enumerate(target.names)}
        return pages.coloured(classes, count)[0], legend

    def colours(self, target: Target) -> dict[int, pages.Colour]:
        count = len(target.names)
        return {number: pages.colour(number, count) for number in range(count)}

    def tags(self, target: Target) -> dict[str, str]:
        return {f"CLASS_{number}": name for number, name in enumerate(target.names)}


class ProbabilityMap(MapForm):
    """The probability of each class, a band each."""

    dtypes = ("uint8", "uint16", "float32")
    #: Steps of a probability of 1, so that the scale is a short number.
    STEPS: ClassVar[dict[str, int]] = {"uint8": 250, "uint16": 10_000, "float32": 1}

    def bands(self, target: Target) -> tuple[str, ...]:
        return target.names

    def scale(self, dtype: str) -> float:
        return 1 / self.STEPS[dtype]

    def encode(self, mean: Array, there: Bool, dtype: str) -> Array:
        values = mean if np.dtype(dtype).kind == "f" else np.rint(mean * self.STEPS[dtype])
        return np.where(there, values, self.nodata(dtype)).astype(dtype)

    def picture(self, pixels: Array, target: Target, dtype: str) -> tuple[pages.Rgb, pages.Legend]:
        there = _there(pixels[0], self.nodata(dtype))
        values = pixels.astype(np.float32) * self.scale(dtype)
        count = len(target.names)
        if count == 2:  # of two the second is what is looked for
            return _graded(np.where(there, values[1], np.nan), 0.0, 1.0, target.names[1])
        table = np.array([pages.colour(number, count) for number in range(count)], np.float32)
        mixed = np.einsum("khw,kc->chw", values, table)
        legend = {name: pages.colour(number, count) for number, name in enumerate(target.names)}
        return np.where(there, mixed, pages.HOLE).astype(np.float32), legend


class NumberMap(MapForm):
    """The numbers themselves, in their own unit, a band each."""

    dtypes = ("float32",)

    def bands(self, target: Target) -> tuple[str, ...]:
        return target.names

    def encode(self, mean: Array, there: Bool, dtype: str) -> Array:
        return np.where(there, mean, np.nan).astype(dtype)

    def picture(self, pixels: Array, target: Target, dtype: str) -> tuple[pages.Rgb, pages.Legend]:
        first = pixels[0]
        known = first[np.isfinite(first)]
        low, high = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
        return _graded(first, float(low), float(high), target.names[0])


FORMS: dict[str, MapForm] = {
    "class": ClassMap(),
    "probabilities": ProbabilityMap(),
    "numbers": NumberMap(),
}


def _there(band: Array, nodata: float) -> Bool:
    return np.isfinite(band) if np.isnan(nodata) else band != nodata


def _graded(values: Array, low: float, high: float, name: str) -> tuple[pages.Rgb, pages.Legend]:
    """Return values (h, w) from dark to light, and three of them as a legend; NaN is grey."""
    return pages.shaded(values, low, high), pages.grades(low, high, name)
