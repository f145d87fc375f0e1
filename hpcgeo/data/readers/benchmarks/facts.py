"""What is known of a public data set: a row of facts/benchmarks.yaml."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hpcgeo.data.readers.collection import Int64, numbered
from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.tables import find, nearest, read

#: Pillow reads photographs of this sensor, whatever their colour model is.
PHOTOGRAPHS = "rgb"


@dataclass(frozen=True)
class Benchmark:
    """A public data set; the head of facts/benchmarks.yaml says what its parts mean.

    Attributes:
        name: of the row, and of the reader.
        title: a line for `hpcgeo list benchmarks`.
        source: paper, and where the splits come from.
        layout: the module that reads it.
        kind: of task.
        splits: where the split of an image comes from.
        files: which there are; each layout has its own words for them.
        classes: names of the classes, or how many there are.
        colours: red, green and blue of each class in masks; None: not labelled.
        images: how many the publisher counts.
        sensor, bands: what the images show.
        gsd_m: metres of a pixel; NaN: they differ, or nobody says.
    """

    name: str
    title: str
    source: str
    layout: str
    kind: str
    splits: Mapping[str, Any]
    files: Any = None
    classes: tuple[str, ...] | int | None = None
    colours: Mapping[str | None, tuple[int, int, int]] = field(default_factory=dict)
    images: int | None = None
    sensor: str = PHOTOGRAPHS
    bands: tuple[str, ...] = ("R", "G", "B")
    gsd_m: float = math.nan

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The bands, as samples name them."""
        return tuple(Channel(self.sensor, band) for band in self.bands)

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the classes, where they are known."""
        return () if self.classes is None or isinstance(self.classes, int) else self.classes

    @property
    def expected(self) -> str:
        """Paths that its folder is expected to hold, the first of several that are there."""
        return EXPECTED[self.layout](self)

    @property
    def stated_split(self) -> str:
        """A few words on where the splits come from."""
        parts = self.splits.get("train"), self.splits.get("validation", 0)
        ours = "" if parts[0] is None else f"ours: {parts[0]:.0%} of every class train"
        ours += f", {parts[1]:.0%} validation" if parts[1] else ""
        if "lists" not in self.splits:
            return ours or "of the publisher"
        lists = ", ".join(self.splits["lists"].values())
        return f"{lists}; without them {ours}" if ours else lists


def _folders(row: Benchmark) -> str:
    words = "|".join(split_words(row, "folders")) if "folders" in row.splits else ""
    first = row.files["folders"][0]
    parts = [first if first != "." else "", words, "CLASS", f"NAME{row.files['extensions'][0]}"]
    return "/".join(filter(None, parts))


def _masks(row: Benchmark) -> str:
    return _upper([", ".join([*layout["dates"], layout["mask"]]) for layout in row.files])


def _finer(row: Benchmark) -> str:
    return _upper([f"{layout['coarse']}, {layout['fine']}" for layout in row.files["layouts"]])


def _upper(layouts: list[str]) -> str:
    """Return layouts one of which is expected, with their named parts in capitals."""
    return re.sub(r"\{(\w+)\}", lambda part: part[1].upper(), "; or ".join(layouts))


#: What a folder of each layout holds, in a few words.
EXPECTED: dict[str, Callable[[Benchmark], str]] = {
    "class_folders": _folders,
    "masks": _masks,
    "super_resolution": _finer,
    "label_tables": lambda row: (
        f"{row.files['images'][0]}/CATEGORY/NAME{row.files['extensions'][0]}, "
        f"{row.files['tables'][0]}/CATEGORY.csv"
    ),
    "bigearthnet": lambda row: ", ".join(
        f"{row.files[sensor][0]}/PATCH/PATCH_BAND.tif" for sensor in row.files["seen"]
    ),
    "fmow": lambda row: "train|val/CLASS/CLASS_N/CLASS_N_M_rgb.jpg and .json",
    "geo_bench": lambda row: f"{row.files['splits']}, {row.files['task']}, NAME.hdf5",
    "fuel_moisture": lambda row: "s1_s2_era5_srtm.npy, month.npy, latlon.npy, site.npy, ...",
}


@cache
def benchmarks() -> Mapping[str, Benchmark]:
    """Return every public data set that there is a reader for, by name."""
    rows = read("benchmarks")
    found = {}
    for name, row in rows.items():
        cells = {**rows.get(row.get("like"), {}), **row}
        cells.pop("like", None)
        for key in ("classes", "bands"):
            if isinstance(cells.get(key), list):
                cells[key] = tuple(cells[key])
        found[name] = Benchmark(name=name, **cells)
    return found


def first_there(folder: Path, names: list[str], what: str) -> Path:
    """Return the first of several paths in a folder that is there.

    Raises:
        InputError: none is.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder}: no {what}: one of {', '.join(names)} is expected in it")


def classes_of(row: Benchmark, names: list[str], folder: Path) -> tuple[tuple[str, ...], Int64]:
    """Return the classes of a data set and the number of each sample's, (N,).

    Args:
        row: of the data set.
        names: (N,) class of each sample, as in the files.
        folder: where they are, for the message.

    Raises:
        InputError: a class that the data set does not have, or one that is not there.
    """
    if not row.known:
        found, numbers = numbered(names)
        if isinstance(row.classes, int) and len(found) != row.classes:
            log.warning("%s: %d classes, %s has %d", folder, len(found), row.title, row.classes)
        return found, numbers
    there = set(names)
    for name in sorted(there - set(row.known)):
        raise InputError(
            f"{folder}: unknown class {name!r}{nearest(name, row.known)}; {row.title} has "
            f"{', '.join(row.known)}; reader scenes takes any classes, by a split.csv"
        )
    missing = [name for name in row.known if name not in there]
    if missing:
        raise InputError(
            f"{folder}: no images of {', '.join(missing)}: {len(row.known)} classes make "
            f"{row.title}; unpack it again"
        )
    order = {name: number for number, name in enumerate(row.known)}
    return row.known, np.array([order[name] for name in names], dtype=np.int64)


def count(row: Benchmark, found: int, folder: Path) -> None:
    """Say in the log where a data set has another number of images than its publisher counts."""
    if row.images is not None and found != row.images:
        log.warning("%s: %d images, %s has %d", folder, found, row.title, row.images)


def split_words(row: Benchmark, key: str) -> dict[str, str]:
    """Return the split of each word that folders or names call one by."""
    return {word: split for split, words in row.splits[key].items() for word in words}


def split_of(row: Benchmark, word: str, where: Path) -> str:
    """Return the split that a word means; an unknown one is an InputError."""
    return find(split_words(row, "words"), word, f"split of {where}")
