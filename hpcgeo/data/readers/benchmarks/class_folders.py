"""Images in folders by class: the folder that an image lies in is its class, however deep it is."""

import os
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.benchmarks.facts import (
    Benchmark,
    classes_of,
    count,
    first_there,
    split_words,
)
from hpcgeo.data.readers.benchmarks.images import observed
from hpcgeo.data.readers.benchmarks.splits import Splits, listed_or_ours
from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    read_from,
    reading,
    single_target,
)
from hpcgeo.data.sample import Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

#: How folders begin that other programs leave.
HIDDEN = (".", "__MACOSX")


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the images of a folder.

    `files` says in which folder of it those of the classes are (`folders`, the first that is
    there), and how the names of images end (`extensions`).

    Raises:
        InputError: another target than the one there is, no such folder, a class without images,
            classes that the data set does not have, or lists of splits that do not fit.
    """
    single_target(target, "class")
    folder = first_there(path, row.files["folders"], "folder of classes")
    files = _images(folder, tuple(row.files["extensions"]))
    names = [file.relative_to(folder).as_posix() for file in files]
    where = _splits_of_folders(row, folder, names)
    classes, labels = classes_of(row, [file.parent.name for file in files], folder)
    count(row, len(files), folder)
    splits, lists = (where, []) if where is not None else listed_or_ours(row, path, names, labels)
    return Collection(
        target=Target(row.kind, classes),
        channels=row.channels,
        splits=splits,
        groups=np.array(names),
        labels=labels,
        **read_from(files, lists),
        load=partial(_load, row, folder, names, labels, frame),
    )


def _images(folder: Path, extensions: tuple[str, ...]) -> list[Path]:
    """Return the images below a folder, sorted; a branch that ends without any is an InputError."""
    found = []
    with reading(folder):
        for here, folders, files in os.walk(folder):
            folders[:] = sorted(each for each in folders if not each.startswith(HIDDEN))
            images = sorted(each for each in files if each.lower().endswith(extensions))
            found += [Path(here, each) for each in images if Path(here) != folder]
            if not images and not folders:
                raise InputError(
                    f"{here}: no image ({', '.join(extensions)}): unpack it again, or take the "
                    "folder away"
                )
    return found


def _splits_of_folders(row: Benchmark, folder: Path, names: list[str]) -> Splits | None:
    """Return the split of each image by its first folder, (N,), where these are splits."""
    if "folders" not in row.splits:
        return None
    words = split_words(row, "folders")
    parts = [name.partition("/")[0] for name in names]
    for word in words:
        if word not in parts:
            raise InputError(f"{folder}: no folder {word}, one of the splits of {row.title}")
    for word in sorted(set(parts) - set(words)):
        raise InputError(f"{folder}: folder {word} is no split; known: {', '.join(words)}")
    return np.array([words[part] for part in parts])


def _load(
    row: Benchmark, folder: Path, names: list[str], labels: Int64, frame: Frame, index: int
) -> Sample:
    seen, where = observed(row, folder / names[index], frame)
    return Sample((seen,), labels[index], place=where)
