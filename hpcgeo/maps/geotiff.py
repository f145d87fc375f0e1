"""A map as a cloud-optimised GeoTIFF on the grid of its scene: strips in, one file out."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.shutil import copy
from rasterio.windows import Window

from hpcgeo.errors import InputError
from hpcgeo.files import aside
from hpcgeo.kinds.target import Array
from hpcgeo.maps.reading import SceneGrid

#: Pixels on a side of the blocks of a file.
BLOCK = 512
#: Bytes that GDAL keeps of files it reads and writes; its own choice is a part of all memory.
CACHE_BYTES = 128 << 20
#: GDAL writes nothing beside a file, and reads nothing that lies beside one.
GDAL = {
    "GDAL_CACHEMAX": CACHE_BYTES,
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_TIFF_INTERNAL_MASK": "YES",
}


@dataclass(frozen=True)
class RasterForm:
    """What a file says of its pixels.

    Attributes:
        dtype: of the pixels.
        nodata: what stands where there is nothing.
        bands: their names.
        scale: what a pixel is multiplied with to be a value.
        overviews: how smaller versions are made: NEAREST or AVERAGE.
        colours: of pixel values, red, green and blue in [0, 1].
        tags: further words.
        units: of the values; "": none.
    """

    dtype: str
    nodata: float
    bands: tuple[str, ...]
    scale: float = 1.0
    overviews: str = "AVERAGE"
    colours: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    units: str = ""


def write_map(
    path: Path, grid: SceneGrid, form: RasterForm, strips: Iterable[tuple[int, Array]]
) -> None:
    """Write a raster, whole or not at all.

    Args:
        path: of the file.
        grid: of the scene.
        form: what it says of its pixels.
        strips: first row and pixels (L, h, W) of parts of the scene.

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name(path.name + ".plain")
    try:
        with limited(), aside(path) as partial:
            _plain(plain, grid, form, strips)
            copy(
                os.fspath(plain),
                os.fspath(partial),
                driver="COG",
                BLOCKSIZE=BLOCK,
                COMPRESS="DEFLATE",
                PREDICTOR="YES" if not form.colours else "NO",
                OVERVIEW_RESAMPLING=form.overviews,
                BIGTIFF="IF_SAFER",
            )
    except Exception as error:
        if not _of_gdal(error):
            raise
        raise InputError(f"{path}: cannot be written: {error.__cause__ or error}") from None
    finally:
        plain.unlink(missing_ok=True)
        for left in path.parent.glob(f"{path.name}.partial*"):
            left.unlink()


def _of_gdal(error: Exception) -> bool:
    """Say whether GDAL raised an error; rasterio lets some through that have no public class."""
    return isinstance(error, RasterioError | OSError) or type(error).__module__ == "rasterio._err"


@contextmanager
def limited() -> Iterator[None]:
    """Hold GDAL to little memory, and to the files that are named."""
    with catch_warnings(), rasterio.Env(**GDAL):
        simplefilter("ignore", NotGeoreferencedWarning)  # a map of a photograph lies nowhere
        yield


def _plain(
    path: Path, grid: SceneGrid, form: RasterForm, strips: Iterable[tuple[int, Array]]
) -> None:
    """Write the pixels without overviews and compression, as they come."""
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(form.bands),
        "dtype": form.dtype,
        "nodata": form.nodata,
        "crs": grid.crs,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "interleave": "band",
        "BIGTIFF": "IF_SAFER",
    }
    if grid.crs is not None or not grid.points[0]:
        profile["transform"] = grid.transform
    with rasterio.open(path, "w", **profile) as file:
        if grid.crs is None and grid.points[0]:
            file.gcps = grid.points
        file.update_tags(**form.tags)
        file.descriptions = form.bands
        if form.scale != 1:
            file.scales = (form.scale,) * len(form.bands)
        if form.units:
            file.units = (form.units,) * len(form.bands)
        if form.colours:
            table = np.rint(np.array(list(form.colours.values())) * 255).astype(int).tolist()
            rows = zip(form.colours, table, strict=True)
            file.write_colormap(1, {value: (*colour, 255) for value, colour in rows})
        elif len(form.bands) > 1:
            file.colorinterp = [ColorInterp.gray] + [ColorInterp.undefined] * (len(form.bands) - 1)
        for top, pixels in strips:
            file.write(pixels, window=Window(0, top, grid.width, pixels.shape[1]))
