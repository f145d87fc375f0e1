"""Random crops: pixels, gaps and labels of pixels move together, and metres with them."""

import numpy as np
import pytest

from hpcgeo.data.crops import cropped, refuse_crop
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.errors import InputError
from tests.mixed import drawn

BLUE = (Channel("rgb", "B"),)


def ramp(size: int) -> Observation:
    """Return an image whose values say where they lie, down and right."""
    down, right = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    values = ((down + 0.5) / size + 10 * (right + 0.5) / size).astype(np.float32)
    return Observation(BLUE, np.stack([values] * 2)[:, None], np.zeros((2, 2)), 10.0, 4)


def sample(size: int = 32) -> Sample:
    labels = np.add.outer(np.arange(size) // 4, 100 * (np.arange(size) // 4))
    return Sample((ramp(size),), labels, dense=True)


def test_a_whole_crop_is_the_sample() -> None:
    found = cropped(sample(), (1.0, 1.0), np.array([0.3, 0.3, 0.3]))
    assert np.array_equal(found.observations[0].values, ramp(32).values)
    assert np.array_equal(found.target, sample().target)
    assert found.observations[0].gsd_m == 10


def test_it_covers_the_part_that_was_drawn() -> None:
    found = cropped(sample(), (0.25, 0.25), np.array([0.0, 1.0, 0.5]))  # bottom, middle
    seen = found.observations[0]
    assert seen.values.shape == (2, 1, 32, 32) and seen.values.dtype == np.float32
    assert seen.gsd_m == 5
    assert seen.values[0, 0, 15:17, 15:17].mean() == pytest.approx(0.75 + 10 * 0.5, abs=0.01)
    assert found.target[0, 0] == 4 + 100 * 2 and found.target[-1, -1] == 7 + 100 * 5


def test_two_sizes_of_one_frame_stay_on_it() -> None:
    both = Sample((ramp(32), ramp(16)), np.array(0))
    fine, coarse = cropped(both, (0.25, 0.25), np.array([0.0, 0.5, 0.25])).observations
    assert fine.values.mean() == pytest.approx(coarse.values.mean(), abs=0.3)
    assert fine.values.shape[-1] == 32 and coarse.values.shape[-1] == 16


def test_what_is_missing_stays_missing() -> None:
    one = sample()
    one.observations[0].values[..., 16:, :] = np.nan
    values = cropped(one, (0.25, 0.25), np.array([0.0, 0.5, 0.5])).observations[0].values
    assert np.isfinite(values[..., :16, :]).all() and np.isnan(values[..., 16:, :]).all()


def test_vectors_are_refused_and_left_alone() -> None:
    (one,) = drawn("table")
    found = cropped(one.sample, (0.2, 0.5), np.array([0.1, 0.1, 0.1]))
    assert found.observations[0] is one.sample.observations[0]
    with pytest.raises(InputError, match=r"data\.tasks\.table\.crop has no effect"):
        refuse_crop("table", one.sample)
