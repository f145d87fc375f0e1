"""What is chosen: by validation alone, written down, the same bits on any number of ranks."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hpcgeo.errors import InputError
from hpcgeo.evaluate.protocols.choice import Chosen, Tried, _best, choose, scored
from hpcgeo.evaluate.protocols.dense import DenseKNN
from hpcgeo.evaluate.protocols.lars import MaeLinear
from hpcgeo.evaluate.protocols.linear import Linear
from hpcgeo.evaluate.protocols.neighbours import KNN
from hpcgeo.evaluate.protocols.protocol import Described
from hpcgeo.evaluate.protocols.table import PROTOCOLS, protocol_of
from hpcgeo.kinds.table import KINDS
from tests.distributed import Ranks
from tests.evaluate.protocols.features import chips, classes, numbers, split, target

RATES = [{"lr": lr, "weight_decay": 0.0} for lr in (1.0, 3.0, 10.0, 30.0)]
CLASSES, NUMBERS = target("classification", 3), target("regression", 2)


def halves(vectors, truth) -> tuple[Described, Described]:
    middle = len(vectors) // 2
    return split(vectors[:middle], truth[:middle]), split(vectors[middle:], truth[middle:])


def candidates(make=classes, outputs: int = 3):
    """Return features of three candidates: of rising quality."""
    vectors, truth = make(160, 10, outputs)
    noise = np.random.default_rng(1).normal(size=vectors.shape).astype(np.float32)
    return {
        f"block {block}, mean": halves(vectors + scale * noise, truth)
        for block, scale in ((3, 5), (6, 2), (9, 0))
    }


def test_the_best_of_candidates_and_settings_is_taken():
    found = choose(KNN(), candidates(), CLASSES)
    assert found.best.candidate == "block 9, mean"
    assert len(found.tried) == 3 * len(KNN().settings(CLASSES, 80))
    assert found.best.validation == max(one.validation for one in found.tried)
    # A number whose error is small is chosen by the lowest.
    lowest = choose(Linear(), candidates(numbers, 2), NUMBERS, metric="rmse")
    assert lowest.best.validation == min(one.validation for one in lowest.tried)


def test_the_choice_is_scored_as_it_is_written_down():
    every = candidates()
    found = choose(KNN(), every, CLASSES, refit=False)
    train, validation = every[found.best.candidate]
    (state,) = scored(found.model, validation, CLASSES, "accuracy", rows=17)
    assert state.compute()[0] == found.best.validation
    again = KNN().fit(train, CLASSES, [found.best.setting], 0)
    asked = torch.from_numpy(validation.vectors)
    assert torch.equal(again.answers(asked), found.model.answers(asked))


def test_a_model_is_fitted_again_to_both_splits():
    vectors, truth = classes(160, 10, 3)
    every = {"all": halves(vectors, truth)}
    found = choose(Linear(), every, CLASSES)
    wanted = Linear().fit(split(vectors, truth), CLASSES, [found.best.setting], 0)
    asked = torch.from_numpy(vectors)
    assert found.refitted and torch.equal(found.model.answers(asked), wanted.answers(asked))


def test_features_may_be_a_read_only_file(tmp_path):
    every = candidates()
    wanted = choose(Linear(), every, CLASSES)
    mapped = {}
    for name, parts in every.items():
        for number, part in enumerate(parts):
            np.save(tmp_path / f"{name} {number}.npy", part.vectors)
        mapped[name] = tuple(
            Described(np.load(tmp_path / f"{name} {n}.npy", mmap_mode="r"), p.truth, p.clusters)
            for n, p in enumerate(parts)
        )
    found = choose(Linear(), mapped, CLASSES)
    assert found.tried == wanted.tried


def test_what_is_refused():
    every = candidates()
    with pytest.raises(InputError, match=r"kNN on patches.*none for classification; choose"):
        choose(DenseKNN(), every, CLASSES)
    train, validation = every["block 9, mean"]
    with pytest.raises(InputError, match=r"a: a split without samples"):
        choose(KNN(), {"a": (train, split(np.zeros((0, 10)), np.zeros(0, int)))}, CLASSES)
    narrow = split(validation.vectors[:, :4], validation.truth)
    with pytest.raises(
        InputError, match=r"a: features \(10,\) and, of the validation split, \(4,\)"
    ):
        choose(KNN(), {"a": (train, narrow)}, CLASSES)
    one = split(validation.vectors, np.zeros(80, int))
    with pytest.raises(InputError, match=r"auroc is not defined on the validation split"):
        choose(KNN(), {"a": (train, one)}, CLASSES, metric="auroc")
    with pytest.raises(InputError, match=r"setting \{'c': 1\}: logistic or ridge .*: name C"):
        choose(Linear(), every, CLASSES, settings=[{"c": 1}])
    with pytest.raises(InputError, match=r"unknown protocol 'knnn' .*did you mean 'knn'.*add"):
        protocol_of("knnn")


def test_a_protocol_is_for_what_it_reads() -> None:
    """Grids are of pixels with classes at one date, vectors and tokens of whole samples."""
    suiting = {
        name: {kind for kind, one in KINDS.items() if row.suits(one)}
        for name, row in PROTOCOLS.items()
    }
    samples, pixels = {"classification", "multilabel", "regression"}, {"segmentation"}
    assert suiting == {
        **dict.fromkeys(["knn", "linear", "mae_linear", "attentive"], samples),
        **dict.fromkeys(["dense_linear", "dense_knn"], pixels),
    }


OUTSIDE = """
from sklearn.naive_bayes import GaussianNB

