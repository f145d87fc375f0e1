"""Generated scenes as GeoTIFF files; apart, so that a rank that trains loads no GDAL."""

from pathlib import Path

import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from hpcgeo.data.shards.synthetic import scene

#: Blocks of buildings of each class of scenes, on so many pixels squared.
CLASSES = {"country": 0, "town": 1}
BLOCK = 48


def write_scenes(
    folder: Path, num_scenes: int, size: int, seed: int, *, classes: bool = False
) -> list[Path]:
    """Write georeferenced scenes (RGB, uint8, 1 m, UTM 33 north, dated) and return their paths.

    Args:
        folder: of the files.
        num_scenes: how many.
        size: height and width in pixels.
        seed: of the first.
        classes: put them by turns into a folder for each of `CLASSES`.
    """
    paths = []
    for number in range(num_scenes):
        name = [*CLASSES][number % len(CLASSES)] if classes else ""
        blocks = CLASSES[name] * (size // BLOCK) ** 2 if classes else None
        path = folder / name / f"scene_{number:04d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        corner = Affine(1, 0, 500_000 + number * size, 0, -1, 5_000_000)
        profile = {"driver": "GTiff", "width": size, "height": size, "count": 3, "dtype": "uint8"}
        profile |= {"crs": CRS.from_epsg(32633), "transform": corner, "photometric": "RGB"}
        with rasterio.open(path, "w", **profile) as raster:
            raster.write(scene(size, seed + number, blocks))
            for band, name in enumerate(("red", "green", "blue"), 1):
                raster.set_band_description(band, name)
            raster.update_tags(TIFFTAG_DATETIME=f"2024:06:{number % 30 + 1:02d} 10:00:00")
        paths.append(path)
    return paths
