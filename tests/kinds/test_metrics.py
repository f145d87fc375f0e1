"""Metrics against hand-computed cases, scikit-learn, and any split of the samples."""

import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgeo.errors import InputError
from hpcgeo.kinds.metrics import metric_of, metrics, start, suiting
from hpcgeo.kinds.table import KINDS, kind_of
from hpcgeo.kinds.target import IGNORED, Target


def of(kind, num_outputs, **moments) -> Target:
    return Target(kind, tuple(f"output {number}" for number in range(num_outputs)), **moments)


def drawn(target: Target, seed: int, count: int = 40):
    """Return answers of a head, and truths of a task that are somewhat alike."""
    rng = np.random.default_rng(seed)
    k = len(target.names)
    kind = kind_of(target)
    if kind.standardised:
        truth = rng.normal(size=(count, k)).astype(np.float32)
        answers = truth + rng.normal(size=(count, k)).astype(np.float32)
    elif target.kind == "multilabel":
        truth = rng.integers(0, 2, (count, k)).astype(np.float32)
        answers = truth - 0.5 + rng.normal(size=(count, k)).astype(np.float32)
    else:
        shape = (count, 5, 3) if kind.dense else (count,)
        truth = rng.integers(0, k, shape)
        answers = np.moveaxis(np.eye(k, dtype=np.float32)[truth], -1, 1)
        answers = answers + rng.normal(size=answers.shape).astype(np.float32)
    return torch.from_numpy(answers), truth


def clusters(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def value(name: str, target: Target, answers, truth, resamples: int = 0):
    """Return a metric of answers, or of decisions where they are integers."""
    state = start(name, target, resamples)
    answers = torch.as_tensor(answers)
    if not answers.is_floating_point():
        k = len(target.names)
        one_hot = torch.nn.functional.one_hot(answers, k).movedim(-1, 1).float()
        answers = answers - 0.5 if target.kind == "multilabel" else one_hot
    state.update(clusters(len(truth)), answers, np.asarray(truth))
    found, resampled = state.compute()
    return (found, resampled) if resamples else found


TARGETS = [
    of("classification", 4),
    of("classification", 9),
    of("classification", 2),
    of("multilabel", 3),
    of("regression", 2, mean=(5.0, 6.0), std=(2.0, 0.5)),
    of("segmentation", 5),
    of("change", 2),
]


def test_two_classes_by_hand():
    """3 hits, 1 false alarm, 2 misses, 4 rightly let go; a pixel without label does not count."""
    truth = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0, IGNORED])[None, :, None]
    decided = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1])[None, :, None]
    target = of("segmentation", 2)
    assert value("accuracy", target, decided, truth) == pytest.approx(7 / 10)
    assert value("f1", target, decided, truth) == pytest.approx(6 / 9)
    assert value("dice", target, decided, truth) == pytest.approx(6 / 9)
    assert value("iou", target, decided, truth) == pytest.approx(3 / 6)


def test_three_classes_by_hand():
    """Class 2 is neither there nor predicted: it has no F1, and none of 0."""
    target = of("classification", 3)
    decided, truth = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert value("accuracy", target, decided, truth) == pytest.approx(3 / 4)
    assert value("f1", target, decided, truth) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_numbers_by_hand():
    target = of("regression", 1, mean=(100.0,), std=(10.0,))
    truth = np.array([[1.0], [2.0], [3.0], [np.nan]])
    predicted = np.array([[2.0], [2.0], [5.0], [99.0]])
    assert value("rmse", target, predicted, truth) == pytest.approx(10 * (5 / 3) ** 0.5)
    assert value("mae", target, predicted, truth) == pytest.approx(10 * 3 / 3)
    assert value("r2", target, predicted, truth) == pytest.approx(1 - 5 / 2)
    assert value("pearson_r2", target, predicted, truth) == pytest.approx(3**2 / (2 * 6))


def test_agreement_by_hand():
    """Three classes, confusion [[2, 1, 0], [0, 3, 0], [1, 0, 1]]; a label unknown."""
    target = of("classification", 3)
    truth = np.array([0, 0, 0, 1, 1, 1, 2, 2, IGNORED])
    decided = np.array([0, 0, 1, 1, 1, 1, 0, 2, 2])
    assert value("balanced_accuracy", target, decided, truth) == pytest.approx(
        (2 / 3 + 1 + 1 / 2) / 3
    )
    chance = (3 * 3 + 3 * 4 + 2 * 1) / 64
    assert value("kappa", target, decided, truth) == pytest.approx((6 / 8 - chance) / (1 - chance))
    assert value("mean_iou", target, decided, truth) == pytest.approx((2 / 4 + 3 / 4 + 1 / 2) / 3)


