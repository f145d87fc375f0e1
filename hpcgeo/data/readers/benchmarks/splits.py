"""Which split an image of a public data set is in: as its publisher or the field says, else ours.

Ours is by class, in the order of checksums of names: without a random generator, so it is the same
on every machine and in every version of this package.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgeo.data.readers.benchmarks.facts import Benchmark
from hpcgeo.data.readers.collection import SPLITS, Int64, reading, without_meaning
from hpcgeo.errors import InputError
from hpcgeo.log import log

Splits = npt.NDArray[np.str_]

#: Of an image that no list names.
NONE = ""


def listed_or_ours(
    row: Benchmark, folder: Path, names: Sequence[str], labels: Int64
) -> tuple[Splits, list[Path]]:
    """Return the split of each image (N,), `NONE` where no list names it, and the lists read.

    Args:
        row: of the data set.
        folder: where the lists lie, if they do.
        names: (N,) of the images, each another one, whose last part the lists may name.
        labels: (N,) class of each, by which splits of ours are stratified.

    Raises:
        InputError: some lists are there and others are not, or one names an image that is not
            there, or that another one names.
    """
    lists = {split: folder / name for split, name in row.splits.get("lists", {}).items()}
    there = [path for path in lists.values() if path.exists()]
    if there:
        return _listed(lists, names), list(lists.values())
    if "train" not in row.splits:
        raise InputError(
            f"{folder}: none of {', '.join(row.splits['lists'].values())}, which name the images "
            f"of each split of {row.title}: put them there"
        )
    log.info("%s: splits: %s, the rest test", folder, row.stated_split)
    return _ours(row, names, labels), []


def _listed(lists: dict[str, Path], names: Sequence[str]) -> Splits:
    numbers = {_stem(name): number for number, name in enumerate(names)}
    if len(numbers) < len(names):
        raise InputError(f"{next(iter(lists.values())).parent}: two images of one name")
    splits = np.full(len(names), NONE, dtype="U10")
    for split, path in lists.items():
        with reading(path):
            lines = path.read_text("utf-8").splitlines()
        for line in filter(None, (line.strip() for line in lines)):
            number = numbers.get(_stem(line))
            if number is None:
                raise InputError(f"{path} names {line}, which is not there: unpack it again")
            if splits[number] != NONE:
                raise InputError(f"{path} names {line}, and so does the list of {splits[number]}")
            splits[number] = split
    return splits


def _stem(name: str) -> str:
    """Return the last part of a name without its ending: lists of EuroSAT say .jpg of all files."""
    return name.rpartition("/")[2].rpartition(".")[0]


def _ours(row: Benchmark, names: Sequence[str], labels: Int64) -> Splits:
    """Return splits that take the same fraction of every class, at least one image in each."""
    splits = np.full(len(names), "test", dtype="U10")
    fractions = [row.splits.get(split, 0.0) for split in SPLITS[:2]]
    for label in np.unique(labels):
        members = {names[index]: index for index in np.flatnonzero(labels == label).tolist()}
        order = [members[name] for name in without_meaning(list(members))]
        taken = 0
        for split, fraction in zip(SPLITS, fractions, strict=False):
            number = max(1, round(fraction * len(order))) if fraction else 0
            splits[order[taken : taken + number]] = split
            taken += number
    return splits
