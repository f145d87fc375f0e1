"""Land cover of aerial tiles, SustainBench's representation learning task (Tile2Vec's NAIP tiles).

The layout is that of its loader LandCoverRepDataset as found in copies of the repository (its
documentation has no link to the data): `metadata.csv` with fileName, landCover and split 0, 1, 2,
and `tile_triplets/<fileName>`, npy arrays (100, 100, 5) of red, green, blue, near infrared and the
land cover of each pixel, which is left out.
"""

from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    ANY_TIME,
    SPLITS,
    Collection,
    Frame,
    Int64,
    fit,
    numbered,
    read_from,
    read_table,
    reading,
    scaled_gsd,
    single_target,
)
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

BANDS = tuple(Channel("naip", band) for band in ("R", "G", "B", "NIR"))
PIXEL_M = 0.6
#: The middle of the study region, [-120.25, -119.65] x [36.45, 37.05] degrees, and its half-width.
PLACE = (-119.95, 36.75)
SPREAD_M = 33_000.0


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the tiles of a folder; classes are named by their codes in the Cropland Data Layer.

    The fingerprint leaves the tiles out: there are some hundred thousand.

    Raises:
        InputError: another target than the one there is, or the table cannot be read.
    """
    single_target(target, "land_cover")
    table = path / "metadata.csv"
    rows = read_table(table, ("fileName", "landCover", "split"))
    parts = {str(number): part for number, part in enumerate(SPLITS)}
    names = [row["fileName"] for row in rows]
    with reading(table):
        classes, labels = numbered([f"{int(row['landCover']):03d}" for row in rows])
    return Collection(
        target=Target("classification", classes),
        channels=BANDS,
        splits=np.array([find(parts, row["split"], f"split of {table}") for row in rows]),
        groups=np.array(names),
        labels=labels,
        **read_from([], [table]),
        load=partial(_load, path / "tile_triplets", names, labels, frame),
    )


def _load(folder: Path, names: list[str], labels: Int64, frame: Frame, index: int) -> Sample:
    path = folder / names[index]
    with reading(path):
        tile = np.load(path, allow_pickle=False)
    if tile.ndim != 3 or tile.shape[2] < len(BANDS):
        raise InputError(f"{path}: {tile.shape}, not (H, W, bands) with {len(BANDS)} bands or more")
    bands = np.moveaxis(tile[..., : len(BANDS)], -1, 0).astype(np.float32)
    seen = Observation(
        BANDS,
        fit(np.ascontiguousarray(bands), frame, path)[None],  # (1, 4, H, W)
        ANY_TIME,
        gsd_m=scaled_gsd(PIXEL_M, tile.shape[0], frame),
        patch=frame.patch,
    )
    return Sample((seen,), labels[index], place=PLACE, place_spread_m=SPREAD_M)
