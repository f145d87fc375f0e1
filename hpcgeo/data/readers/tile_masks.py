"""Tiles of a map in RGB with a mask of buildings each, and `tiles.csv` that says where they lie."""

import math
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    one_of_splits,
    read_from,
    read_masked,
    read_table,
    reading,
    scaled_gsd,
    single_target,
)
from hpcgeo.data.readers.scenes import RGB
from hpcgeo.data.sample import Float64, Observation, Sample
from hpcgeo.kinds.target import Target

_BOX = ("west", "south", "east", "north")
#: Metres of a degree of latitude, and of longitude at the equator.
_DEGREE_M = 111_320.0


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the tiles of a folder.

    `tiles.csv` has image, mask (not 0 is building), west, south, east, north in degrees and split;
    a column `block_z19`, where there is one, names the ground that tiles share.

    Raises:
        InputError: another target than the one there is, or the table cannot be read.
    """
    single_target(target, "building")
    table = path / "tiles.csv"
    rows = read_table(table, ("image", "mask", *_BOX, "split"))
    with reading(table):
        boxes = np.array([[float(row[side]) for side in _BOX] for row in rows])
    files = [path / row[column] for row in rows for column in ("image", "mask")]
    return Collection(
        target=Target("segmentation", ("background", "building")),
        channels=RGB,
        splits=one_of_splits([row["split"] for row in rows], table),
        groups=np.array([row.get("block_z19") or row["image"] for row in rows]),
        labels=np.empty(0),
        **read_from(files, [table]),
        load=partial(_load, files, boxes, frame),
        places=(boxes[:, :2] + boxes[:, 2:]) / 2,
    )


def _load(files: list[Path], boxes: Float64, frame: Frame, index: int) -> Sample:
    image, mask = files[2 * index : 2 * index + 2]
    pixels, classes, (height, width) = read_masked(image, mask, frame)
    west, south, east, north = boxes[index].tolist()
    lat = (south + north) / 2
    gsd_m = (east - west) * _DEGREE_M * math.cos(math.radians(lat)) / width
    seen = Observation(
        RGB,
        pixels[None],  # (1, 3, H, W)
        ANY_TIME,
        gsd_m=scaled_gsd(gsd_m, height, frame),
        patch=frame.patch,
    )
    return Sample((seen,), classes, place=((west + east) / 2, lat))