def bayes(target, seed):
    return GaussianNB()
"""


def test_an_estimator_of_another_package_is_a_protocol(tmp_path, monkeypatch):
    (tmp_path / "outside_bayes.py").write_text(OUTSIDE)
    facts = tmp_path / "outside_bayes-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-bayes\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[hpcgeo.probes]\nbayes = outside_bayes:bayes\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = choose(protocol_of("bayes"), candidates(), CLASSES, refit=False)
    from sklearn.naive_bayes import GaussianNB

    train, validation = candidates()[found.best.candidate]
    model = GaussianNB().fit(train.vectors, train.truth)
    assert found.best.validation == model.score(validation.vectors, validation.truth)


def on_this_rank(alone: bool) -> list[tuple[Chosen, torch.Tensor, list[float]]]:
    """Choose with several protocols, on candidates and on one; return choices and answers."""
    group = None if alone else dist.group.WORLD
    cs, alphas = ([{name: value} for value in (0.01, 1, 100, 0.1)] for name in ("C", "alpha"))
    tasks = [
        (KNN(), candidates(), CLASSES, ()),
        (Linear(), candidates(), CLASSES, cs),
        (Linear(), candidates(numbers, 2), NUMBERS, alphas),
        (MaeLinear(epochs=3, warm_up=1), candidates(), CLASSES, RATES),
        (KNN(), {"one": candidates(numbers, 2)["block 9, mean"]}, NUMBERS, ()),
        (DenseKNN(), {"patches": halves(*chips(24, 3))}, target("segmentation", 3), ()),
    ]
    found = []
    for protocol, every, kind, settings in tasks:
        protocol.rows = min(protocol.rows, 16)
        protocol.at_once = 3
        chosen = choose(protocol, every, kind, settings=settings, group=group)
        _, part = every[chosen.best.candidate]
        (state,) = scored(
            chosen.model,
            part,
            kind,
            "r2" if kind is NUMBERS else "accuracy",
            rows=16,
            resamples=5,
            group=group,
        )
        answers = chosen.model.answers(torch.from_numpy(part.vectors))
        found.append(
            (chosen.tried, chosen.best, answers.tolist(), np.append(*state.compute()).tolist())
        )
    return found


def refused(group: object = None) -> str:
    """Return what every rank says where one candidate cannot be fitted to."""
    train, validation = candidates()["block 9, mean"]
    lone = split(train.vectors, np.ones(80, int))
    every = {"good": (train, validation), "lone": (lone, validation), "fine": (train, validation)}
    try:
        choose(Linear(), every, CLASSES, group=dist.group.WORLD)
    except InputError as error:
        return f"{error.shared} {error}"
    return "nothing"


@pytest.fixture(scope="module")
def wanted():
    return on_this_rank(alone=True)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_ranks_chooses_the_same_bits(count, wanted):
    with Ranks(count) as ranks:
        for found in ranks(partial(on_this_rank, alone=False)):
            assert found == wanted
        assert all(answer.startswith("True all samples") for answer in ranks(refused))


def test_of_equal_settings_the_middle_one_is_taken():
    tried = [
        Tried(candidate, {"C": c}, value)
        for candidate, values in (("block 3", (0.5, 1, 0.2)), ("block 9", (0.8, 1, 1, 1, 0.9)))
        for c, value in enumerate(values)
    ]
    assert _best(tried, "accuracy") == Tried("block 9", {"C": 2}, 1)
    errors = [Tried(one.candidate, one.setting, 1 - one.validation) for one in tried]
    assert _best(errors, "rmse").setting == {"C": 2}
