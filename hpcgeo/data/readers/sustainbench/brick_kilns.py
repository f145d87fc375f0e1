"""Is there a brick kiln: Sentinel-2 over Bangladesh, SustainBench's task of climate action.

The layout is the one SustainBench packs: `list_eval_partition.csv` with y, partition 0, 1, 2,
hdf5_file, hdf5_idx and the corners, and `examples_<hdf5_file>.hdf5` with images (N, 13, 64, 64).
"""

from datetime import date
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from hpcgeo.data.readers.collection import (
    SPLITS,
    Collection,
    Frame,
    Int64,
    days,
    fit,
    read_from,
    read_table,
    reading,
    scaled_gsd,
    single_target,
)
from hpcgeo.data.sample import Channel, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.sensors import sensor
from hpcgeo.tables import find

BANDS = tuple(Channel("sentinel2", band.name) for band in sensor("sentinel2").bands)
PIXEL_M = 10.0
#: Of the imagery: October 2018 to May 2019.
TIME = days(date(2018, 10, 1), date(2019, 6, 1))

_CORNERS = ("lon_top_left", "lat_top_left", "lon_bottom_right", "lat_bottom_right")


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the images of a folder.

    Raises:
        InputError: another target than the one there is, or the table cannot be read.
    """
    single_target(target, "kiln")
    table = path / "list_eval_partition.csv"
    rows = read_table(table, ("y", "partition", "hdf5_file", "hdf5_idx", *_CORNERS))
    parts = {str(number): part for number, part in enumerate(SPLITS)}
    with reading(table):
        labels = np.array([int(row["y"]) for row in rows])
        where = np.array([[int(row["hdf5_file"]), int(row["hdf5_idx"])] for row in rows])
        corners = np.array([[float(row[corner]) for corner in _CORNERS] for row in rows])
    if not np.isin(labels, (0, 1)).all():
        raise InputError(f"{table}: y is 0 or 1")
    numbers = sorted(set(where[:, 0].tolist()))
    return Collection(
        target=Target("classification", ("no kiln", "kiln")),
        channels=BANDS,
        splits=np.array([find(parts, row["partition"], f"partition of {table}") for row in rows]),
        groups=np.array([f"{file} {row}" for file, row in where.tolist()]),
        labels=labels,
        **read_from([path / f"examples_{number}.hdf5" for number in numbers], [table]),
        load=partial(_load, path, where, corners, labels, frame),
        places=(corners[:, :2] + corners[:, 2:]) / 2,
    )


def _load(
    folder: Path, where: Int64, corners: Float64, labels: Int64, frame: Frame, index: int
) -> Sample:
    file, row = where[index].tolist()
    path = folder / f"examples_{file}.hdf5"
    with reading(path), h5py.File(path, locking=False) as examples:
        image = np.asarray(examples["images"][row], dtype=np.float32)
    if image.ndim != 3 or len(image) != len(BANDS):
        raise InputError(f"{path}: image {row} is {image.shape}, not ({len(BANDS)}, H, W)")
    seen = Observation(
        BANDS,
        fit(image, frame, path)[None],  # (1, 13, H, W)
        np.array([TIME]),
        gsd_m=scaled_gsd(PIXEL_M, image.shape[1], frame),
        patch=frame.patch,
    )
    west, north, east, south = corners[index].tolist()
    return Sample((seen,), labels[index], place=((west + east) / 2, (south + north) / 2))
