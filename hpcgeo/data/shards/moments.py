"""Mean and standard deviation of bands, merged from parts in float64."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BandMoments:
    """Count, mean and sum of squared deviations per band, each (C,)."""

    count: Float
    mean: Float
    squares: Float

    @classmethod
    def none(cls, num_bands: int) -> "BandMoments":
        """Return the moments of no pixel."""
        return cls(np.zeros(num_bands), np.zeros(num_bands), np.zeros(num_bands))

    @classmethod
    def of(cls, pixels: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_]) -> "BandMoments":
        """Return the moments of the valid pixels of a chip (C, h, w)."""
        values = pixels.reshape(len(pixels), -1).astype(np.float64)  # (C, N)
        missing = None if mask.all() else ~mask.reshape(values.shape)
        if missing is not None:
            values[missing] = 0
        count = mask.sum(axis=(1, 2), dtype=np.float64)
        mean = values.sum(axis=1) / np.maximum(count, 1)
        values -= mean[:, None]
        if missing is not None:
            values[missing] = 0
        return cls(count, mean, np.einsum("cn,cn->c", values, values))

    def __add__(self, other: "BandMoments") -> "BandMoments":
        """Merge two parts (Chan, Golub and LeVeque 1979, equation 2.1)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * self.count * share
        return BandMoments(count, self.mean + step * share, squares)

    @property
    def std(self) -> Float:
        """Standard deviation per band (of the population)."""
        deviation: Float = np.sqrt(self.squares / np.maximum(self.count, 1))
        return deviation
