"""A scene that is open: its grid, and samples of its tiles, prepared as in training.

Letters: T dates, L bands, h x w pixels of a tile.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window

from hpcgeo.data.readers.collection import reading
from hpcgeo.data.readers.rasters import elevation
from hpcgeo.data.readers.windows import Box, grid, read, valid
from hpcgeo.data.sample import UNKNOWN, Float32, Float64, Observation, Sample
from hpcgeo.data.shards.geography import place
from hpcgeo.data.shards.skipped import UnusableError
from hpcgeo.data.shards.sources import opened
from hpcgeo.errors import InputError
from hpcgeo.maps.layers import DatedRaster, RasterLayer, SceneWords, layers_of
from hpcgeo.maps.scenes import NamedScene
from hpcgeo.workloads.preparation import PreparedTask

Bool = npt.NDArray[np.bool_]
Shape = tuple[int, int]


@dataclass(frozen=True)
class SceneGrid:
    """Where the pixels of a scene lie; a photograph has no CRS, a raw image points instead."""

    height: int
    width: int
    crs: CRS | None
    transform: Affine
    points: tuple[list[GroundControlPoint], CRS | None] = ([], None)

    def in_cells(self, scale: int) -> "SceneGrid":
        """Return the grid of squares of so many pixels; the last may reach beyond the scene."""
        if scale == 1:
            return self
        sides = -(-self.height // scale), -(-self.width // scale)
        points = [
            GroundControlPoint(one.row / scale, one.col / scale, one.x, one.y, one.z)
            for one in self.points[0]
        ]
        a, b, c, d, e, f = self.transform[:6]
        cells = Affine(a * scale, b * scale, c, d * scale, e * scale, f)
        return SceneGrid(*sides, self.crs, cells, (points, self.points[1]))

    def box(self, top: int, left: int, side: Shape) -> Box:
        """Return the ground that pixels cover, where north is up."""
        across, down = self.transform.a, self.transform.e
        west, north = self.transform.c + left * across, self.transform.f + top * down
        return west, north + side[0] * down, west + side[1] * across, north


@dataclass(frozen=True)
class Tile:
    """A tile of a scene: what the model reads, and which of its pixels are there, (h, w).

    At the edge of a scene that is smaller than a tile, `there` is smaller too.
    """

    sample: Sample
    there: Bool


class TilePlace(NamedTuple):
    """Longitude and latitude in degrees and metres of a pixel; NaN where unknown."""

    lon: float
    lat: float
    gsd_m: float


class SceneReader:
    """A scene, open; use it as a context manager."""

    def __init__(
        self, scene: NamedScene, prepared: PreparedTask, said: SceneWords, every_date: bool
    ) -> None:
        """Take what is to be read.

        Args:
            scene: its files.
            prepared: the task that is answered.
            said: what the user says of bands and dates.
            every_date: a pixel counts where the first and the last date have it; else where any
                has.
        """
        self.scene, self._task, self._said, self._every = scene, prepared, said, every_date
        self._moments = {band.channel: (band.mean, band.std) for band in prepared.bands}
        self._files = ExitStack()
        self._open: dict[Path, DatasetReader] = {}

    def __enter__(self) -> "SceneReader":
        """Open the files.

        Raises:
            InputError: one cannot be read, or they do not fit the task, or each other.
        """
        try:
            self.layers = layers_of(self.scene, self._raster, self._task, self._said)
            first = self.layers[0]
            if self._every and len(first.parts) < 2:
                raise InputError(
                    f"{first.parts[0].path}: the task compares two dates of a place: give "
                    f"BEFORE,AFTER"
                )
            raster = self._raster(first.parts[0].path)
            self.grid = SceneGrid(
                raster.height, raster.width, raster.crs, raster.transform, raster.gcps
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._files.close()  # without the error, which is none of the files'

    def _raster(self, path: Path) -> DatasetReader:
        """Return an open file; it stays so until the scene is closed."""
        if path not in self._open:
            with reading(path):
                self._open[path] = self._files.enter_context(opened(path))
        return self._open[path]

    def gsd_m(self) -> float:
        """Return metres of a pixel in the middle of the scene; NaN where that is not known."""
        (spot,) = self.spots(0, [0], (self.grid.height, self.grid.width))
        return spot.gsd_m

    def tiles(self, top: int, lefts: Sequence[int], side: Shape) -> list[Tile]:
        """Return tiles of a row, read together.

        Args:
            top: their first row.
            lefts: the first column of each, rising.
            side: rows and columns of each; of a smaller scene, what is beyond is reflected.

        Raises:
            InputError: a file cannot be read.
        """
        width = lefts[-1] + side[1] - lefts[0]
        blocks = {
            (layer, part): self._block(part, top, lefts[0], (side[0], width))
            for layer in self.layers
            for part in layer.parts
            if self._pasted(layer, part)
        }
        found = []
        for left, spot in zip(lefts, self.spots(top, lefts, side), strict=True):
            first = left - lefts[0]
            cut = {key: block[:, :, first : first + side[1]] for key, block in blocks.items()}
            found.append(self._tile(cut, top, left, side, spot))
        return found

    def _pasted(self, layer: RasterLayer, part: DatedRaster) -> bool:
        """Say whether the pixels of a raster are those of the tile."""
        return layer is self.layers[0] and part.here

    def _block(self, part: DatedRaster, top: int, left: int, side: Shape) -> Float32:
        """Return pixels of a raster on the grid of the scene, (L, *side)."""
        bottom = min(top + side[0], self.grid.height)
        right = min(left + side[1], self.grid.width)
        there = [number for number in part.numbers if number is not None]
        with reading(part.path):
            window = Window.from_slices((top, bottom), (left, right))
            found = valid(self._raster(part.path), there, window)
        values: Float32 = np.full((len(part.numbers), *found.shape[1:]), np.nan, np.float32)
        values[[n for n, number in enumerate(part.numbers) if number is not None]] = found
        beyond = [(0, whole - have) for whole, have in zip(side, found.shape[1:], strict=True)]
        if not any(after for _, after in beyond):
            return values
        return np.pad(values, [(0, 0), *beyond], mode="reflect")

    def spots(self, top: int, lefts: Sequence[int], side: Shape) -> list[TilePlace]:
        """Return where the middles of tiles lie."""
        if self.grid.crs is None:
            return [TilePlace(*(float("nan"),) * 3)] * len(lefts)
        rows = np.full(len(lefts), top + side[0] / 2)
        columns = np.array(lefts) + side[1] / 2
        return _spots(self.grid.crs.to_wkt(), self.grid.transform, rows, columns)

    def _tile(
        self,
        blocks: dict[tuple[RasterLayer, DatedRaster], Float32],
        top: int,
        left: int,
        side: Shape,
        spot: TilePlace,
    ) -> Tile:
        seen = tuple(self._observe(layer, blocks, top, left, side, spot) for layer in self.layers)
        own = seen[0].values[:, :, : self.grid.height - top, : self.grid.width - left]
        dates = np.asarray(np.isfinite(own).any(axis=1))  # (T, h, w)
        there = dates[0] & dates[-1] if self._every else np.asarray(dates.any(axis=0))
        where = (spot.lon, spot.lat) if self._task.placed else UNKNOWN
        standardised = tuple(map(self._standardised, seen))
        target = np.zeros(side, dtype=np.int64)
        sample = Sample(standardised, target, where, 0.0, elevation(seen), dense=True)
        return Tile(sample, there)

    def _observe(
        self,
        layer: RasterLayer,
        blocks: dict[tuple[RasterLayer, DatedRaster], Float32],
        top: int,
        left: int,
        side: Shape,
        spot: TilePlace,
    ) -> Observation:
        """Return what a sensor saw of a tile: at its own pixels, as near as whole tokens allow."""
        shape = side if layer is self.layers[0] else self._shape(layer, top, left, side)
        values: Float32 = np.full(
            (len(layer.parts), len(layer.channels), *shape), np.nan, np.float32
        )
        for image, part in zip(values, layer.parts, strict=True):
            if self._pasted(layer, part):
                image[:] = blocks[layer, part]
            else:
                bands = [n for n, number in enumerate(part.numbers) if number is not None]
                numbers = [number for number in part.numbers if number is not None]
                box = self.grid.box(top, left, side)
                image[bands] = read(part.path, numbers, box, shape, Resampling.bilinear)
            if part.clouds:
                path, hidden = part.clouds
                box = self.grid.box(top, left, side)
                (codes,) = read(path, [1], box, shape, Resampling.nearest)
                image[:, np.isin(codes, hidden)] = np.nan
        if layer is not self.layers[0] and self.grid.crs is not None:
            here = grid(self.grid.box(top, left, side), shape)
            middle = np.array([shape[0] / 2]), np.array([shape[1] / 2])
            (spot,) = _spots(self.grid.crs.to_wkt(), here, *middle)
        gsd_m = spot.gsd_m if self._task.gsd_m else float("nan")
        time: Float64 = np.array([part.time for part in layer.parts])
        return Observation(layer.channels, values, time, gsd_m, layer.patch, layer.orbit)

    def _shape(self, layer: RasterLayer, top: int, left: int, side: Shape) -> Shape:
        """Return rows and columns of a sensor's own pixels over a tile, in whole tokens."""
        west, south, east, north = self.grid.box(top, left, side)
        pixel = self._raster(layer.parts[0].path).transform
        down, across = (north - south) / -pixel.e, (east - west) / pixel.a
        rows, columns = (max(1, round(n / layer.patch)) * layer.patch for n in (down, across))
        return rows, columns

    def _standardised(self, seen: Observation) -> Observation:
        moments = np.array([self._moments[channel] for channel in seen.channels], np.float32)
        mean, std = moments.T.reshape(2, 1, -1, 1, 1)
        return replace(seen, values=((seen.values - mean) / std).astype(np.float32))


def _spots(crs: str, transform: Affine, rows: Float64, columns: Float64) -> list[TilePlace]:
    try:
        found = place(crs, transform[:6], rows, columns)
    except UnusableError as reason:
        raise InputError(f"{crs[:60]}: {reason}") from None
    return [TilePlace(*map(float, each)) for each in zip(*found, strict=True)]