def test_the_true_class_among_five_by_hand():
    """Of seven classes the true one is first, fifth, sixth; of equal ones the earlier is first."""
    target, truth = of("classification", 7), np.array([0, 4, 5, 4, 5, IGNORED])
    falling = torch.arange(7, 0, -1.0).repeat(6, 1)
    falling[3:] = 0
    assert value("top5_accuracy", target, falling, truth) == pytest.approx(3 / 5)


def test_several_labels_by_hand():
    target = of("multilabel", 2)
    truth = np.array([[1, 0], [1, 1], [0, 0]])
    assert value("f1", target, np.array([[1, 1], [0, 1], [0, 0]]), truth) == pytest.approx(2 / 3)
    decided = np.array([[1, 1], [0, 1], [0, 0]])  # 2 hits, 1 false alarm, 1 miss
    assert value("micro_f1", target, decided, truth) == pytest.approx(4 / 6)
    answers = torch.tensor([[4.0, 3.0], [1.0, 2.0], [0.0, 0.5]])  # hit, alarm, hit, hit, ...
    assert value("micro_average_precision", target, answers, truth) == pytest.approx(
        (1 + 2 / 3 + 3 / 4) / 3
    )


def test_ranking_by_hand():
    """Of two classes: 1 is ranked above 0 in 3 pairs of 4; precisions 1 and 2/3 at its recalls."""
    target, truth = of("classification", 2), np.array([1, 0, 1, 0])
    answers = torch.tensor([[0.0, 4.0], [0.0, 3.0], [0.0, 2.0], [0.0, 1.0]])
    assert value("auroc", target, answers, truth) == pytest.approx(3 / 4)
    assert value("average_precision", target, answers, truth) == pytest.approx((1 + 2 / 3) / 2)


def expected(target: Target, answers, truth) -> dict[str, float]:
    """Return what scikit-learn makes of answers."""
    decided = kind_of(target).decide(answers).numpy()
    if target.kind == "regression":
        mean, std = np.array(target.mean), np.array(target.std)
        y, p = truth * std + mean, decided * std + mean
        r = [np.corrcoef(y[:, k], p[:, k])[0, 1] for k in range(2)]
        return {
            "r2": sklearn.metrics.r2_score(y, p),
            "rmse": sklearn.metrics.root_mean_squared_error(y, p),
            "mae": sklearn.metrics.mean_absolute_error(y, p),
            "pearson_r2": np.square(r).mean(),
        }
    pair, two = (truth, decided), len(target.names) == 2
    if target.kind != "multilabel":
        pair = truth.ravel(), decided.ravel()
    average = "binary" if two and target.kind != "multilabel" else "macro"
    found = {"f1": sklearn.metrics.f1_score(*pair, average=average)}
    found["dice"] = found["f1"]
    found["iou"] = sklearn.metrics.jaccard_score(*pair, average=average)
    if target.kind != "multilabel":
        found["accuracy"] = sklearn.metrics.accuracy_score(*pair)
        found["balanced_accuracy"] = sklearn.metrics.balanced_accuracy_score(*pair)
        found["kappa"] = sklearn.metrics.cohen_kappa_score(*pair)
        found["mean_iou"] = sklearn.metrics.jaccard_score(*pair, average="macro")
    else:
        found["micro_f1"] = sklearn.metrics.f1_score(*pair, average="micro")
        scores = kind_of(target).scores(answers).numpy()
        found["micro_average_precision"] = sklearn.metrics.average_precision_score(
            truth, scores, average="micro"
        )
    if target.kind == "classification":
        found["top5_accuracy"] = 1.0  # of fewer than five classes
        if len(target.names) > 5:
            found["top5_accuracy"] = sklearn.metrics.top_k_accuracy_score(
                truth, answers.numpy(), k=5, labels=range(len(target.names))
            )
    if target.kind in ("classification", "multilabel"):
        scores = kind_of(target).scores(answers).numpy()
        if target.kind == "classification":
            truth, scores = (
                (truth, scores[:, 1]) if two else (np.eye(len(target.names))[truth], scores)
            )
        found["auroc"] = sklearn.metrics.roc_auc_score(truth, scores, average="macro")
        precision = sklearn.metrics.average_precision_score(truth, scores, average="macro")
        found["average_precision"] = precision
    return found


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_agrees(seed):
    for target in TARGETS:
        answers, truth = drawn(target, seed)
        found = {name: value(name, target, answers, truth) for name in suiting(kind_of(target))}
        assert found == pytest.approx(expected(target, answers, truth), abs=1e-6)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.integers(1, 12),
    num_samples=st.integers(2, 60),
    name=st.sampled_from(["auroc", "average_precision"]),
)
def test_weights_and_ties_rank_as_in_scikit_learn(seed, levels, num_samples, name):
    """Scores of few levels tie; a resample weighs each sample."""
    rng = np.random.default_rng(seed)
    scores, is_so = rng.integers(0, levels, num_samples) / levels, rng.random(num_samples) < 0.5
    weights = rng.poisson(1.0, (7, num_samples)).astype(float)
    (found,) = metrics()[name].of.values()
    oracle = {
        "auroc": sklearn.metrics.roc_auc_score,
        "average_precision": sklearn.metrics.average_precision_score,
    }[name]
    for each, weight in zip(found(scores, is_so, weights), weights, strict=True):
        kept = weight > 0
        both = {*is_so[kept].tolist()} == {True, False}
        if (not both and name == "auroc") or not is_so[kept].any():
            assert np.isnan(each)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = oracle(is_so[kept], scores[kept], sample_weight=weight[kept])
        assert each == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=60)
