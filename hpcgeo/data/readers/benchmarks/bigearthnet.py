"""BigEarthNet v1: a folder a patch, a GeoTIFF a band, labels in JSON; splits in tables.

A row of a table names the Sentinel-2 patch and, behind a comma, that of Sentinel-1.
"""

import json
import re
from collections.abc import Mapping
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hpcgeo.data.readers.benchmarks.facts import Benchmark, first_there
from hpcgeo.data.readers.collection import (
    SPLITS,
    Collection,
    Frame,
    days,
    fit,
    read_from,
    reading,
    refuse_outside,
    scaled_gsd,
)
from hpcgeo.data.readers.windows import whole
from hpcgeo.data.sample import UNKNOWN, Channel, Float32, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

#: Pixels on a side of a patch at 10 m; bands of 20 and 60 m are brought to it.
SIDE = 120
SENSORS = ("sentinel2", "sentinel1")
POLARISATIONS = ("VV", "VH")


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the patches that the lists of splits name.

    The fingerprint is that of the lists: there are some hundred thousand patches.

    Args:
        row: `files` says what the folders of each sensor are called, which are `seen`, and which of
            the 43 classes make each of 19 (`merged`).
        path: the folder of the folders and lists.
        target: "19", the default, or "43" classes.
        frame: of the patches, 120 pixels of 10 m.

    Raises:
        InputError: no such target, a list or a folder that is not there, or a list that names a
            patch that is not there.
    """
    merged = {name: tuple(parts) for name, parts in row.files["merged"].items()}
    single = {name: (name,) for name in row.known}
    classes = find({"19": merged, "43": single}, target or "19", "target")
    lists = [path / row.splits["lists"][split] for split in SPLITS]
    seen = row.files["seen"]
    folders = {name: first_there(path, row.files[name], f"folder of {name}") for name in seen}
    names: list[list[str]] = []
    splits: list[str] = []
    for split, table in zip(SPLITS, lists, strict=True):
        patches = _read(table, seen)
        splits += [split] * len(patches)
        names += patches
    patches_of = [
        {sensor: folders[sensor] / name[SENSORS.index(sensor)] for sensor in seen} for name in names
    ]
    for each in patches_of:
        for folder in each.values():
            if not folder.is_dir():
                raise InputError(f"{folder}: no such patch, and a list of splits names it")
    channels = tuple(channel for sensor in seen for channel in _channels(row, sensor))
    return Collection(
        target=Target(row.kind, tuple(classes)),
        channels=channels,
        splits=np.array(splits),
        groups=np.array([_tile(name[0]) for name in names]),
        labels=np.empty(0),
        **read_from([], lists),
        load=partial(_load, row, patches_of, classes, frame),
    )


def _read(table: Path, seen: list[str]) -> list[list[str]]:
    """Return the names of the patches of each sensor, row by row."""
    with reading(table):
        rows = [line.split(",") for line in table.read_text("utf-8").splitlines() if line.strip()]
    needed = 1 + max(SENSORS.index(sensor) for sensor in seen)
    for number, row in enumerate(rows, 1):
        if len(row) < needed:
            raise InputError(f"{table}: line {number}: the patches of {' and '.join(SENSORS)}")
        for name in row:
            refuse_outside(name, f"{table}: line {number}")
    return rows


def _tile(name: str) -> str:
    """Return what a patch lies in: its scene and its column and row by tens."""
    scene, column, row = name.rsplit("_", 2)
    return f"{scene} {column[:-1] or 0} {row[:-1] or 0}"


def _channels(row: Benchmark, sensor: str) -> tuple[Channel, ...]:
    bands = POLARISATIONS if sensor == "sentinel1" else row.bands
    return tuple(Channel(sensor, band) for band in bands)


def _load(
    row: Benchmark,
    patches: list[dict[str, Path]],
    classes: Mapping[str, tuple[str, ...]],
    frame: Frame,
    index: int,
) -> Sample:
    observations = []
    place = UNKNOWN
    for sensor, folder in patches[index].items():
        channels = _channels(row, sensor)
        bands, place = _bands(folder, channels)
        observations.append(
            Observation(
                channels,
                fit(bands, frame, folder)[None],  # (1, L, H, W)
                np.array([_day(folder)]),
                gsd_m=scaled_gsd(row.gsd_m, SIDE, frame),
                patch=frame.patch,
            )
        )
    folder = next(iter(patches[index].values()))
    table = folder / f"{folder.name}_labels_metadata.json"
    with reading(table):
        labels: Any = json.loads(table.read_text("utf-8"))["labels"]
    for label in labels:
        find(dict.fromkeys(row.known), label, f"class of {table}")
    there = [float(bool(set(parts) & set(labels))) for parts in classes.values()]
    return Sample(tuple(observations), np.array(there, dtype=np.float32), place)


def _bands(folder: Path, channels: tuple[Channel, ...]) -> tuple[Float32, tuple[float, float]]:
    """Return bands at the size of the finest, (L, H, W), and the place."""
    bands, place = [], UNKNOWN
    for channel in channels:
        path = folder / f"{folder.name}_{channel.band}.tif"
        band, place, _ = whole(path, 1)
        bands.append(fit(band, Frame(1, SIDE), path)[0])
    return np.stack(bands), place


def _day(folder: Path) -> tuple[float, float]:
    """Return the day that the name of a patch says."""
    found = re.search(r"_(\d{4})(\d\d)(\d\d)T", folder.name)
    if not found:
        raise InputError(f"{folder}: a name with a date, e.g. S2A_MSIL2A_20170613T101031_61_39")
    with reading(folder):
        start = date(*map(int, found.groups()))
    return days(start, start + timedelta(days=1))
