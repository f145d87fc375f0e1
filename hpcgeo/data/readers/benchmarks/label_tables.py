"""Images in folders by category, and beside them a table a category of the labels that each has."""

import csv
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.benchmarks.facts import Benchmark, count, first_there
from hpcgeo.data.readers.benchmarks.images import observed
from hpcgeo.data.readers.benchmarks.splits import listed_or_ours
from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    numbered,
    read_from,
    reading,
    refuse_outside,
    single_target,
)
from hpcgeo.data.sample import Float32, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

#: The column of a table that names the image; all others are labels.
IMAGE = "image"


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the images of a folder, split by category.

    `files` says where images are (`images`) and the tables, CATEGORY.csv (`tables`), with a column
    `image` and one of 0 and 1 for each label.

    Raises:
        InputError: another target than the one there is, a table that cannot be read or has other
            labels than the first, or an image that is not there.
    """
    single_target(target, "labels")
    images = first_there(path, row.files["images"], "folder of images")
    tables = sorted(first_there(path, row.files["tables"], "folder of labels").glob("*.csv"))
    if not tables:
        raise InputError(f"{path}: no table of labels, {row.files['tables'][0]}/CATEGORY.csv")
    names: list[str] = []
    marks: list[list[str]] = []
    labels: tuple[str, ...] = ()
    for table in tables:
        head, rows = _read(table)
        if labels and head != labels:
            raise InputError(f"{table}: other labels than {tables[0]}")
        labels = head
        names += [f"{table.stem}/{name}" for name, *_ in rows]
        marks += [cells for _, *cells in rows]
    if len(labels) != row.classes:
        raise InputError(f"{tables[0]}: {len(labels)} labels, {row.title} has {row.classes}")
    with reading(tables[0]):
        truth = np.array(marks, dtype=np.float32)
    count(row, len(names), images)
    categories = numbered([name.partition("/")[0] for name in names])[1]
    splits, lists = listed_or_ours(row, path, names, categories)
    return Collection(
        target=Target(row.kind, labels),
        channels=row.channels,
        splits=splits,
        groups=np.array(names),
        labels=truth,
        **read_from([images / name for name in names], [*tables, *lists]),
        load=partial(_load, row, images, names, truth, frame),
    )


def _read(table: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the labels of a table, and its rows: name of the image, then 0 or 1 of each label."""
    with reading(table), table.open(newline="", encoding="utf-8-sig") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    if head[:1] != [IMAGE]:
        raise InputError(f"{table}: the first column is {IMAGE}, the others are labels")
    for number, row in enumerate(rows, 2):
        if len(row) != len(head) or not set(row[1:]) <= {"0", "1"}:
            raise InputError(f"{table}: line {number}: a name, then 0 or 1 for each label")
        refuse_outside(row[0], f"{table}: line {number}")
    return tuple(head[1:]), rows


def _load(
    row: Benchmark, images: Path, names: list[str], truth: Float32, frame: Frame, index: int
) -> Sample:
    seen, where = observed(row, images / names[index], frame)
    return Sample((seen,), truth[index], place=where)
