"""Scenes, one photograph a file, with their class, or all that they show, in `split.csv`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    Int64,
    fit,
    numbered,
    one_of_splits,
    read_from,
    read_image,
    read_table,
)
from hpcgeo.data.sample import Channel, Float32, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

Labels = Int64 | Float32

RGB = tuple(Channel("rgb", band) for band in "RGB")


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the photographs of a folder: `split.csv` has path, label and split of each.

    Args:
        path: the folder.
        target: "class", the default, or "labels": any number of them, parted by semicolons.
        frame: of the photographs.

    Raises:
        InputError: no such target, or the table cannot be read.
    """
    kind, read = find(TARGETS, target or "class", "target")
    table = path / "split.csv"
    if path.is_dir() and not table.exists():
        raise InputError(
            f"{table}: no such file: a table of path, label and split (train, validation, test) of "
            f"each photograph; of a folder of classes alone: hpcgeo data build {path} --out SET, "
            f"and read it as shards:SET"
        )
    rows = read_table(table, ("path", "label", "split"))
    names = [row["path"] for row in rows]
    classes, labels = read([row["label"] for row in rows])
    if not classes:
        raise InputError(f"{table}: no label in the column label")
    return Collection(
        target=Target(kind, classes),
        channels=RGB,
        splits=one_of_splits([row["split"] for row in rows], table),
        groups=np.array(names),
        labels=labels,
        **read_from([path / name for name in names], [table]),
        load=partial(_load, path, names, labels, frame),
    )


def _marked(cells: Sequence[str]) -> tuple[tuple[str, ...], Float32]:
    """Return all labels in sorted order, and which of them each cell names, (N, K) of 0 and 1.

    >>> _marked(["trees;water", "", "water"])[1].tolist()
    [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]
    """
    sets = [{word.strip() for word in cell.split(";")} - {""} for cell in cells]
    names = tuple(sorted(set().union(*sets)))
    marks = [[name in each for name in names] for each in sets]
    return names, np.array(marks, dtype=np.float32)


#: What a label is: the kind of the task, and names and labels from the cells of the table.
TARGETS: dict[str, tuple[str, Callable[[Sequence[str]], tuple[tuple[str, ...], Labels]]]] = {
    "class": ("classification", numbered),
    "labels": ("multilabel", _marked),
}


def _load(folder: Path, names: list[str], labels: Labels, frame: Frame, index: int) -> Sample:
    path = folder / names[index]
    values = fit(read_image(path, "RGB"), frame, path)[None]  # (1, 3, H, W)
    seen = Observation(RGB, values, ANY_TIME, patch=frame.patch)
    return Sample((seen,), labels[index])
