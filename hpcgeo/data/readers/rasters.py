"""Rasters of any sensors that lie over each other, cut into chips; a few lines of YAML say which.

    rasters:
      - {files: "{site}/S2_{date}.tif", sensor: sentinel2}
      - {files: "{site}/S1_{date}.tif", sensor: sentinel1, bands: [VV, VH], orbit: ascending}
      - {files: dem.tif, sensor: dem, bands: [elevation]}
    labels:
      cover: {files: "{site}/labels.tif", classes: {1: water, 2: forest}}
      canopy: {files: "{site}/height.tif", numbers: [height]}

What braces name in a path tells places apart, but for {date}, the day, month or year of a file, and
{split}, its part; `*` is anything. Chips are squares of the finest raster of a place; the others
are cut over the same ground. Without labels the samples are for pretraining.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import Resampling

from hpcgeo.data.readers.collection import (
    SPLITS,
    Collection,
    Frame,
    Int64,
    one_of_splits,
    read_from,
)
from hpcgeo.data.readers.raster_sites import Labels, Layer, Site, parsed, sites
from hpcgeo.data.readers.windows import Box, grid, read
from hpcgeo.data.sample import Channel, Float32, Float64, Observation, Sample
from hpcgeo.data.shards.geography import place
from hpcgeo.data.shards.skipped import UnusableError
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import IGNORED, Target
from hpcgeo.tables import find

NAME = "samples.yaml"
#: Where there are as many places, whole ones are held out; of fewer, single chips.
PLACES = 6
#: Vertical accuracy of an elevation model, in metres: that of Copernicus DEM GLO-30.
ELEVATION_M = 4.0


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the chips of the rasters that a YAML file names.

    Args:
        path: the file, or a folder with a samples.yaml.
        target: a key of `labels`; by default the first.
        frame: patch of the images, and side of a chip in pixels of the finest raster; None: one
            chip of each place.

    Raises:
        InputError: the file is not of that form, names no rasters, or rasters that do not fit.
    """
    path = path / NAME if path.is_dir() else path
    samples = parsed(path)
    labels = None
    if samples.labels or target:
        chosen = target or next(iter(samples.labels))
        labels = find(samples.labels, chosen, f"target of {path}")
    places = sites(path, samples, labels)
    chips = np.array([(n, *at) for n, site in enumerate(places) for at in _grid(site, frame)])
    parts = [dict(site.parts) for site in places]
    splits = one_of_splits([each.get("split", SPLITS[0]) for each in parts], path)
    few = len(places) < PLACES
    groups = [" ".join(map(str, chip if few else chip[:1])) for chip in chips.tolist()]
    kind = "unlabelled"
    if labels:
        _refuse_unnamed(labels, places)
        kind = "segmentation" if labels.classes else "pixel_regression"
    files = sorted({raster.path for site in places for raster in site.rasters})
    return Collection(
        target=Target(kind, labels.names if labels else ()),
        channels=tuple(
            dict.fromkeys(one for site in places for layer in site.layers for one in layer.channels)
        ),
        splits=splits[chips[:, 0]],
        groups=np.array(groups),
        labels=np.empty(0),
        **read_from(files, [path]),
        load=partial(_load, places, chips, labels, frame),
        patches=frozenset(entry.patch for entry in samples.rasters if entry.patch),
    )


