"""Pixels of rasters over a box of ground, each at the grid that is asked for."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window

from hpcgeo.data.readers.collection import reading
from hpcgeo.data.sample import Float32
from hpcgeo.data.shards.geography import place
from hpcgeo.data.shards.skipped import UnusableError
from hpcgeo.data.shards.sources import opened
from hpcgeo.errors import InputError

#: West, south, east, north in the unit of the CRS.
Box = tuple[float, float, float, float]
#: Rows and columns.
Shape = tuple[int, int]

#: Pixels that a grid may be off and still count as the same.
SAME = 0.01


@dataclass(frozen=True)
class Header:
    """What a raster says of itself: CRS as WKT, descriptions of its bands ("" where none)."""

    path: Path
    crs: str
    transform: Affine
    height: int
    width: int
    bands: tuple[str, ...]


def header(path: Path) -> Header:
    """Return the header of a raster.

    Raises:
        InputError: it cannot be read, or lies nowhere, or not with north up.
    """
    with reading(path), opened(path) as raster:
        names = tuple(name or "" for name in raster.descriptions)
        crs, affine, (height, width) = raster.crs, raster.transform, raster.shape
    if crs is None:
        raise InputError(f"{path}: no CRS: say where it lies (gdal_edit.py -a_srs EPSG:...)")
    if affine.b or affine.d or affine.a <= 0 or affine.e >= 0:
        raise InputError(f"{path}: north is not up: warp it first (gdalwarp)")
    return Header(path, crs.to_wkt(), affine, height, width, names)


def read(
    path: Path, numbers: list[int], box: Box, shape: tuple[int, int], how: Resampling
) -> Float32:
    """Return bands over a box, (L, *shape), NaN where missing or outside.

    Args:
        path: of the raster.
        numbers: of the bands, from 1.
        box: in the CRS of the raster.
        shape: rows and columns to return.
        how: pixels are brought to that grid, where theirs is another.
    """
    values: Float32 = np.full((len(numbers), *shape), np.nan, dtype=np.float32)
    with reading(path), opened(path) as raster:
        affine = raster.transform  # north is up
        left, right = ((x - affine.c) / affine.a for x in (box[0], box[2]))
        top, bottom = ((y - affine.f) / affine.e for y in (box[3], box[1]))
        step = max((bottom - top) / shape[0], (right - left) / shape[1])
        margin = math.ceil(step) + 1  # what interpolation looks at beyond the box
        first = [max(0, math.floor(edge) - margin) for edge in (top, left)]
        last = [
            min(side, math.ceil(edge) + margin)
            for side, edge in zip(raster.shape, (bottom, right), strict=True)
        ]
        if first[0] >= last[0] or first[1] >= last[1]:
            return values
        window = Window.from_slices((first[0], last[0]), (first[1], last[1]))
        found = valid(raster, numbers, window)
        corner = round(top) - first[0], round(left) - first[1]
        edges = ((top, bottom, shape[0]), (left, right, shape[1]))
        if all(_same(*edge) for edge in edges):
            _paste(values, found, corner)
            return values
        west, north = affine.c + first[1] * affine.a, affine.f + first[0] * affine.e
        here = Affine(affine.a, 0, west, 0, affine.e, north)
        for source, target in zip(found, values, strict=True):
            reproject(
                source,
                target,
                src_transform=here,
                dst_transform=grid(box, shape),
                src_crs=raster.crs,
                dst_crs=raster.crs,
                src_nodata=np.nan,
                dst_nodata=np.nan,
                resampling=how,
            )
    return values


def whole(path: Path, num_bands: int) -> tuple[Float32, tuple[float, float], float]:
    """Return the pixels of a raster (L, H, W), NaN where missing, its place and metres of a pixel.

    Raises:
        InputError: it cannot be read, or has another number of bands.
    """
    try:
        with reading(path), opened(path) as raster:
            if raster.count != num_bands:
                raise InputError(f"{path}: {raster.count} bands, {num_bands} expected")
            pixels = raster.read(masked=True).astype(np.float32).filled(np.nan)
            where, gsd_m = (math.nan, math.nan), math.nan
            if raster.crs is not None:
                centre = np.array([raster.height / 2]), np.array([raster.width / 2])
                lon, lat, gsd = place(raster.crs.to_wkt(), raster.transform[:6], *centre)
                where, gsd_m = (float(lon[0]), float(lat[0])), float(gsd[0])
    except UnusableError as reason:
        raise InputError(f"{path}: cannot be read: {reason}") from None
    return pixels, where, gsd_m


def shape_of(path: Path) -> tuple[int, int]:
    """Return rows and columns of a raster or photograph; its pixels are not read."""
    with reading(path), opened(path) as raster:
        return raster.shape


def window(
    path: Path, numbers: list[int], corner: Shape, side: Shape, *, codes: bool = False
) -> Float32:
    """Return a window of a raster or photograph, (L, *side), NaN where missing or outside.

    Args:
        path: of the file.
        numbers: of the bands, from 1.
        corner: first row and column.
        side: rows and columns.
        codes: values are those of classes: none of them is missing, whatever the file says.

    Raises:
        InputError: it cannot be read, or has fewer bands.
    """
    values: Float32 = np.full((len(numbers), *side), np.nan, dtype=np.float32)
    with reading(path), opened(path) as raster:
        if raster.count < max(numbers):
            raise InputError(f"{path}: {raster.count} bands, {max(numbers)} expected")
        ends = (first + length for first, length in zip(corner, side, strict=True))
        last = [min(size, end) for size, end in zip(raster.shape, ends, strict=True)]
        inside = Window.from_slices((corner[0], last[0]), (corner[1], last[1]))
        found = raster.read(numbers, window=inside) if codes else valid(raster, numbers, inside)
        _paste(values, found, (0, 0))
    return values


def grid(box: Box, shape: tuple[int, int]) -> Affine:
    """Return where rows and columns of pixels over a box lie."""
    rows, columns = shape
    across, down = (box[2] - box[0]) / columns, (box[3] - box[1]) / rows
    return Affine(across, 0, box[0], 0, -down, box[3])


def _same(low: float, high: float, count: int) -> bool:
    """Say whether pixels from `low` to `high` are `count` whole ones."""
    return abs(low - round(low)) < SAME and abs(high - low - count) < SAME


def _paste(values: Float32, found: Float32, corner: tuple[int, int]) -> None:
    """Write the part of `found` that begins at `corner`, which may lie outside, into `values`."""
    here, there = [], []
    for start, size, whole in zip(corner, found.shape[1:], values.shape[1:], strict=True):
        first, last = max(start, 0), min(size, start + whole)
        here.append(slice(first - start, max(first, last) - start))
        there.append(slice(first, max(first, last)))
    values[:, here[0], here[1]] = found[:, there[0], there[1]]


def valid(raster: DatasetReader, numbers: list[int], window: Window) -> Float32:
    """Return what pixels stand for (scale and offset of their band), NaN where missing.

    A band called alpha that is asked for is no mask.
    """
    values: Float32 = raster.read(numbers, window=window).astype(np.float32)
    for values_of, number in zip(values, numbers, strict=True):
        flags = raster.mask_flag_enums[number - 1]
        shadows = MaskFlags.alpha in flags and MaskFlags.nodata not in flags
        if MaskFlags.all_valid in flags or (shadows and _alpha(raster) in numbers):
            continue
        values_of[raster.read_masks(number, window=window) == 0] = np.nan
    scale, offset = (
        np.array([each[number - 1] for number in numbers], dtype=np.float32)[:, None, None]
        for each in (raster.scales, raster.offsets)
    )
    values[~np.isfinite(values)] = np.nan  # the logarithm of nothing is nothing
    return values if (scale == 1).all() and not offset.any() else values * scale + offset


def _alpha(raster: DatasetReader) -> int:
    return 1 + [colour.name for colour in raster.colorinterp].index("alpha")
