"""Outlines and areas of fields in France, SustainBench's field delineation and farm area.

The layout is that of SustainBench's loader: `clean_data.csv` with indices, split (train, val, test)
and the box in degrees, `imgs/<index>.jpeg` (Sentinel-2 in RGB, 224 x 224), `masks/<index>.png` (the
outlines) and `masks_filled/<index>.png` (the areas).
"""

from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    days,
    read_from,
    read_masked,
    read_table,
    reading,
    scaled_gsd,
)
from hpcgeo.data.sample import Channel, Float64, Observation, Sample
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

#: Red, green, blue.
BANDS = tuple(Channel("sentinel2", band) for band in ("B04", "B03", "B02"))
PIXEL_M = 10.0
#: The months are not stated but in the name of the folder the loader reads (jul_sept).
TIME = days(date(2017, 7, 1), date(2017, 10, 1))
TARGETS = {"outline": "masks", "area": "masks_filled"}
PARTS = {"train": "train", "val": "validation", "test": "test"}

_BOX = ("min_lon", "min_lat", "max_lon", "max_lat")


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the images of a folder with one of the two masks.

    Raises:
        InputError: no such target, or the table cannot be read.
    """
    masks = find(TARGETS, target or "", "target")
    table = path / "clean_data.csv"
    rows = read_table(table, ("indices", "split", *_BOX))
    names = [row["indices"] for row in rows]
    with reading(table):
        boxes = np.array([[float(row[side]) for side in _BOX] for row in rows])
    files = [
        path / file
        for name in names
        for file in (Path("imgs", f"{name}.jpeg"), Path(masks, f"{name}.png"))
    ]
    return Collection(
        target=Target("segmentation", ("background", str(target))),
        channels=BANDS,
        splits=np.array([find(PARTS, row["split"], f"split of {table}") for row in rows]),
        groups=np.array(names),
        labels=np.empty(0),
        **read_from(files, [table]),
        load=partial(_load, files, boxes, frame),
    )


def _load(files: list[Path], boxes: Float64, frame: Frame, index: int) -> Sample:
    image, mask = files[2 * index : 2 * index + 2]
    pixels, classes, (height, _) = read_masked(image, mask, frame)
    west, south, east, north = boxes[index].tolist()
    seen = Observation(
        BANDS,
        pixels[None],  # (1, 3, H, W)
        np.array([TIME]),
        gsd_m=scaled_gsd(PIXEL_M, height, frame),
        patch=frame.patch,
    )
    return Sample((seen,), classes, place=((west + east) / 2, (south + north) / 2))
