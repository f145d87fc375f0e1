"""Labelled samples of several sensors that are made up: to try a mixture without any data.

The "path" says which: `scenes` (how far apart the rows of an aerial image are), `tiles` (where its
roofs are), `series` (which crop a part of a pixel's year of Sentinel-2 and Sentinel-1 shows),
`table` (a number from a few vectors), `pairs` (what changed between two dates). In each the values
mean something with what is known beside them: size of a pixel, place, dates. Each is the same
always.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import Collection, Frame, single_target
from hpcgeo.data.sample import Channel, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

NUM_SAMPLES = 480
SIZE = 32

RGB = tuple(Channel("rgb", band) for band in "RGB")
OPTICAL = tuple(Channel("sentinel2", band) for band in ("B02", "B03", "B04", "B08"))
RADAR = (Channel("sentinel1", "VV"), Channel("sentinel1", "VH"))
TABLE = tuple(Channel("landsat8", band, 16) for band in ("B2", "B3", "B4"))
PAIR = tuple(Channel("landsat8", band) for band in ("B4", "B5"))

#: The middle of 2021, in days since 2000, and a day.
MIDDLE, DAY = 7853.0, 0.5
PLACES = ((8.5, 47.0), (36.8, -1.3), (-74.5, -8.4), (179.9, -17.0))
#: What is added at each place, before and after: one step of brightness, and its change, differ.
LIGHT = ((-1.5, -0.5), (-0.5, -0.5), (0.5, 0.5), (1.5, 0.5))
#: Metres of a pixel, and between two rows of each class.
PIXEL_M = (0.3, 0.45)
SPACING_M = (2.4, 3.6, 5.4, 8.1)


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the samples of one kind.

    Args:
        path: a key of `KINDS`.
        target: None, or "generated".
        frame: of the images; by default 32 pixels.
    """
    single_target(target, "generated")
    kind, channels, _ = find(KINDS, str(path), "generated set")
    size = frame.size or SIZE
    if size % frame.patch:
        raise InputError(f"patch {frame.patch} does not divide the size {size} of generated images")
    names = {"scenes": "ABCD", "series": "ABC", "table": "y"}.get(str(path), "01")

    load = partial(_load, str(path), size, frame.patch)
    target_of = Target(kind, tuple(names))
    dense = kind_of(target_of).dense
    labels = [] if dense else [load(index).target for index in range(NUM_SAMPLES)]
    return Collection(
        target=target_of,
        channels=channels,
        splits=np.array((["train"] * 4 + ["validation", "test"]) * (NUM_SAMPLES // 6)),
        groups=np.array([str(index) for index in range(NUM_SAMPLES)]),
        labels=np.array(labels),
        fingerprint=hashlib.sha256(f"generated 2 {path} {size} {NUM_SAMPLES}".encode()).hexdigest(),
        load=load,
    )


def hash_of(name: str) -> int:
    """Return a seed for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def _load(name: str, size: int, patch: int, index: int) -> Sample:
    return KINDS[name][2](np.random.default_rng([hash_of(name), index]), size, patch)


def _scene(rng: np.random.Generator, size: int, patch: int) -> Sample:
    """Rows of one of four spacings, along or across; pixels differ in size."""
    label, gsd_m = rng.integers(4), rng.choice(PIXEL_M)
    along = np.mgrid[:size, :size][rng.integers(2)] * gsd_m / SPACING_M[label]
    waves = np.sin(2 * np.pi * (along + rng.random()))
    image = waves + rng.normal(0, 0.5, (3, size, size)) + rng.normal(0, 0.3, (3, 1, 1))
    seen = Observation(RGB, image[None].astype(np.float32), _dates(rng, 1), gsd_m, patch)
    return Sample((seen,), np.array(label, dtype=np.int64))


def _tile(rng: np.random.Generator, size: int, patch: int) -> Sample:
    """Roofs, brighter than the ground by one step; how bright that is, the place says."""
    truth, where = np.zeros((size, size), dtype=np.int64), rng.integers(4)
    for _ in range(2):
        height, width = rng.integers(size // 3, 2 * size // 3, 2)
        top, left = rng.integers(0, (size - height, size - width))
        truth[top : top + height, left : left + width] = 1
    image = (truth + LIGHT[where][0]) * np.array([1.5, -1.0, 0.5])[:, None, None]
    image = image + rng.normal(0, 0.5, (3, size, size))
    seen = Observation(RGB, image[None].astype(np.float32), _dates(rng, 1), 0.3, patch)
    return Sample((seen,), truth, place=PLACES[where])


def _series(rng: np.random.Generator, size: int, patch: int) -> Sample:
    """The season of one of three crops, in a part of a year: its dates say which part."""
    label = rng.integers(3)
    time = _dates(rng, int(rng.integers(6, 25)), days=rng.uniform(150, 300))
    dates, phase = len(time), 2 * np.pi * (time[:, 0] / 365.2425 - label / 3)
    green = np.cos(phase)[:, None] * np.array([-0.5, 0.2, -0.5, 1.0])
    optical = green + rng.normal(0, 0.3, (dates, 4))
    optical[rng.random(dates) < 0.3] = np.nan  # clouds
    radar = np.sin(phase)[:, None] * 0.5 + rng.normal(0, 0.4, (dates, 2))
    observations = tuple(
        Observation(channels, values[:, :, None, None].astype(np.float32), time, 10.0, 1, orbit)
        for channels, values, orbit in ((OPTICAL, optical, 0), (RADAR, radar, 1))
    )
    place = PLACES[rng.integers(4)]
    return Sample(observations, np.array(label, np.int64), place, 10.0, (300.0, 50.0))


def _table(rng: np.random.Generator, size: int, patch: int) -> Sample:
    """A number from a few vectors, which begins elsewhere at each place."""
    where, values = rng.integers(4), rng.normal(0, 1, (1, 3, 16))
    number = values[0, 0].mean() * 2 - values[0, 2, :4].mean() + rng.normal(0, 0.1)
    seen = Observation(TABLE, values.astype(np.float32), np.array([[MIDDLE, 180.0]]))
    number += LIGHT[where][0]
    return Sample((seen,), np.array([number], dtype=np.float32), PLACES[where], 5000.0)


def _pair(rng: np.random.Generator, size: int, patch: int) -> Sample:
    """A field that moved between two dates; how the light changed, the place says."""
    masks, where = np.zeros((2, size, size)), rng.integers(4)
    for mask in masks:
        top, left = rng.integers(0, size // 2, 2)
        mask[top : top + size // 2, left : left + size // 2] = 1
    lit = masks + np.array(LIGHT[where])[:, None, None]
    values = lit[:, None] * np.array([1.0, -1.5])[:, None, None]
    values = values + rng.normal(0, 0.6, (2, 2, size, size))
    time = np.array([[MIDDLE - 3650, 180.0], [MIDDLE, 180.0]])
    seen = Observation(PAIR, values.astype(np.float32), time, 30.0, patch)
    return Sample((seen,), (masks[0] != masks[1]).astype(np.int64), PLACES[where])


def _dates(rng: np.random.Generator, count: int, days: float = 365) -> Float64:
    """Return sorted dates in so many days, which lie anywhere in the year."""
    first = MIDDLE - 182 + rng.uniform(0, 365 - days)
    centres = np.sort(first + rng.uniform(0, days, count))
    return np.stack([centres, np.full(count, DAY)], axis=1)


Make = Callable[[np.random.Generator, int, int], Sample]

KINDS: dict[str, tuple[str, tuple[Channel, ...], Make]] = {
    "scenes": ("classification", RGB, _scene),
    "tiles": ("segmentation", RGB, _tile),
    "series": ("classification", (*OPTICAL, *RADAR), _series),
    "table": ("regression", TABLE, _table),
    "pairs": ("change", PAIR, _pair),
}
