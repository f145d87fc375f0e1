"""Metrics against hand-computed cases, scikit-learn, and any split of the samples."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgeo.data.sample import IGNORED, Target
from hpcgeo.errors import InputError
from hpcgeo.kinds.metrics import default_metric, metrics, size, sums, value


def of(kind, num_outputs, **moments) -> Target:
    return Target(kind, tuple(f"output {number}" for number in range(num_outputs)), **moments)


def drawn(target: Target, seed: int, count: int = 40):
    """Return predictions and truths of a task that are somewhat alike."""
    rng = np.random.default_rng(seed)
    k = len(target.names)
    if target.kind == "regression":
        truth = rng.normal(size=(count, k))
        return (truth + rng.normal(size=(count, k))).astype(np.float32), truth.astype(np.float32)
    if target.kind == "multilabel":
        truth = rng.integers(0, 2, (count, k))
        return np.where(rng.random((count, k)) < 0.7, truth, 1 - truth), truth.astype(np.float32)
    shape = (count,) if target.kind == "classification" else (count, 5, 3)
    truth = rng.integers(0, k, shape)
    return np.where(rng.random(shape) < 0.6, truth, rng.integers(0, k, shape)), truth


TARGETS = [
    of("classification", 4),
    of("classification", 2),
    of("multilabel", 3),
    of("regression", 2, mean=(5.0, 6.0), std=(2.0, 0.5)),
    of("segmentation", 5),
    of("change", 2),
]


def test_two_classes_by_hand():
    """3 hits, 1 false alarm, 2 misses, 4 rightly let go; a pixel without label does not count."""
    truth = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0, IGNORED])
    prediction = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    target = of("segmentation", 2)
    found = sums(prediction[None, :, None], truth[None, :, None], target)
    assert found.tolist() == [4, 1, 2, 3]
    assert value("accuracy", found, target) == pytest.approx(7 / 10)
    assert value("f1", found, target) == pytest.approx(6 / 9)
    assert value("dice", found, target) == pytest.approx(6 / 9)
    assert value("iou", found, target) == pytest.approx(3 / 6)


def test_three_classes_by_hand():
    """Class 2 is neither there nor predicted: it has no F1, and none of 0."""
    target = of("classification", 3)
    found = sums(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), target)
    assert value("accuracy", found, target) == pytest.approx(3 / 4)
    assert value("f1", found, target) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_numbers_by_hand():
    target = of("regression", 1, mean=(100.0,), std=(10.0,))
    truth = np.array([[1.0], [2.0], [3.0], [np.nan]])
    found = sums(np.array([[2.0], [2.0], [5.0], [99.0]]), truth, target)
    assert found.tolist() == [3, 6, 9, 14, 33, 21, 3]
    assert value("rmse", found, target) == pytest.approx(10 * (5 / 3) ** 0.5)
    assert value("mae", found, target) == pytest.approx(10 * 3 / 3)
    assert value("r2", found, target) == pytest.approx(1 - 5 / 2)
    assert value("pearson_r2", found, target) == pytest.approx(3**2 / (2 * 6))


def test_several_labels_by_hand():
    target = of("multilabel", 2)
    truth = np.array([[1, 0], [1, 1], [0, 0]])
    found = sums(np.array([[1, 1], [0, 1], [0, 0]]), truth, target)
    assert value("f1", found, target) == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_agrees(seed):
    for target in TARGETS:
        prediction, truth = drawn(target, seed)
        found = {
            name: value(name, sums(prediction, truth, target), target)
            for name, metric in metrics().items()
            if target.kind in metric.kinds
        }
        if target.kind == "regression":
            mean, std = np.array(target.mean), np.array(target.std)
            y, p = truth * std + mean, prediction * std + mean
            r = [np.corrcoef(y[:, k], p[:, k])[0, 1] for k in range(2)]
            wanted = {
                "r2": sklearn.metrics.r2_score(y, p),
                "rmse": sklearn.metrics.root_mean_squared_error(y, p),
                "mae": sklearn.metrics.mean_absolute_error(y, p),
                "pearson_r2": np.square(r).mean(),
            }
        elif target.kind == "multilabel":
            wanted = {"f1": sklearn.metrics.f1_score(truth, prediction, average="macro")}
        else:
            pair = truth.ravel(), prediction.ravel()
            average = "binary" if len(target.names) == 2 else "macro"
            wanted = {
                "accuracy": sklearn.metrics.accuracy_score(*pair),
                "f1": sklearn.metrics.f1_score(*pair, average=average),
            }
            if target.kind != "classification":
                wanted["dice"] = wanted["f1"]
                wanted["iou"] = sklearn.metrics.jaccard_score(*pair, average=average)
        assert found == pytest.approx(wanted, abs=1e-6)


@settings(max_examples=60)
@given(
    target=st.sampled_from(TARGETS),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_sums_of_ranks_add_up(target, seed, cuts):
    prediction, truth = drawn(target, seed)
    whole = sums(prediction, truth, target)
    parts = np.zeros(size(target))
    for p, y in zip(np.split(prediction, sorted(cuts)), np.split(truth, sorted(cuts)), strict=True):
        parts += sums(p, y, target)
    assert parts == pytest.approx(whole, rel=1e-12, abs=1e-9)


def test_no_samples_give_no_number():
    for target in TARGETS:
        for name, metric in metrics().items():
            if target.kind in metric.kinds:
                assert np.isnan(value(name, np.zeros(size(target)), target))
    constant, tenths = of("regression", 1), np.full((3, 1), 0.1)
    same = sums(tenths, tenths, constant)
    assert value("rmse", same, constant) == 0
    assert np.isnan(value("r2", same, constant)) and np.isnan(value("pearson_r2", same, constant))


def test_what_is_better_is_said_and_every_kind_has_a_metric():
    lower = [name for name, metric in metrics().items() if metric.better == "lower"]
    assert lower == ["rmse", "mae", "masked_mse"]
    for target in TARGETS:
        assert target.kind in metrics()[default_metric(target.kind)].kinds


def test_what_is_refused():
    target = of("regression", 1)
    with pytest.raises(InputError, match="rmse"):
        value("rsme", np.zeros(7), target)
    with pytest.raises(InputError, match="'f1' is none of regression: r2, pearson_r2, rmse"):
        value("f1", np.zeros(7), target)


BIAS = """
from hpcgeo.kinds.metrics import Metric

def mean_bias(sums, target):
    n, y, p, *_ = sums.reshape(7, -1)
    return abs((p - y) / n).mean()

bias = Metric("lower", ("regression",), mean_bias)
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Install a package that names an entry point of `hpcgeo.metrics`."""

    def install(point: str) -> None:
        (tmp_path / "outside_bias.py").write_text(BIAS)
        facts = tmp_path / "outside_bias-1.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-bias\nVersion: 1\n")
        (facts / "entry_points.txt").write_text(f"[hpcgeo.metrics]\nbias = {point}\n")
        monkeypatch.syspath_prepend(tmp_path)
        metrics.cache_clear()

    yield install
    metrics.cache_clear()


def test_another_package_adds_a_metric(outside):
    outside("outside_bias:bias")
    target = of("regression", 1)
    found = sums(np.array([[2.0], [4.0]]), np.array([[1.0], [3.0]]), target)
    assert value("bias", found, target) == pytest.approx(1)
    assert metrics()["bias"].better == "lower" and "rmse" in metrics()


def test_a_metric_that_cannot_be_imported_is_named(outside):
    outside("outside_bias:gone")
    with pytest.raises(InputError, match=r"entry point 'bias' of hpcgeo.metrics: .*uninstall"):
        metrics()
