"""Rasters to ingest, made here."""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

#: 10 m pixels in UTM 33 north, near Ljubljana
UTM = CRS.from_epsg(32633)
AFFINE = Affine(10, 0, 465_000, 0, -10, 5_080_000)


def write_tiff(path: Path, pixels: np.ndarray, names=None, tags=None, mask=None, **profile) -> Path:
    """Write (C, H, W) as GeoTIFF; CRS and transform as in the profile, none by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        raster = rasterio.open(path, "w", driver="GTiff", **shape, **profile)
    with raster:
        raster.write(pixels)
        for number, name in enumerate(names or (), 1):
            raster.set_band_description(number, name)
        raster.update_tags(**(tags or {}))
        if mask is not None:
            raster.write_mask(mask)
    return path


def noise(*shape: int, dtype="uint8", low=1, high=200, seed=0) -> np.ndarray:
    """Random pixels that are never 0."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)
