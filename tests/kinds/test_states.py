"""Spreads of metrics: closed forms, samples that share ground, any split over ranks."""

import numpy as np
import pytest
import sklearn.metrics
import torch

from hpcgeo.kinds.metrics import start
from hpcgeo.kinds.states import State, interval
from hpcgeo.kinds.target import Target

CLASSES = Target("classification", ("a", "b"))
NUMBERS = Target("regression", ("y",), mean=(0.0,), std=(1.0,))


def kept(metric, target, clusters, answer, truth, resamples=4000) -> State:
    state = start(metric, target, resamples)
    state.update(clusters, torch.as_tensor(answer), truth)
    return state


def logits(right) -> torch.Tensor:
    """Return answers whose decision is class 1 where they are right."""
    return torch.stack([torch.zeros(len(right)), torch.as_tensor(right) - 0.5], dim=1)


def test_the_spread_of_a_mean_is_its_standard_error():
    right = np.arange(400) % 4 > 0  # 75 %
    names = [f"sample {number}" for number in range(400)]
    state = kept("accuracy", CLASSES, names, logits(right.astype(int)), np.ones(400, int))
    found, resampled = state.compute()
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
        kept("accuracy", CLASSES, names, logits(right), np.ones(800, int)).compute()[1].std()
        for names in (together, apart)
    )
    assert wide / narrow == pytest.approx(4, rel=0.05)


def test_any_split_has_the_same_resamples():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(90, 1))
    prediction = truth + rng.normal(size=(90, 1))
    names = [f"place {number % 30}" for number in range(90)]
    found, resampled = kept("r2", NUMBERS, names, prediction, truth, 20).compute()
    parts = start("r2", NUMBERS, 20)
    for rows in (np.arange(0, 90, 2), np.arange(1, 90, 2)):
        parts.update([names[row] for row in rows], torch.from_numpy(prediction[rows]), truth[rows])
    np.testing.assert_allclose(parts.compute()[1], resampled, rtol=1e-9)
    assert found == pytest.approx(sklearn.metrics.r2_score(truth, prediction))
    assert len(set(resampled)) == 20


def test_a_better_model_is_ahead_on_every_resample():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(40, 1))
    error = rng.normal(size=(40, 1))
    names = [str(number) for number in range(40)]
    one, other = (
        kept("rmse", NUMBERS, names, truth + scale * error, truth, 500).compute()[1]
        for scale in (0.9, 1.0)
    )
    assert (one < other).all() and interval(one)[1] > interval(other)[0]


def test_an_interval_leaves_out_what_is_not_defined():
    assert interval(np.append(np.arange(1001.0), np.nan)) == (25.0, 975.0)


@pytest.mark.parametrize(("places", "is_known"), [(1, False), (2, False), (4, True)])
def test_few_locations_have_no_interval(places, is_known):
    """Of one cluster every resample that is not empty is the same: no width, and no certainty."""
    rng = np.random.default_rng(2)
    truth, names = rng.normal(size=(12, 1)), [f"place {n % places}" for n in range(12)]
    state = kept("rmse", NUMBERS, names, truth + rng.normal(size=(12, 1)), truth, 1000)
    assert np.isfinite(interval(state.compute()[1])).all() == is_known
