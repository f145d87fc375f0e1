"""What each sensor saw of a scene: bands and dates of its files, in the terms of a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from hpcgeo.data.readers.raster_sites import Layer, time_of_date
from hpcgeo.data.readers.windows import header
from hpcgeo.data.sample import Channel
from hpcgeo.data.shards.acquisition import NO_TIME, time_of
from hpcgeo.errors import InputError
from hpcgeo.maps.bands import BandNames, numbers, sensor_channels
from hpcgeo.maps.scenes import NamedScene
from hpcgeo.workloads.preparation import PreparedTask

#: Days from 1970 to 2000.
EPOCH_DAYS = 10957
#: A time of which nothing is known.
ANY = (0.0, float("inf"))
ORBITS = {"ascending": 1, "descending": -1, None: 0}

#: Returns an open raster.
Open = Callable[[Path], DatasetReader]


@dataclass(frozen=True)
class SceneWords:
    """What the user says of scenes: their bands, and when each date of them was."""

    bands: BandNames = field(default_factory=BandNames)
    dates: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DatedRaster:
    """A raster of one date.

    Attributes:
        path: of the file.
        numbers: of each band of the layer in it, from 1; None: it has none.
        time: centre and half-width, days since 2000.
        here: whether its pixels are those of the scene.
        clouds: a raster beside it, and which of its values hide the ground.
    """

    path: Path
    numbers: tuple[int | None, ...]
    time: tuple[float, float]
    here: bool
    clouds: tuple[Path, tuple[int, ...]] | None = None


@dataclass(frozen=True)
class RasterLayer:
    """What one sensor saw: bands (L,), dates (T,), pixels of a token, orbit (1, -1 or 0)."""

    channels: tuple[Channel, ...]
    parts: tuple[DatedRaster, ...]
    patch: int
    orbit: int = 0


def layers_of(
    scene: NamedScene, raster: Open, task: PreparedTask, said: SceneWords
) -> tuple[RasterLayer, ...]:
    """Return the layers of a scene; the grid of the first file is that of the scene.

    Raises:
        InputError: bands are missing, or files do not lie over each other.
    """
    if scene.site is None:
        return (_of_files(scene.files, raster, task, said),)
    if said != SceneWords():
        raise InputError("--sensor, --bands and --dates: a samples.yaml says them itself")
    found = [layer for each in scene.site.layers if (layer := _of_site(each, raster, task))]
    if not found:
        wanted = ", ".join(sorted({channel.sensor for channel in task.channels}))
        raise InputError(f"{scene.name}: no band of {wanted}, which the task was trained on")
    return tuple(found)


def _of_files(
    files: Sequence[Path], raster: Open, task: PreparedTask, said: SceneWords
) -> RasterLayer:
    channels = sensor_channels(task.channels, said.bands)
    if said.dates is not None and len(said.dates) != len(files):
        raise InputError(
            f"--dates {','.join(said.dates)}: {len(said.dates)} dates, and {files[0]} is a scene "
            f"of {len(files)}: give one for each"
        )
    texts = said.dates or (None,) * len(files)
    parts = []
    for path, text in zip(files, texts, strict=True):
        time = _time(raster(path), path, text) if task.timed else ANY
        found = numbers(raster(path), channels, said.bands)
        parts.append(DatedRaster(path, found, time, _here(files[0], path, raster)))
    return RasterLayer(channels, tuple(parts), task.patch)


def _of_site(layer: Layer, raster: Open, task: PreparedTask) -> RasterLayer | None:
    """Return a layer of a samples.yaml in the bands that the task knows; None: in none."""
    channels = tuple(channel for channel in layer.channels if channel in task.channels)
    if not channels:
        return None
    first, parts = layer.dates[0].header.path, []
    for dated in layer.dates:
        found = tuple(dated.numbers.get(channel.band) for channel in channels)
        clouds = None
        if dated.clouds and layer.entry.clouds:
            clouds = dated.clouds.path, tuple(layer.entry.clouds.values)
        time = dated.time if task.timed else ANY
        here = _here(first, dated.header.path, raster)
        parts.append(DatedRaster(dated.header.path, found, time, here, clouds))
    orbit = ORBITS[layer.entry.orbit]
    return RasterLayer(channels, tuple(parts), layer.entry.patch or task.patch, orbit)


def _time(raster: DatasetReader, path: Path, text: str | None) -> tuple[float, float]:
    """Return when a file was taken: as the user says, as it says itself, or unknown."""
    if text is not None:
        return time_of_date(text, None, path)
    seconds = time_of(raster.tags(ns="IMAGERY") | raster.tags(), path)
    return ANY if seconds == NO_TIME else (seconds / 86400 - EPOCH_DAYS, 0.0)


def _here(first: Path, path: Path, raster: Open) -> bool:
    """Say whether the pixels of a file are those of the first.

    Raises:
        InputError: they are not, and nothing says how they lie to each other.
    """
    ours, theirs = raster(first), raster(path)
    alike = ours.shape == theirs.shape and ours.crs == theirs.crs
    if alike and np.allclose(ours.transform, theirs.transform, rtol=0, atol=1e-9):
        return True
    here, there = header(first), header(path)  # each lies somewhere, with north up
    if CRS.from_wkt(here.crs) != CRS.from_wkt(there.crs):
        raise InputError(
            f"{path} has another CRS than {first}: bring them to one (gdalwarp -t_srs)"
        )
    return False
