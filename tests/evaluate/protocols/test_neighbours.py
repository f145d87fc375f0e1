"""kNN against scikit-learn's, equal similarities, blocks, labels that are not known."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from hpcgeo.errors import InputError
from hpcgeo.evaluate.protocols import neighbours
from hpcgeo.evaluate.protocols.neighbours import KNN, TEMPERATURE, nearest
from hpcgeo.kinds.target import IGNORED
from tests.evaluate.protocols.features import classes, labels, numbers, split, target

WEIGHTS = {
    "uniform": "uniform",
    "similarity": lambda distance: np.exp((1 - distance) / TEMPERATURE),
}
SETTINGS = [{"k": k, "weights": weights} for weights in WEIGHTS for k in (20, 1, 5)]


def answers(vectors, truth, kind, asked, settings=SETTINGS):
    model = KNN().fit(split(vectors, truth), kind, settings, 0)
    return model.answers(torch.from_numpy(asked))


@pytest.fixture(autouse=True, params=[2**23, 3700])
def blocks(request, monkeypatch):
    """All training rows at once, and in several blocks."""
    monkeypatch.setattr(neighbours, "SIMILARITIES", request.param)


def test_votes_are_those_of_scikit_learn():
    vectors, truth = classes(300, 16, 4, noise=3)
    found = answers(vectors[:200], truth[:200], target("classification", 4), vectors[200:])
    for answer, setting in zip(found, SETTINGS, strict=True):
        peer = KNeighborsClassifier(
            setting["k"], metric="cosine", algorithm="brute", weights=WEIGHTS[setting["weights"]]
        ).fit(vectors[:200].astype(np.float64), truth[:200])
        wanted = peer.predict_proba(vectors[200:].astype(np.float64))
        np.testing.assert_allclose(answer.exp(), wanted, atol=1e-4)
        assert (answer.argmax(1).numpy() == wanted.argmax(1)).all()


def test_labels_and_numbers_are_those_of_scikit_learn():
    for make, kind in ((labels, "multilabel"), (numbers, "regression")):
        vectors, truth = make(300, 16, 3)
        found = answers(vectors[:200], truth[:200], target(kind, 3), vectors[200:])
        for answer, setting in zip(found, SETTINGS, strict=True):
            peer = KNeighborsRegressor(
                setting["k"],
                metric="cosine",
                algorithm="brute",
                weights=WEIGHTS[setting["weights"]],
            ).fit(vectors[:200].astype(np.float64), truth[:200])
            wanted = peer.predict(vectors[200:].astype(np.float64))
            answer = answer.sigmoid() if kind == "multilabel" else answer
            np.testing.assert_allclose(answer, wanted, atol=1e-4)


def test_of_equal_ones_the_lower_row_is_nearer():
    rng = np.random.default_rng(0)
    axes = np.concatenate([np.eye(4), -np.eye(4), np.zeros((2, 4))]).astype(np.float32)
    vectors = axes[rng.integers(0, 10, 90)]  # similarities are exactly -1, 0 and 1
    similar, rows = nearest(torch.from_numpy(axes), split(vectors, np.zeros(90, int)), 90)
    wanted = torch.from_numpy(axes @ vectors.T)
    order = wanted.sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(similar, wanted.gather(1, order)) and torch.equal(rows, order)


def test_labels_that_are_not_known_do_not_vote():
    vectors, truth = classes(60, 8, 3)
    truth[:20] = IGNORED
    kind = target("classification", 3)
    some = answers(vectors[20:], truth[20:], kind, vectors)
    assert torch.equal(answers(vectors, truth, kind, vectors), some)
    with pytest.raises(InputError, match=r"k 41: at least 1, at most the 40 samples that"):
        answers(vectors, truth, kind, vectors, [{"k": 41, "weights": "uniform"}])
    vectors, truth = numbers(60, 8, 2)
    truth[:30, 1] = np.nan
    found = answers(vectors, truth, target("regression", 2), vectors[:5], [SETTINGS[0]])[0]
    _, rows = nearest(torch.from_numpy(vectors[:5]), split(vectors, truth), 20)
    np.testing.assert_allclose(found, np.nanmean(truth[rows.numpy()], axis=1), rtol=1e-6)


def test_k_is_at_most_the_samples_there_are():
    assert [each["k"] for each in KNN().settings(target("classification", 2), 12)] == [1, 5, 10] * 2
