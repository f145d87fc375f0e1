"""Spreads of metrics: closed forms, samples that share ground, any split over ranks."""

import numpy as np
import pytest

from hpcgeo.data.sample import Target
from hpcgeo.kinds.bootstrap import Tally, interval
from hpcgeo.kinds.metrics import sums, value

CLASSES = Target("classification", ("a", "b"))
NUMBERS = Target("regression", ("y",), mean=(0.0,), std=(1.0,))


def tallied(target, groups, prediction, truth, resamples=4000) -> Tally:
    tally = Tally(target, resamples)
    tally.add(groups, prediction, truth)
    return tally


def test_the_spread_of_a_mean_is_its_standard_error():
    right = np.arange(400) % 4 > 0  # 75 %
    names = [f"sample {number}" for number in range(400)]
    found, resampled = tallied(CLASSES, names, right.astype(int), np.ones(400, int)).value(
        "accuracy"
    )
    assert found == 0.75
    assert resampled.mean() == pytest.approx(0.75, abs=0.002)
    assert resampled.std() == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.05)
    low, high = interval(resampled)
    assert high - low == pytest.approx(2 * 1.96 * resampled.std(), rel=0.05)


def test_samples_that_share_ground_count_as_one():
    """Sixteen copies of each sample make its score no surer."""
    right = np.repeat(np.arange(50) % 2, 16)
    together = [f"block {number // 16}" for number in range(800)]
    apart = [f"sample {number}" for number in range(800)]
    wide, narrow = (
        tallied(CLASSES, names, right, np.ones(800, int)).value("accuracy")[1].std()
        for names in (together, apart)
    )
    assert wide / narrow == pytest.approx(4, rel=0.05)


def test_any_split_has_the_same_resamples():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(90, 1))
    prediction = truth + rng.normal(size=(90, 1))
    names = [f"place {number % 30}" for number in range(90)]
    whole = tallied(NUMBERS, names, prediction, truth, 20)
    parts = Tally(NUMBERS, 20)
    for rows in (np.arange(0, 90, 2), np.arange(1, 90, 2)):
        parts.add([names[row] for row in rows], prediction[rows], truth[rows])
    np.testing.assert_allclose(parts.sums, whole.sums, rtol=1e-12)
    found, resampled = whole.value("r2")
    assert found == pytest.approx(value("r2", sums(prediction, truth, NUMBERS), NUMBERS))
    assert len(set(resampled)) == 20


def test_a_better_model_is_ahead_on_every_resample():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(40, 1))
    error = rng.normal(size=(40, 1))
    names = [str(number) for number in range(40)]
    one, other = (
        tallied(NUMBERS, names, truth + scale * error, truth, 500).value("rmse")[1]
        for scale in (0.9, 1.0)
    )
    assert (one < other).all() and interval(one)[1] > interval(other)[0]


def test_an_interval_leaves_out_what_is_not_defined():
    assert interval(np.append(np.arange(1001.0), np.nan)) == (25.0, 975.0)