def _grid(site: Site, frame: Frame) -> list[tuple[int, int, int, int]]:
    """Return first row and column, height and width of the chips of a place.

    Whole chips alone; a raster smaller than one is a chip with missing pixels around.
    """
    raster = site.finest
    if frame.size is None:
        return [(0, 0, raster.height, raster.width)]
    size = frame.size
    rows, columns = max(1, raster.height // size), max(1, raster.width // size)
    return [
        (row * size, column * size, size, size)
        for row, column in product(range(rows), range(columns))
    ]


def _load(
    places: Sequence[Site], chips: Int64, labels: Labels | None, frame: Frame, index: int
) -> Sample:
    number, row, column, height, width = chips[index].tolist()
    site = places[number]
    transform = site.finest.transform
    west, north = transform.c + column * transform.a, transform.f + row * transform.e
    box = (west, north + height * transform.e, west + width * transform.a, north)
    seen = tuple(_observe(layer, box, frame) for layer in site.layers)
    lon, lat, _ = _place(site.finest.crs, transform, row + height / 2, column + width / 2)
    target: Any = np.empty(0, dtype=np.int64)
    if labels and site.labels:
        shape = seen[0].values.shape[2], seen[0].values.shape[3]
        target = _label(labels, site.labels.path, box, shape)
    return Sample(seen, target, (lon, lat), elevation_m=elevation(seen))


def _refuse_unnamed(labels: Labels, places: Sequence[Site]) -> None:
    """Refuse labels with other bands than are named."""
    for site in places:
        if labels.numbers and site.labels and len(site.labels.bands) != len(labels.numbers):
            raise InputError(
                f"{site.labels.path}: {len(site.labels.bands)} bands, and numbers names "
                f"{len(labels.numbers)}: name all in their order, null for one that is left out"
            )


def _label(labels: Labels, path: Path, box: Box, shape: tuple[int, int]) -> Any:
    """Return classes (H, W), or numbers (K, H, W), of the pixels over a box."""
    if not labels.classes:
        bands = [number for number, name in enumerate(labels.numbers, 1) if name]
        return read(path, bands, box, shape, Resampling.bilinear)
    (codes,) = read(path, [labels.band], box, shape, Resampling.nearest)
    classes = np.full(shape, IGNORED, dtype=np.int64)
    for code, name in labels.classes.items():
        classes[codes == code] = labels.names.index(name)
    return classes


def _observe(layer: Layer, box: Box, frame: Frame) -> Observation:
    """Return what a sensor saw of a box: at its own pixels, as near as whole tokens allow."""
    patch = layer.entry.patch or frame.patch
    raster = layer.dates[0].header
    rows, columns = (
        max(1, round(ground / pixel / patch)) * patch
        for ground, pixel in (
            (box[3] - box[1], -raster.transform.e),
            (box[2] - box[0], raster.transform.a),
        )
    )
    values: Float32 = np.full(
        (len(layer.dates), len(layer.channels), rows, columns), np.nan, dtype=np.float32
    )
    for image, dated in zip(values, layer.dates, strict=True):
        bands = [n for n, one in enumerate(layer.channels) if one.band in dated.numbers]
        numbers = [dated.numbers[layer.channels[n].band] for n in bands]
        shape = rows, columns
        image[bands] = read(dated.header.path, numbers, box, shape, Resampling.bilinear)
        if dated.clouds and layer.entry.clouds:
            (codes,) = read(dated.clouds.path, [1], box, shape, Resampling.nearest)
            image[:, np.isin(codes, layer.entry.clouds.values)] = np.nan
    here = grid(box, (rows, columns))
    *_, gsd_m = _place(raster.crs, here, rows / 2, columns / 2)
    orbit = {"ascending": 1, "descending": -1, None: 0}[layer.entry.orbit]
    time: Float64 = np.array([dated.time for dated in layer.dates])
    return Observation(layer.channels, values, time, gsd_m, patch, orbit)


def _place(crs: Any, transform: Any, row: float, column: float) -> tuple[float, float, float]:
    """Return longitude, latitude and metres of a pixel at a place of a raster."""
    try:
        lon, lat, gsd_m = place(crs, transform[:6], np.array([row]), np.array([column]))
    except UnusableError as reason:
        raise InputError(f"{crs}: {reason}") from None
    return float(lon[0]), float(lat[0]), float(gsd_m[0])


def elevation(seen: Sequence[Observation]) -> tuple[float, float]:
    """Return centre and half-width of the elevations of a sample; NaN where there are none."""
    for one in seen:
        if Channel("dem", "elevation") in one.channels:
            metres = one.values[:, one.channels.index(Channel("dem", "elevation"))]
            if np.isfinite(metres).any():
                low, high = float(np.nanmin(metres)), float(np.nanmax(metres))
                return (low + high) / 2, (high - low) / 2 + ELEVATION_M
    return float("nan"), float("nan")
