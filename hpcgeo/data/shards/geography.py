"""Where a pixel lies and how much ground it covers."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform as reproject

from hpcgeo.data.shards.skipped import UnusableError

Float = npt.NDArray[np.float64]

#: Where GDAL and PROJ look for what they need. A loaded module or another environment names its
#: own, which those of rasterio's wheel, of other versions, cannot read.
FOREIGN = ("PROJ_DATA", "PROJ_LIB", "GDAL_DATA", "GDAL_DRIVER_PATH")
if Path(rasterio.__file__).with_name("proj_data").is_dir():  # a wheel brings its own
    for variable in FOREIGN:
        os.environ.pop(variable, None)

# WGS 84
_EQUATOR_M = 6378137.0
_ECCENTRICITY2 = 0.00669437999014


def place(
    crs: str, transform: Sequence[float], row: Float, column: Float
) -> tuple[Float, Float, Float]:
    """Return longitude and latitude in degrees (WGS 84) and ground sampling distance in metres.

    The distance is the side of a square with the ground area of the pixel, measured on the
    ellipsoid, so it means the same in degrees, in feet and in a stretched projection.

    Args:
        crs: coordinate reference system as WKT.
        transform: from (column, row) to its coordinates, the six numbers of an affine map.
        row: pixel coordinates, (n,); the centre of the first pixel is 0.5.
        column: likewise.

    Returns:
        lon, lat, gsd_m, each (n,); NaN where the projection has no inverse.

    Raises:
        UnusableError: a CRS without longitude and latitude.
    """
    columns = np.concatenate([column, column + 0.5, column - 0.5, column, column])
    rows = np.concatenate([row, row, row, row + 0.5, row - 0.5])
    a, b, c, d, e, f = transform
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    try:
        angles = reproject(CRS.from_wkt(crs), CRS.from_epsg(4326), x, y)
    except Exception:  # rasterio lets errors of GDAL through that have no public class
        raise UnusableError(_foreign() or "its CRS has no way to longitude and latitude") from None
    lon, lat = np.asarray(angles).reshape(2, 5, -1)  # (5, n): centre, right, left, below, above
    lon = np.where(lon > 180, lon - 360, lon)  # some count from 0 to 360
    lon[~np.isfinite(lon)] = lat[~np.isfinite(lat)] = np.nan
    centre = np.radians(lat[0])
    curve = 1 - _ECCENTRICITY2 * np.sin(centre) ** 2
    east_m = np.radians(1) * _EQUATOR_M / np.sqrt(curve) * np.cos(centre)  # of a degree
    north_m = np.radians(1) * _EQUATOR_M * (1 - _ECCENTRICITY2) / curve**1.5
    across = (lon[1] - lon[2] + 180) % 360 - 180, lat[1] - lat[2]
    down = (lon[3] - lon[4] + 180) % 360 - 180, lat[3] - lat[4]
    area_m2 = np.abs(across[0] * down[1] - across[1] * down[0]) * east_m * north_m
    return lon[0], lat[0], np.sqrt(area_m2)


def _foreign() -> str:
    """Say what is wrong with PROJ itself; nothing where it works."""
    try:
        CRS.from_epsg(4326)
    except CRSError as error:
        said = [f"{name}={os.environ[name]}" for name in FOREIGN if name in os.environ]
        way_out = f"unset {' '.join(said)}" if said else "install rasterio again"
        return f"PROJ does not work ({error}): {way_out}"
    return ""