@given(
    target=st.sampled_from(TARGETS),
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_states_of_ranks_merge(target, seed, cuts):
    answers, truth = drawn(target, seed)
    for name in suiting(kind_of(target)):
        whole, wanted = value(name, target, answers, truth, resamples=5)
        merged = start(name, target, 5)
        for rows in np.split(np.arange(40), sorted(cuts)):
            part = start(name, target, 5)
            if len(rows):
                part.update([str(row) for row in rows], answers[rows], truth[rows])
            merged.merge(part)
        found, resampled = merged.compute()
        assert found == pytest.approx(whole, rel=1e-9)
        assert resampled == pytest.approx(wanted, rel=1e-9, nan_ok=True)


def test_no_samples_give_no_number():
    for target in TARGETS:
        for name in suiting(kind_of(target)):
            found, resampled = start(name, target, 3).compute()
            assert np.isnan(found) and np.isnan(resampled).all() and len(resampled) == 3
    constant, tenths = of("regression", 1), np.full((3, 1), 0.1)
    assert value("rmse", constant, tenths, tenths) == 0
    assert np.isnan(value("r2", constant, tenths, tenths))
    assert np.isnan(value("pearson_r2", constant, tenths, tenths))
    assert np.isnan(value("auroc", of("classification", 2), np.array([1, 0]), np.array([1, 1])))


def test_what_is_better_is_said_and_every_kind_has_a_metric():
    lower = [name for name, metric in metrics().items() if metric.better == "lower"]
    assert lower == ["rmse", "mae", "masked_mse"]
    for name, kind in KINDS.items():
        assert suiting(kind)[0] == kind.metric == metric_of(None, Target(name, ("one",)))


def test_what_is_refused():
    target = of("regression", 1)
    with pytest.raises(InputError, match="rmse"):
        start("rsme", target)
    with pytest.raises(InputError, match="metric f1 is none of regression: choose one of r2, pear"):
        start("f1", target)
    with pytest.raises(InputError, match=r"kind of task 'detection'; known: classification, .*add"):
        start("f1", of("detection", 1))


BIAS = """
from hpcgeo.kinds.metrics import Metric
from hpcgeo.kinds.states import Moments

def mean_bias(sums, target):
    n, y, p, *_ = sums.reshape(7, -1)
    return abs((p - y) / n).mean()

bias = Metric("lower", {Moments: mean_bias})
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
    found = value("bias", target, np.array([[2.0], [4.0]]), np.array([[1.0], [3.0]]))
    assert found == pytest.approx(1)
    assert metrics()["bias"].better == "lower" and "rmse" in metrics()


def test_a_metric_that_cannot_be_imported_is_named(outside):
    outside("outside_bias:gone")
    with pytest.raises(InputError, match=r"entry point 'bias' of hpcgeo.metrics: .*uninstall"):
        metrics()
