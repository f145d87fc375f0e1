"""Splits by place: whole blocks of ground are held out, the same ones always."""

from pathlib import Path

import numpy as np
import pytest

from hpcgeo.data.labelled import LabelledSplit, open_tasks
from hpcgeo.data.places import split_by_place
from hpcgeo.data.readers.collection import SPLITS, Frame
from hpcgeo.data.readers.table import reader_of
from hpcgeo.errors import InputError
from tests.data.benchmarks import write
from tests.data.labelled import LAYOUTS


@pytest.mark.parametrize("reader", ["pixel_series", "fuel_moisture"])
def test_a_block_is_in_one_split(tmp_path: Path, reader: str) -> None:
    if reader in LAYOUTS:
        path, target = LAYOUTS[reader][0](tmp_path / "set"), LAYOUTS[reader][1]
    else:
        path, target = write(reader, tmp_path / "set"), None
    train = open_tasks(reader, path, split="train", target=target, split_by_place=0.5)
    assert isinstance(train, LabelledSplit)
    before = reader_of(reader)(path, target, Frame(1))
    blocks = train.collection.groups
    parts = [set(blocks[train.splits == split].tolist()) for split in SPLITS]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert all(parts)
    held = (train.splits == "test").sum() / max(1, (before.splits == "test").sum())
    assert 0.5 <= held <= 1.5
    # clusters are not torn apart
    for group in set(before.groups.tolist()):
        assert len(set(train.splits[before.groups == group].tolist())) == 1
    plainly = open_tasks(reader, path, split="train", target=target)
    assert plainly.fingerprint == train.fingerprint  # of the files
    assert plainly.split_fingerprint != train.split_fingerprint
    assert train.split_fingerprint == train.other("test").split_fingerprint
    again = split_by_place(before, 0.5)
    np.testing.assert_array_equal(again.groups, blocks)
    place = before.load(3).place
    assert before.places is not None
    assert place == pytest.approx(before.places[3])


def test_places_that_are_not_known_are_told(tmp_path: Path) -> None:
    path = LAYOUTS["scenes"][0](tmp_path / "scenes")
    with pytest.raises(InputError, match="split_by_place 1: 30 of 30 samples have no place"):
        open_tasks("scenes", path, split="train", size=32, split_by_place=1.0)


def test_places_may_be_in_the_images_alone(tmp_path: Path) -> None:
    """All of them are in one place here."""
    path = write("eurosat", tmp_path / "set")
    said = "split_by_place 1: 1 blocks, none small enough for the split test of 20 samples"
    with pytest.raises(InputError, match=said):
        open_tasks("eurosat", path, split="train", size=16, split_by_place=1.0)
