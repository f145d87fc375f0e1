"""Logistic and ridge regressions against scikit-learn's, on the same features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from hpcgeo.errors import InputError
from hpcgeo.evaluate.protocols.linear import Linear, Logistic, Ridge
from hpcgeo.evaluate.protocols.principal import Standard, axes
from hpcgeo.kinds.target import IGNORED
from tests.evaluate.protocols.features import classes, labels, numbers, split, target

CS = (1e-4, 1e-2, 1.0, 100.0)
EXACT = Logistic(torch.float64, tolerance=1e-9)


def standard(vectors):
    return StandardScaler().fit_transform(vectors.astype(np.float64))


def peer(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, tol=1e-10, max_iter=20000)


def strengths(*values: float) -> list[dict[str, float]]:
    return [{"C": c} for c in values]


@pytest.mark.parametrize(("size", "width", "count"), [(400, 30, 4), (400, 30, 2), (40, 60, 3)])
def test_logistic_regressions_are_those_of_scikit_learn(size, width, count):
    """More samples than features, two classes, more features than samples."""
    vectors, truth = classes(size, width, count)
    model = EXACT.fit(split(vectors, truth), target("classification", count), strengths(*CS), 0)
    found = model.answers(torch.from_numpy(vectors)).softmax(-1).numpy()
    features = standard(vectors)
    for number, c in enumerate(CS):
        wanted = peer(c).fit(features, truth)
        weights = model.weights[:, number].numpy().T
        np.testing.assert_allclose(weights[-len(wanted.coef_) :], wanted.coef_, atol=1e-4)
        np.testing.assert_allclose(found[number], wanted.predict_proba(features), atol=1e-5)
        assert (found[number].argmax(1) == wanted.predict(features)).all()


def test_single_precision_decides_as_scikit_learn():
    vectors, truth = classes(600, 40, 5)
    fitted, asked = split(vectors[:400], truth[:400]), vectors[400:]
    model = Logistic(tolerance=1e-6).fit(fitted, target("classification", 5), strengths(*CS), 0)
    scale = StandardScaler().fit(vectors[:400])
    found = model.answers(torch.from_numpy(asked)).softmax(-1).numpy()
    for number, c in enumerate(CS):
        wanted = peer(c).fit(scale.transform(vectors[:400]), truth[:400])
        probability = wanted.predict_proba(scale.transform(asked))
        np.testing.assert_allclose(found[number], probability, atol=0.02)
        score = [(each.argmax(1) == truth[400:]).mean() for each in (found[number], probability)]
        assert score[0] == pytest.approx(score[1], abs=0.011)


def test_each_label_is_a_binary_regression_of_the_samples_where_it_is_known():
    vectors, truth = labels(300, 20, 3)
    truth[:40, 1] = np.nan
    model = EXACT.fit(split(vectors, truth), target("multilabel", 3), strengths(0.01, 1), 0)
    found = model.answers(torch.from_numpy(vectors)).sigmoid().numpy()
    features = standard(vectors)
    for number, c in enumerate((0.01, 1)):
        for k in range(3):
            known = np.isfinite(truth[:, k])
            wanted = peer(c).fit(features[known], truth[known, k])
            probability = wanted.predict_proba(features)[:, 1]
            np.testing.assert_allclose(found[number, :, k], probability, atol=1e-5)


def test_what_is_not_there_is_never_answered():
    vectors, truth = classes(80, 10, 3)
    truth = np.where(truth == 2, 4, truth)
    unknown = np.append(truth, [IGNORED, IGNORED])
    more = np.concatenate([vectors, vectors[:2]])
    kind = target("classification", 5)
    answers = EXACT.fit(split(more, unknown), kind, strengths(1), 0).answers(
        torch.from_numpy(vectors)
    )[0]
    assert torch.isinf(answers[:, [2, 3]]).all() and set(answers.argmax(1).tolist()) <= {0, 1, 4}
    vectors, truth = labels(50, 5, 2)
    truth[:, 1] = 1
    answers = EXACT.fit(split(vectors, truth), target("multilabel", 2), strengths(1), 0).answers(
        torch.from_numpy(vectors)
    )[0]
    assert (answers[:, 1] == torch.inf).all() and torch.isfinite(answers[:, 0]).all()
    with pytest.raises(InputError, match=r"C 0: above 0"):
        EXACT.fit(split(vectors, truth), kind, strengths(1, 0), 0)
    with pytest.raises(InputError, match=r"all samples with a label are output 3: .* two classes"):
        EXACT.fit(split(vectors, np.full(50, 3)), kind, strengths(1), 0)


def test_the_order_of_settings_and_their_company_change_nothing():
    vectors, truth = classes(200, 20, 3)
    part, kind = split(vectors, truth), target("classification", 3)
    together = EXACT.fit(part, kind, strengths(1, 0.001, 0.1, 10, 0.01, 0.3, 3), 0)
    alone = EXACT.fit(part, kind, strengths(0.1), 0)
    np.testing.assert_allclose(together.weights[:, 2], alone.weights[:, 0], atol=1e-6)


@pytest.mark.parametrize(("size", "width"), [(200, 20), (30, 50)])
def test_ridge_regressions_are_those_of_scikit_learn(size, width):
    vectors, truth = numbers(size, width, 3)
    truth[: size // 4, 1] = np.nan
    alphas = (0.1, 10.0, 1e4)
    settings = [{"alpha": alpha} for alpha in alphas]
    model = Ridge().fit(split(vectors, truth), target("regression", 3), settings, 0)
    found = model.answers(torch.from_numpy(vectors)).numpy()
    features = standard(vectors)
    for number, alpha in enumerate(alphas):
        for k in range(3):
            known = np.isfinite(truth[:, k])
            wanted = SklearnRidge(alpha=alpha).fit(features[known], truth[known, k].astype(float))
            np.testing.assert_allclose(model.weights[:, number, k], wanted.coef_, atol=1e-8)
            np.testing.assert_allclose(found[number, :, k], wanted.predict(features), atol=1e-8)


@pytest.mark.parametrize(("size", "width"), [(50, 10), (10, 50)])
def test_features_on_their_axes_are_the_features(size, width):
    features = torch.randn(size, width, dtype=torch.float64, generator=torch.manual_seed(0))
    on = axes(features)
    torch.testing.assert_close(on.turned @ on.basis.T + on.mean, features)
    covariance = on.turned.T @ on.turned / size
    torch.testing.assert_close(covariance, torch.diag(on.variance))
    assert on.turned.shape[1] == min(width, size - (size < width))


def test_moments_are_those_of_scikit_learn(monkeypatch):
    monkeypatch.setattr("hpcgeo.evaluate.protocols.principal.NUMBERS", 7 * 6)
    vectors = np.random.default_rng(0).normal(5, 3, (40, 6)).astype(np.float32)
    vectors[:, 2] = 7.3
    scale, found = (
        StandardScaler().fit(vectors.astype(np.float64)),
        Standard.of(split(vectors, vectors)),
    )
    np.testing.assert_allclose(found.mean, scale.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.deviation, scale.scale_, rtol=1e-9)


def test_a_kind_has_its_regression():
    for kind, name in (("classification", "C"), ("multilabel", "C"), ("regression", "alpha")):
        assert {*Linear().settings(target(kind, 3), 10)[0]} == {name}
