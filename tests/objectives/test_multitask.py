"""Several tasks at once: the same in every batching, and what is missing is not there."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from hpcgeo.data.sample import Channel, Observation
from hpcgeo.objectives.collate import questions, tokens, whole
from hpcgeo.objectives.multitask import network as module
from hpcgeo.objectives.multitask.network import nearby, surroundings
from hpcgeo.options import Batching
from tests.mixed import (
    KNOWN,
    PADDING,
    PATCHES,
    again,
    answers,
    assert_same,
    drawn,
    inputs,
    learn,
    missing,
    multitask,
    one_by_one,
    raw,
    worst,
)

MODES = ("padding", "dbscan", "bins", "packed")


@pytest.mark.parametrize("mode", MODES)
def test_the_same_loss_and_gradients_as_sample_by_sample(mode):
    objective, some = multitask(balance="uncertainty"), drawn()
    expected = one_by_one(objective, some)
    for max_tokens, more in ((2**17, 0), (600, 1), (120, 0)):
        batching = Batching(mode=mode, max_tokens=max_tokens, max_padding=60)
        assert_same(learn(objective, some, batching, more), expected)


@pytest.mark.parametrize("mode", MODES)
def test_answers_follow_their_samples(mode):
    objective, some = multitask(), drawn()
    batching = Batching(mode=mode, max_padding=60)
    alone = [answers(objective, [one])[0] for one in some]
    order = np.random.default_rng(0).permutation(len(some)).tolist()
    assert worst(answers(objective, some, batching), alone) < 1e-5
    turned = answers(objective, [some[i] for i in order], batching)
    assert worst(turned, [alone[i] for i in order]) < 1e-5
    for a, b in pairwise([one for one in alone if one.shape == alone[1].shape]):
        assert not torch.allclose(a, b, atol=1e-4), "samples do matter"


def with_more_dates(seen):
    """Two dates without anything, one before and one behind the others."""
    gap = missing((1, *seen.values.shape[1:]))
    time = np.concatenate([seen.time[:1] - 9, seen.time, seen.time[-1:] + 9])
    return replace(seen, values=np.concatenate([gap, seen.values, gap]), time=time)


def with_more_bands(seen):
    band = replace(seen, channels=(*seen.channels, replace_band(seen.channels[0])))
    gap = missing((len(seen.values), 1, *seen.values.shape[2:]))
    return replace(band, values=np.concatenate([seen.values, gap], axis=1))


def replace_band(channel):
    other = {"rgb": "R", "sentinel2": "B05", "sentinel1": "HH", "landsat8": "B4"}
    return Channel(channel.sensor, other[channel.sensor], channel.length)


def test_what_is_missing_changes_nothing_at_all():
    objective, some = multitask(), drawn()
    emptied = Observation(
        (Channel("sentinel2", "B08"),), missing((3, 1, 8, 8)), np.zeros((3, 2)), 10.0, 4
    )
    plainly = answers(objective, some)
    for more in (
        lambda one: (*raw(one), emptied),
        lambda one: tuple(map(with_more_dates, raw(one))),
        lambda one: tuple(map(with_more_bands, raw(one))),
    ):
        extended = [again(one, *more(one)) for one in some]
        assert [one.length for one in extended] == [one.length for one in some]
        assert worst(answers(objective, extended), plainly) < 5e-6
        assert_same(learn(objective, extended, PADDING), learn(objective, some, PADDING))


def test_clouds_are_dropped_whatever_lies_there():
    """What is left of a token of which too little is there takes no part either."""
    objective, some = multitask(), drawn("tiles", "scenes")
    clouded = []
    for one in some:
        (seen,) = raw(one)
        values = seen.values.copy()
        values[..., :8, :8] = np.nan
        clouded.append(again(one, replace(seen, values=values)))
    assert [one.length for one in clouded] == [1 + 3 * 12, 1 + 3 * 3]
    found = answers(objective, clouded)
    assert all(part.isfinite().all() for part in found)
    assert worst(found, answers(objective, some)) > 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_harm_nobody(value):
    objective, some = multitask(), drawn()
    broken = []
    for one in some:
        first, *rest = raw(one)
        values = first.values.copy()
        values[0, 0].flat[0] = value
        broken.append(again(one, replace(first, values=values), *rest))
    scalars, gradients = learn(objective, broken, PADDING)
    assert np.isfinite(scalars["loss"])
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_sample_without_any_token_is_still_answered():
    objective, some = multitask(), drawn()
    nothing = [
        again(one, *(replace(o, values=missing(o.values.shape)) for o in raw(one))) for one in some
    ]
    assert {one.length for one in nothing} == {1}
    assert all(answer.isfinite().all() for answer in answers(objective, nothing))
    for mode in MODES:
        batching = Batching(mode=mode)
        together = [*nothing, *some]
        assert_same(learn(objective, together, batching), one_by_one(objective, together))


@pytest.mark.parametrize("local", [True, False])
def test_dense_answers_in_chunks_are_the_whole(monkeypatch, local):
    objective, some = multitask(local=local), drawn("tiles", "pairs", "tiles", "table")
    whole = answers(objective, some)
    assert [tuple(answer.shape) for answer in whole] == [
        (2, 16, 16),
        (2, 16, 16),
        (2, 16, 16),
        (1,),
    ]
    monkeypatch.setattr(module, "CHUNK", 7)
    assert worst(answers(objective, some), whole) < 1e-5


def test_pixels_asked_in_training_are_those_of_the_whole():
    objective, some = multitask(), drawn("tiles", "pairs", "tiles")
    full = answers(objective, some)
    made, grouping = tokens(some, PADDING, KNOWN, whole(some))
    asked = questions(some, grouping, 40, 5)
    for question, answer in zip(asked, objective.predict(made, everywhere(asked)), strict=True):
        assert answer.isfinite().all()
        for row, queries, target in zip(
            question.rows.tolist(), question.queries, question.target, strict=True
        ):
            down, right = (queries * 16).long().T
            assert torch.equal(torch.from_numpy(some[row].sample.target)[down, right], target)
            (alone,), _ = objective._answers(made, [question])
            place = question.rows.tolist().index(row)
            expected = full[row][:, down, right].T
            assert torch.allclose(alone[place], expected, atol=1e-5)


def everywhere(asked):
    return [replace(question, queries=None) for question in asked]


def test_a_local_query_takes_the_token_it_lies_in():
    grid = torch.zeros(1, 1, 3, 4, 6, 5)
    there = torch.ones(1, 1, 3, 4, 6, dtype=torch.bool)
    grid[0, 0, :, 0, 5] = 1  # up, right
    corners = torch.tensor([[[0.01, 0.99], [0.01, 0.01], [0.99, 0.99], [0.99, 0.01]]]).double()
    said = nearby(surroundings(grid, there), corners)[0, :, :10]
    assert torch.allclose(said[0], torch.ones(10))
    assert not said[1:].any()


def test_a_local_query_sees_the_first_and_the_last_date_and_no_missing_token():
    torch.manual_seed(0)
    grid, queries = torch.randn(2, 5, 3, 4, 4, 6), torch.rand(2, 9, 2).double()
    there = torch.ones(2, 5, 3, 4, 4, dtype=torch.bool)
    there[:, 3:], there[0, 0] = False, False
    there[:, :, 1] = False
    said = nearby(surroundings(grid, there), queries)
    for sample, dates in enumerate(([1, 2], [0, 2])):
        own = grid[sample : sample + 1, dates][:, :, [0, 2]]
        everything = torch.ones(own.shape[:-1], dtype=torch.bool)
        expected = nearby(surroundings(own, everything), queries[sample : sample + 1])
        assert torch.allclose(said[sample : sample + 1], expected, atol=1e-6)
    assert not nearby(surroundings(grid, torch.zeros_like(there)), queries)[..., :12].any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("names", [(), ("table",), ("tiles",), ("series", "series")])
def test_every_parameter_has_a_gradient_in_every_pass(mode, names):
    objective = multitask(balance="uncertainty")
    given = inputs(objective, drawn(*names) if names else [], Batching(mode=mode))
    scalars = objective(**given, scale=1.0)
    scalars["loss"].backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert names or not parameter.grad.any(), name
    assert set(scalars) == {"loss"} | {f"{a}/{b}" for a in ("loss", "samples") for b in PATCHES}
    assert names or not any(value.item() for value in scalars.values())


def test_uncertainty_weighs_as_its_closed_form_says():
    """exp(-s) L + s / 2 of each sample, Kendall et al. 2018 with s the logarithm of a variance."""
    objective, some = multitask(balance="uncertainty"), drawn()
    fixed = learn(multitask(), some, PADDING)[0]
    logs = dict(zip(PATCHES, (0.5, -0.3, 1.2, 0.0, -2.0), strict=True))
    objective.log_variance.data.copy_(torch.tensor(list(logs.values())))
    scalars, gradients = learn(objective, some, PADDING)
    total = 0.0
    for number, (name, s) in enumerate(logs.items()):
        mean, share = fixed[f"loss/{name}"], 0.2
        assert scalars[f"samples/{name}"] == pytest.approx(share)
        total += np.exp(-s) * mean + share * s / 2
        gradient = gradients["log_variance"][number].item()
        assert gradient == pytest.approx(-np.exp(-s) * mean + share / 2, abs=1e-5)
    assert scalars["loss"] == pytest.approx(total, abs=1e-5)


def test_there_is_no_seam_at_180_degrees():
    objective, some = multitask(), drawn("tiles", "table", "series")

    def at(longitude):
        return answers(
            objective,
            [replace(o, sample=replace(o.sample, place=(longitude, -17.0))) for o in some],
        )

    assert worst(at(180.0), at(-180.0)) < 1e-6
    assert worst(at(179.9999), at(-179.9999)) < worst(at(179.0), at(-179.0)) / 3
    assert worst(at(0.0), at(-180.0)) > 1e-3


def test_labels_that_are_not_known_do_not_count():
    objective, some = multitask(), drawn("tiles", "table", "pairs")
    unknown = []
    for one in some:
        gone = np.nan if one.task == "table" else -1
        target = np.full_like(one.sample.target, gone)
        unknown.append(replace(one, sample=replace(one.sample, target=target)))
    scalars, gradients = learn(objective, unknown, PADDING)
    assert scalars["loss"] == 0
    assert not any(gradient.any() for gradient in gradients.values())
