"""Random numbers and orders from positions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgeo.data.sampling.order import shuffled, uniform

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60)
@given(size=st.integers(1, 3000), epoch=st.integers(0, 10**6), seed=seeds)
def test_every_epoch_is_a_permutation(size, epoch, seed):
    order = shuffled(np.arange(epoch * size, (epoch + 1) * size), size, seed)
    assert np.array_equal(np.sort(order), np.arange(size))


@settings(max_examples=60)
@given(
    size=st.integers(1, 10**12),
    positions=st.lists(st.integers(0, 2**50), min_size=1, max_size=20),
    seed=seeds,
)
def test_many_positions_at_once_are_each_alone(size, positions, seed):
    together = shuffled(np.array(positions), size, seed)
    alone = [int(shuffled(np.array([position]), size, seed)[0]) for position in positions]
    assert together.tolist() == alone
    assert all(0 <= index < size for index in alone)
    drawn = uniform(seed, np.array(positions), "crop", 3)
    for row, position in zip(drawn, positions, strict=True):
        assert np.array_equal(row, uniform(seed, np.array([position]), "crop", 3)[0])
    assert np.array_equal(drawn[:, :2], uniform(seed, np.array(positions), "crop", 2))


def test_a_billion_samples_need_no_list():
    order = shuffled(np.arange(5 * 10**9, 5 * 10**9 + 1000), 10**9, 0)
    assert len(np.unique(order)) == 1000
    assert order.std() == pytest.approx(10**9 / 12**0.5, rel=0.1)


def test_orders_differ_between_epochs_and_seeds_and_look_random():
    size = 2000
    first = shuffled(np.arange(size), size, 0)
    for other in (shuffled(np.arange(size, 2 * size), size, 0), shuffled(np.arange(size), size, 1)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.1
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.1
    assert (first == np.arange(size)).sum() < 10


def test_where_a_sample_lands_is_uniform():
    size, epochs = 10, 4000
    order = shuffled(np.arange(size * epochs), size, 3).reshape(epochs, size)
    for place in range(size):
        counts = np.bincount(order[:, place], minlength=size)
        chi2 = ((counts - epochs / size) ** 2 / (epochs / size)).sum()
        assert chi2 < 33  # 9 degrees of freedom: 1 in 10000


def test_numbers_are_uniform_and_streams_independent():
    position = np.arange(100_000)
    crop, mask = (uniform(0, position, stream, 2) for stream in ("crop", "mask"))
    assert crop.min() >= 0 and crop.max() < 1
    for column in (crop[:, 0], crop[:, 1], mask[:, 0]):
        counts = np.histogram(column, 100, (0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 160  # 99 degrees of freedom
    pairs = [(crop[:, 0], crop[:, 1]), (crop[:, 0], mask[:, 0]), (crop[:-1, 0], crop[1:, 0])]
    for one, other in pairs:
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.015
