"""Splits by place: samples that lie near to each other are held out together."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hpcgeo.data.readers.collection import Collection, without_meaning
from hpcgeo.data.sample import Float64
from hpcgeo.errors import InputError

#: How much larger than it was a split may become by its last block.
SLACK = 1.5


def split_by_place(collection: Collection, degrees: float) -> Collection:
    """Return a collection whose splits are whole blocks of longitude and latitude.

    Splits keep about their sizes. Blocks are taken in the order of checksums of their names, so the
    splits are the same on every machine; clusters of samples stay together, by the first of each.
    Two samples on either side of an edge are in two blocks.

    Args:
        collection: whose samples have places; without `places` in it every sample is read.
        degrees: side of a block.

    Raises:
        InputError: a sample without a place, or too few blocks to hold one out.
    """
    places = collection.places if collection.places is not None else _read(collection)
    unknown = int((~np.isfinite(places).all(1)).sum())
    if unknown:
        raise InputError(
            f"split_by_place {degrees:g}: {unknown} of {len(places)} samples have no place: leave "
            "it out"
        )
    blocks = _blocks(collection.groups, places, degrees)
    members: dict[str, list[int]] = {}
    for index, block in enumerate(blocks.tolist()):
        members.setdefault(block, []).append(index)
    splits = np.full(len(blocks), "train", dtype="U10")
    left = without_meaning(list(members))
    for split in ("test", "validation"):
        wanted = int((collection.splits == split).sum())
        held: list[str] = []
        count = 0
        for block in left:
            size = len(members[block])
            if count < wanted and count + size <= max(1, SLACK * wanted):
                held.append(block)
                splits[members[block]] = split
                count += size
        if wanted and not held:
            raise InputError(
                f"split_by_place {degrees:g}: {len(members)} blocks, none small enough for the "
                f"split {split} of {wanted} samples: choose fewer degrees"
            )
        left = [block for block in left if block not in held]
    if not (splits == "train").any():
        raise InputError(f"split_by_place {degrees:g}: no block is left to train on: fewer degrees")
    return replace(collection, splits=splits, groups=blocks)


def _read(collection: Collection) -> Float64:
    return np.array([collection.load(index).place for index in range(len(collection.splits))])


def _blocks(groups: npt.NDArray[np.str_], places: Float64, degrees: float) -> npt.NDArray[np.str_]:
    """Return the name of the block of each sample, (N,): that of the first of its cluster."""
    first: dict[str, str] = {}
    names = []
    for group, (lon, lat) in zip(groups.tolist(), places.tolist(), strict=True):
        block = f"{math.floor(lon / degrees)} {math.floor(lat / degrees)}"
        names.append(first.setdefault(group, block))
    return np.array(names)
