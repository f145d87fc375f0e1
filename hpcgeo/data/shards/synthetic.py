"""Generated scenes: fields, a river, roads and blocks of buildings, so that there is something to
learn; as samples in memory. `hpcgeo.data.shards.generated_scenes` writes them to files.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from hpcgeo.data.sampling.order import uniform

Float = npt.NDArray[np.float32]

# Reflectance of red, green, blue in 8 bits
_CROPS = ((96, 120, 60), (150, 140, 80), (70, 100, 50), (170, 150, 110), (120, 150, 70))
_WATER = (30, 60, 80)
_ROAD = (130, 125, 120)
_ROOFS = ((180, 90, 70), (200, 200, 195), (110, 110, 115))


def scene(size: int, seed: int, blocks: int | None = None) -> npt.NDArray[np.uint8]:
    """Return a scene (3, size, size): the same for the same arguments.

    Args:
        size: height and width in pixels.
        seed: other seeds, other scenes.
        blocks: of buildings; by default some.
    """
    rng = np.random.default_rng([seed, size])
    down, right = np.mgrid[:size, :size].astype(np.float32)
    land = _fields(down, right, rng)
    for _ in range(3):
        _stripe(land, down, right, rng, width=3.0, bend=0.0, colour=_ROAD)
    _stripe(land, down, right, rng, width=size / 40 + 4, bend=size / 8, colour=_WATER)
    for _ in range(max(1, size // 128) if blocks is None else blocks):
        _buildings(land, rng)
    land += rng.normal(0, 4, land.shape).astype(np.float32)
    return np.clip(land, 1, 255).astype(np.uint8)  # 0 would be nodata


def _fields(down: Float, right: Float, rng: np.random.Generator) -> Float:
    """Rectangular fields at a slant, each with a crop and its own rows."""
    size = len(down)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * right + np.sin(angle) * down
    across = np.cos(angle) * down - np.sin(angle) * right
    pitch = rng.uniform(40, 90)
    column = np.floor(along / pitch).astype(np.int64)
    row = np.floor(across / (pitch * 0.6) + column % 3 / 3).astype(np.int64)
    field = (row * 7919 + column * 104729) % 997
    crop = rng.integers(len(_CROPS), size=997)[field]
    shade = rng.normal(0, 10, 997).astype(np.float32)[field]
    furrows = 6 * np.sin(along * rng.uniform(0.5, 1.2, 997).astype(np.float32)[field])
    colours = np.array(_CROPS, dtype=np.float32)[crop].reshape(size, size, 3)
    return colours.transpose(2, 0, 1) + shade + furrows.astype(np.float32)


def _stripe(
    land: Float,
    down: Float,
    right: Float,
    rng: np.random.Generator,
    width: float,
    bend: float,
    colour: Sequence[float],
) -> None:
    """A road, or with a bend a river, through the scene."""
    size = len(down)
    angle, shift = rng.uniform(0, np.pi), rng.uniform(-size / 3, size / 3)
    middle = size / 2
    along = np.cos(angle) * (right - middle) + np.sin(angle) * (down - middle)
    across = np.cos(angle) * (down - middle) - np.sin(angle) * (right - middle)
    course = shift + bend * np.sin(along * 2 * np.pi / size + rng.uniform(0, 6))
    inside = np.abs(across - course) < width / 2
    land[:, inside] = np.array(colour, dtype=np.float32)[:, None]


def _buildings(land: Float, rng: np.random.Generator) -> None:
    """A block of roofs in rows, each with its shadow."""
    size = land.shape[-1]
    top, left = rng.integers(0, max(1, size - 64), 2)
    for row in range(top, min(top + 64, size - 12), 16):
        for column in range(left, min(left + 64, size - 12), 16):
            height, width = rng.integers(6, 12, 2)
            land[:, row + 2 : row + height + 2, column + 2 : column + width + 2] *= 0.5
            roof = np.array(_ROOFS[rng.integers(len(_ROOFS))], dtype=np.float32)
            land[:, row : row + height, column : column + width] = roof[:, None, None]


class SyntheticDataset:
    """Samples cut from a few generated scenes that are kept in memory; see `loader.Dataset`."""

    kind: Literal["synthetic"] = "synthetic"
    nodata = np.array([np.nan])
    sensor = None
    classes: tuple[str, ...] = ()
    dtype = np.dtype(np.uint8)

    def __init__(self, shape: tuple[int, int, int], num_samples: int = 65536) -> None:
        """Offer samples of `shape` (C, H, W); bands beyond the third are blends of the first."""
        self.shape = shape
        self.bands = tuple(["red", "green", "blue", *map(str, range(3, shape[0]))][: shape[0]])
        self._num_samples = num_samples

    def __len__(self) -> int:
        return self._num_samples

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean per band, (1, C)."""
        return self._pool.mean(axis=(0, 2, 3), dtype=np.float64)[None]

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Standard deviation per band, (1, C)."""
        return self._pool.std(axis=(0, 2, 3), dtype=np.float64)[None]

    @cached_property
    def fingerprint(self) -> str:
        """Checksum of what the samples are cut from."""
        return hashlib.sha256(self._pool.tobytes() + str(len(self)).encode()).hexdigest()

    def read(
        self, indices: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.int64]]:
        """Return pixels (B, C, H, W) and their valid height and width (B, 2)."""
        _, height, width = self.shape
        scenes, _, size, _ = self._pool.shape
        draw = uniform(0, indices, "place", 3)  # (B, 3)
        span = np.array([scenes, size - height + 1, size - width + 1])
        pixels = np.empty((len(indices), *self.shape), dtype=self.dtype)
        for out, (number, row, column) in zip(pixels, (draw * span).astype(np.int64), strict=True):
            out[:] = self._pool[number, :, row : row + height, column : column + width]
        return pixels, np.tile([height, width], (len(indices), 1))

    def layout_of(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the row of the moments that holds for each sample, (B,)."""
        return np.zeros(len(indices), dtype=np.int64)

    @cached_property
    def _pool(self) -> npt.NDArray[np.uint8]:
        bands, height, width = self.shape
        size = max(512, height + 64, width + 64)
        rgb = np.stack([scene(size, seed) for seed in range(4)]).astype(np.float32)
        weights = np.random.default_rng(0).dirichlet([1, 1, 1], bands).astype(np.float32)
        weights[:3] = np.eye(3, dtype=np.float32)[:bands]
        return np.einsum("cb,sbhw->schw", weights, rgb).astype(np.uint8)

    def __getstate__(self) -> dict[str, object]:
        """Workers make the scenes themselves: faster than sending them."""
        return {key: value for key, value in vars(self).items() if key != "_pool"}
