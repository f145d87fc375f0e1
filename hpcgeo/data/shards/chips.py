"""Chips: a raster is covered by windows, and every window that is not mostly empty becomes one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rasterio.io import DatasetReader
from rasterio.windows import Window

from hpcgeo.data.shards.acquisition import FORMATS
from hpcgeo.data.shards.geography import place
from hpcgeo.data.shards.settings import Settings
from hpcgeo.data.shards.skipped import UnusableError
from hpcgeo.data.shards.sources import SourceFile, masked, opened

Pixels = npt.NDArray[np.generic]
Mask = npt.NDArray[np.bool_]

# EXIF orientation: is the stored image transposed, then are rows, then columns reversed
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Spot:
    """Where a chip lies: offset and size (rows, columns) in the source, centre on the ground."""

    offset: tuple[int, int]
    valid: tuple[int, int]
    lon: float
    lat: float
    gsd_m: float


@dataclass(frozen=True)
class Chip:
    """One sample: pixels and their mask, both (C, h, w) without padding."""

    pixels: Pixels
    mask: Mask
    spot: Spot


def num_windows(source: SourceFile, settings: Settings) -> int:
    """Return how many windows cover a source."""
    rows, columns = _grid(source, settings)
    return rows * columns


def cut(
    folder: Path, source: SourceFile, first: int, last: int, settings: Settings
) -> Iterator[Chip | None]:
    """Yield the chips of windows [first, last) of a source, None for one that is mostly empty.

    Windows are counted along rows. A chip at the border is smaller than `settings.chip`; the part
    that is missing counts as empty.

    Raises:
        UnusableError: the pixels cannot be read.
    """
    _, columns = _grid(source, settings)
    window = np.arange(first, last)
    row, column = window // columns * settings.stride, window % columns * settings.stride
    height = np.minimum(settings.chip, source.height - row)
    width = np.minimum(settings.chip, source.width - column)
    lon, lat = np.full(len(window), source.lon), np.full(len(window), source.lat)
    gsd_m = np.full(len(window), np.nan)
    if source.crs and source.transform:
        centre = row + height / 2, column + width / 2
        lon, lat, gsd_m = place(source.crs, source.transform, *centre)
    with opened(folder / source.path) as raster:
        read = _Reader(folder / source.path, source, raster, settings)
        for offset, size, *where in zip(
            zip(row.tolist(), column.tolist(), strict=True),
            zip(height.tolist(), width.tolist(), strict=True),
            lon.tolist(),
            lat.tolist(),
            gsd_m.tolist(),
            strict=True,
        ):
            pixels, mask = read(*offset, *size)
            valid = np.count_nonzero(mask.any(axis=0)) / settings.chip**2
            empty = valid == 0 or valid < settings.min_valid
            yield None if empty else Chip(pixels, mask, Spot(offset, size, *where))


def _grid(source: SourceFile, settings: Settings) -> tuple[int, int]:
    """Return the rows and columns of windows: every pixel is covered, no window is needless."""
    over = [max(0, size - settings.chip) for size in (source.height, source.width)]
    rows, columns = (-(-pixels // settings.stride) + 1 for pixels in over)
    return rows, columns


class _Reader:
    """Reads windows of the upright image; missing pixels are nodata (NaN in floats) and masked."""

    def __init__(
        self, path: Path, source: SourceFile, raster: DatasetReader, settings: Settings
    ) -> None:
        self._source, self._raster = source, raster
        self._masked = masked(raster, source.numbers)
        self._nodata = None if raster.nodata is not None else settings.nodata
        self._whole = None
        if raster.driver == "JPEG":  # Pillow's pixels are those every other loader of images sees
            self._whole = _decode(path, len(source.numbers))
        if source.palette:
            self._colours = np.zeros((256, 4), dtype=np.uint8)
            for index, colour in raster.colormap(1).items():
                self._colours[index] = colour

    def __call__(self, row: int, column: int, height: int, width: int) -> tuple[Pixels, Mask]:
        source = self._source
        transposed, rows_reversed, columns_reversed = _UPRIGHT[source.orientation]
        if rows_reversed:
            row = source.height - row - height
        if columns_reversed:
            column = source.width - column - width
        if transposed:
            row, column, height, width = column, row, width, height
        pixels, mask = self._stored(Window(column, row, width, height))
        if transposed:
            pixels, mask = pixels.swapaxes(1, 2), mask.swapaxes(1, 2)
        turn = np.s_[:, :: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]
        return pixels[turn], mask[turn]

    def _stored(self, window: Window) -> tuple[Pixels, Mask]:
        source, raster = self._source, self._raster
        if self._whole is not None:
            rows, columns = window.toslices()
            return self._fill(self._whole[:, rows, columns])
        pixels = raster.read(source.numbers, window=window)
        if source.palette:
            colours = self._colours[pixels[0]].transpose(2, 0, 1)  # (4, h, w)
            return self._fill(colours[:3].copy(), np.repeat(colours[3:] > 0, 3, axis=0))
        if self._masked:
            return self._fill(pixels, raster.read_masks(source.numbers, window=window) > 0)
        return self._fill(pixels)

    def _fill(self, pixels: Pixels, mask: Mask | None = None) -> tuple[Pixels, Mask]:
        mask = np.ones(pixels.shape, dtype=bool) if mask is None else mask
        if self._nodata is not None:
            mask &= pixels != self._nodata
        if pixels.dtype.kind == "f":
            mask &= np.isfinite(pixels)
        if not mask.all():
            pixels = np.where(mask, pixels, filler(pixels.dtype, self._source.nodata))
        return pixels, mask


def filler(dtype: npt.DTypeLike, nodata: float | None) -> Pixels:
    """Return what stands where there is no pixel, (): NaN in floats, else nodata, else 0."""
    missing = np.nan if np.dtype(dtype).kind == "f" else nodata or 0
    return np.array(missing).astype(dtype)


def _decode(path: Path, num_bands: int) -> Pixels:
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = np.asarray(image)
    except MemoryError:
        raise UnusableError("too large for the memory of this machine") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableError(f"broken: {error}") from None
    pixels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)  # (C, H, W)
    if len(pixels) != num_bands:
        raise UnusableError(
            f"{len(pixels)} bands in the picture, {num_bands} expected: store it in the colours of "
            f"the others (CMYK as RGB)"
        )
    return np.ascontiguousarray(pixels)
