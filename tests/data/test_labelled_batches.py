"""Samples as they are drawn: the same on any ranks, turned with their labels, damage skipped."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from hpcgeo.data.labelled_batches import DrawnBatches, plain, turned
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.data.sampling.mixture import MixtureSampler
from hpcgeo.errors import InputError
from tests.mixed import drawn, sets

BLUE = (Channel("rgb", "B"),)


def batches(parts=None, micro_batch=4, rank=0, world=1, unnamed=0.0, flip=True):
    parts = parts or sets()
    sizes = {name: len(part) for name, part in parts.items()}
    mixture = MixtureSampler(sizes, weights={}, temperature=2, epochs={}, seed=0)
    return DrawnBatches(parts, mixture, 0, micro_batch, rank, world, flip, unnamed)


def same(a, b):
    return (a.task, a.index, a.position, a.named) == (b.task, b.index, b.position, b.named) and all(
        np.array_equal(x.values, y.values, equal_nan=True)
        for x, y in zip(a.sample.observations, b.sample.observations, strict=True)
    )


def test_any_ranks_and_micro_batches_draw_the_same():
    whole = batches(micro_batch=24, unnamed=0.3)[1]
    for world, micro in ((2, 12), (4, 3), (1, 8)):
        per_step = 24 // world // micro
        parts = [
            one
            for number in range(per_step)
            for rank in range(world)
            for one in batches(None, micro, rank, world, 0.3)[per_step + number]
        ]
        assert all(same(a, b) for a, b in zip(whole, parts, strict=True))
    assert {one.task for one in whole} == set(sets())


def test_bands_are_unnamed_as_often_as_asked():
    some = [one for number in range(5) for one in batches(None, 40, unnamed=0.3)[number]]
    flags = [flag for one in some for flag in one.named]
    assert 0.6 < np.mean(flags) < 0.8
    assert all(flag for one in batches()[0] for flag in one.named)
    assert not any(flag for one in batches(unnamed=1.0)[0] for flag in one.named)


def test_a_turn_turns_values_gaps_and_labels_alike():
    values = np.arange(2 * 16.0, dtype=np.float32).reshape(2, 1, 4, 4)
    values[:, :, 0, 1] = np.nan
    seen = Observation(BLUE, values, np.zeros((2, 2)), 1.0, 1)
    one = plain(Sample((seen,), np.arange(16).reshape(4, 4), dense=True))
    found = set()
    for turn in range(8):
        other = turned(one, turn)
        (image,), (kept,) = other.sample.observations, other.kept
        there = kept[0, 0]
        assert np.array_equal(image.values[0, 0][there], other.sample.target[there])
        assert other.sample.target[~there].tolist() == [1]
        found.add(other.sample.target.tobytes())
    assert len(found) == 8


def test_what_is_not_square_keeps_its_shape():
    seen = Observation(BLUE, np.ones((1, 1, 4, 8), np.float32), np.zeros((1, 2)), 1.0, 2)
    one = plain(Sample((seen,), np.arange(32).reshape(4, 8), dense=True))
    turns = [turned(one, turn).sample.target for turn in range(8)]
    assert {target.shape for target in turns} == {(4, 8)}
    assert len({target.tobytes() for target in turns}) == 4


def test_vectors_and_their_labels_are_left_alone():
    (one,) = drawn("table")
    assert all(turned(one, turn) is one for turn in range(8))


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
def test_a_token_is_there_if_half_of_it_is(gap):
    values = np.ones((1, 1, 8, 8), np.float32)
    values[0, 0, :2, :4] = gap  # half of the first token
    values[0, 0, 4:7, 4:] = gap  # three quarters of the last
    one = plain(Sample((Observation(BLUE, values, np.zeros((1, 2)), 1.0, 4),), np.array(0)))
    assert one.kept[0][0, 0].tolist() == [[True, True], [True, False]]
    assert one.length == 4


class Damaged:
    """A part of which no sample can be read."""

    def __init__(self, part, name):
        self.part, self.name = part, name

    def __len__(self):
        return len(self.part)

    def read(self, index):
        raise InputError(f"{self.name}/{index}.tif: cannot be read: truncated")


def test_a_sample_that_cannot_be_read_is_one_of_another_task(caplog):
    parts = dict(sets())
    parts["tiles"] = Damaged(parts["tiles"], "tiles")
    with caplog.at_level(logging.WARNING):
        found = batches(parts, 40)[0]
    expected = batches(None, 40)[0]
    assert len(found) == 40 and "tiles" not in {one.task for one in found}
    assert [one.position for one in found] == list(range(40))
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.task == "tiles" or same(ours, theirs)
    assert "task tiles: tiles/" in caplog.text and "a sample of another task" in caplog.text
    nothing = {name: Damaged(part, name) for name, part in sets().items()}
    with pytest.raises(InputError, match="100 samples in a row, of 5 tasks, cannot be read"):
        batches(nothing)[0]


def test_positions_are_kept_when_drawn_alone():
    some = batches(None, 8)[3]
    again = batches(None, 8).at(np.array([some[5].position]))
    assert same(again[0], some[5])
    assert not same(again[0], replace(some[5], position=0))
