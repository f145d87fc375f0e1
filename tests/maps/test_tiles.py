"""Tiles cover a scene, their weights add up to one, and no later tile changes a finished strip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.maps.shares import cut
from hpcgeo.maps.tiles import Tiling, offsets, ramp, shared

SIDES = st.tuples(st.integers(1, 90), st.sampled_from([4, 8, 16]), st.sampled_from([0, 0.25, 0.5]))


@given(SIDES)
def test_tiles_cover_a_side_and_never_leave_it(side):
    length, tile, fraction = side
    found = offsets(length, tile, shared(tile, fraction, 2))
    covered = np.zeros(max(length, tile), np.int64)
    for first in found:
        covered[first : first + tile] += 1
    assert (covered > 0).all()
    assert found[-1] == max(0, length - tile)
    assert list(found) == sorted(set(found))


@pytest.mark.parametrize("overlap", [0, 1, 2, 4])
def test_the_weights_of_neighbours_add_up_to_one(overlap):
    weights = ramp(8, overlap)
    if overlap:
        np.testing.assert_allclose(weights[-overlap:] + weights[:overlap], 1, atol=1e-6)
    assert (weights > 0).all() and (weights[overlap : 8 - overlap] == 1).all()


@given(SIDES)
def test_a_strip_is_done_when_its_rows_of_tiles_are(side):
    length, tile, fraction = side
    overlap = shared(tile, fraction, 2)
    tiling = Tiling(length, length, (tile, tile), (overlap, overlap))
    rows = []
    for number, (top, bottom) in enumerate(tiling.strips):
        rows += range(top, bottom)
        over = [n for n, first in enumerate(tiling.tops) if first < bottom and first + tile > top]
        assert over[-1] == number and over[0] == tiling.first_of(number)
    assert rows == list(range(length))


def test_runs_of_strips_have_no_gap_and_suit_the_ranks():
    runs = cut([0, 1, 2, 3, 7, 8, 9, 10, 11, 12], 2)
    assert [n for run in runs for n in run] == [0, 1, 2, 3, 7, 8, 9, 10, 11, 12]
    assert all(run == list(range(run[0], run[-1] + 1)) for run in runs)
    assert max(map(len, runs)) == 2
