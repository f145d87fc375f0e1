"""Scenes in folders by class, one photograph a file, with the parts in `split.csv`."""

from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    Int64,
    checksum,
    fit,
    numbered,
    one_of_splits,
    read_image,
    read_table,
    single_target,
)
from hpcgeo.data.sample import Observation, Sample, Signal, Target

RGB = tuple(Signal("rgb", band) for band in "RGB")


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the photographs of a folder: `split.csv` has path, label and split of each.

    Raises:
        InputError: another target than the one there is, or the table cannot be read.
    """
    single_target(target, "class")
    table = path / "split.csv"
    rows = read_table(table, ("path", "label", "split"))
    names = [row["path"] for row in rows]
    classes, labels = numbered([row["label"] for row in rows])
    return Collection(
        target=Target("classification", classes),
        signals=RGB,
        splits=one_of_splits([row["split"] for row in rows], table),
        groups=np.array(names),
        labels=labels,
        digest=checksum([path / name for name in names], [table]),
        load=partial(_load, path, names, labels, frame),
    )


def _load(folder: Path, names: list[str], labels: Int64, frame: Frame, index: int) -> Sample:
    path = folder / names[index]
    values = fit(read_image(path, "RGB"), frame, path)[None]  # (1, 3, H, W)
    seen = Observation(RGB, values, ANY_TIME, patch=frame.patch)
    return Sample((seen,), labels[index])
