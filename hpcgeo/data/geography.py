"""Where a pixel lies and how much ground it covers."""

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform as reproject

Float = npt.NDArray[np.float64]

# WGS 84
_EQUATOR_M = 6378137.0
_ECCENTRICITY2 = 0.00669437999014


def place(crs: str, affine: Affine, row: Float, column: Float) -> tuple[Float, Float, Float]:
    """Return longitude and latitude in degrees (WGS 84) and ground sampling distance in metres.

    The distance is the side of a square with the ground area of the pixel, measured on the
    ellipsoid, so it means the same in degrees, in feet and in a stretched projection.

    Args:
        crs: coordinate reference system as WKT.
        affine: from (column, row) to its coordinates.
        row: pixel coordinates, (n,); the centre of the first pixel is 0.5.
        column: likewise.

    Returns:
        lon, lat, gsd_m, each (n,); not finite where the projection has no inverse.
    """
    columns = np.concatenate([column, column + 0.5, column - 0.5, column, column])
    rows = np.concatenate([row, row, row, row + 0.5, row - 0.5])
    x, y = affine * (columns, rows)
    lon, lat = (
        np.asarray(angle, dtype=np.float64).reshape(5, -1)
        for angle in reproject(CRS.from_wkt(crs), CRS.from_epsg(4326), x, y)
    )  # (5, n): centre, right, left, below, above
    centre = np.radians(lat[0])
    curve = 1 - _ECCENTRICITY2 * np.sin(centre) ** 2
    east_m = np.radians(1) * _EQUATOR_M / np.sqrt(curve) * np.cos(centre)  # of a degree
    north_m = np.radians(1) * _EQUATOR_M * (1 - _ECCENTRICITY2) / curve**1.5
    across = (lon[1] - lon[2] + 180) % 360 - 180, lat[1] - lat[2]
    down = (lon[3] - lon[4] + 180) % 360 - 180, lat[3] - lat[4]
    area_m2 = np.abs(across[0] * down[1] - across[1] * down[0]) * east_m * north_m
    return lon[0], lat[0], np.sqrt(area_m2)
