"""A scene beside its map, small enough to look at, as PNG."""

from pathlib import Path

import numpy as np
import rasterio

from hpcgeo.data.sample import Float32
from hpcgeo.data.shards.sources import opened
from hpcgeo.kinds.maps import MapForm
from hpcgeo.kinds.target import Target
from hpcgeo.maps.reading import SceneReader
from hpcgeo.pictures import pages
from hpcgeo.sensors import sensors

#: Pixels on the longer side.
SIDE = 800


def draw(path: Path, reader: SceneReader, made: Path, form: MapForm, target: Target) -> None:
    """Write a picture of a scene and its map.

    Args:
        path: of the PNG, written aside and renamed.
        reader: the open scene.
        made: its map.
        form: what the map shows.
        target: of the task.
    """
    grid = reader.grid
    part = max(1.0, max(grid.height, grid.width) / SIDE)
    shape = max(1, round(grid.height / part)), max(1, round(grid.width / part))
    with rasterio.open(made) as file:
        pixels = file.read(out_shape=(file.count, *shape))
        mapped, legend = form.picture(pixels, target, str(file.dtypes[0]))
    columns = {}
    layer = reader.layers[0]
    bands = [channel.band for channel in layer.channels]
    sensor = layer.channels[0].sensor
    shown = pages.visible(bands, sensor if sensor in sensors() else None)
    ends = {"before": 0, "after": -1} if len(layer.parts) > 1 else {"scene": 0}
    for title, date in ends.items():
        values = small(layer.parts[date].path, layer.parts[date].numbers, shown, shape)[None]
        there = values[np.isfinite(values).all(axis=1, keepdims=True).repeat(3, axis=1)]
        reference = there.reshape(1, 1, 1, -1) if there.size else np.zeros((1, 1, 1, 1), np.float32)
        columns[title] = pages.stretched(values, reference)
    pages.page(path, columns | {"map": mapped[None]}, legend)


def small(
    path: Path, numbers: tuple[int | None, ...], shown: list[int], shape: tuple[int, int]
) -> Float32:
    """Return bands of a file, small, (L, *shape); NaN where missing."""
    found = [numbers[band] for band in shown]
    values: Float32 = np.full((len(shown), *shape), np.nan, np.float32)
    with opened(path) as raster:
        for row, number in enumerate(found):
            if number is not None:
                band = raster.read(number, out_shape=shape, masked=True)
                values[row] = band.astype(np.float32).filled(np.nan)
    return values
