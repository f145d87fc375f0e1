"""A list of samples of different splits that show the same: a JSON file.

By it training leaves its part of them out (`data.tasks.NAME.leave_out`).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, with_config

from hpcgeo.data.readers.collection import Collection
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.tables import checked, own

Int64 = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Duplicate:
    """Two samples of different splits that show the same.

    Attributes:
        first, second: their numbers in the collection.
        bits: in which their hashes differ; None: they were found by place.
        metres: between them; None: they were found by their looks.
    """

    first: int
    second: int
    bits: int | None = None
    metres: float | None = None


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class DuplicateList:
    """A list of pairs, and the data that it is of."""

    fingerprint: str
    samples: int
    split_by_place: float | None
    pairs: list[Duplicate]


def write(path: Path, found: DuplicateList) -> None:
    """Write a list of pairs as JSON."""
    write_text(path, json.dumps(asdict(found), indent=1) + "\n")


def left_out(
    path: Path, collection: Collection, splits: Strings, split_by_place: float | None
) -> Int64:
    """Return the training samples that a list pairs with samples of other splits.

    Args:
        path: of the list, as `write` leaves it.
        collection: whose samples they are.
        splits: (N,) of the samples.
        split_by_place: as the splits were made.

    Raises:
        InputError: it cannot be read, or is of other data or of other splits.
    """
    listed = checked(DuplicateList, own(path, "list of duplicates"), f"list of duplicates {path}")
    again = "make it again (hpcgeo data duplicates)"
    mine: tuple[Any, ...] = (collection.fingerprint, len(splits), split_by_place)
    theirs = (listed.fingerprint, listed.samples, listed.split_by_place)
    for name, ours, there in zip(("data", "samples", "split_by_place"), mine, theirs, strict=True):
        if ours != there:
            raise InputError(f"{path} is of other {name} ({there}, not {ours}): {again}")
    numbers = {number for pair in listed.pairs for number in (pair.first, pair.second)}
    if any(not 0 <= number < len(splits) for number in numbers):
        raise InputError(f"{path} names a sample that is not there: {again}")
    return np.array(sorted(n for n in numbers if splits[n] == "train"), dtype=np.int64)
