"""Masked tokens: what is hidden stays hidden, however it was chosen."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.data.sampling.order import uniform
from hpcgeo.objectives.masked_tokens.network import held
from hpcgeo.objectives.masking import WAYS, hide
from hpcgeo.options import Batching
from tests.mixed import (
    PADDING,
    PATCHES,
    again,
    assert_same,
    drawn,
    inputs,
    masked,
    missing,
    one_by_one,
    raw,
    split,
)

MODES = ("padding", "dbscan", "bins", "packed")
RATIO = 0.75


def at(one, position):
    return replace(one, position=position)


def of_way(way):
    """Return a position at which tokens are hidden in a way."""
    places = np.arange(200)
    found = (uniform(0, places, "way", 1)[:, 0] * len(WAYS)).astype(int)
    return int(places[found == WAYS.index(way)][0])


@pytest.mark.parametrize("mode", MODES)
def test_the_same_loss_and_gradients_as_sample_by_sample(mode):
    objective, some = masked(queries=20), drawn()
    expected = one_by_one(objective, some)
    batching = Batching(mode=mode, max_padding=20)
    everything = range(len(some))
    for parts in (
        [everything],
        [everything[:3], everything[3:], []],
        [everything[::2], everything[1::2]],
    ):
        assert_same(split(objective, some, batching, parts), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", PATCHES)
def test_hidden_values_never_reach_what_is_predicted(task, way):
    objective = masked()
    (one,) = drawn(task)
    one = at(one, of_way(way))
    visible, hidden = hide(one, RATIO, 0)
    before = inputs(objective, [one])
    rng = np.random.default_rng(1)
    for change_hidden in (True, False):
        observations = []
        for seen, masks in zip(
            one.sample.observations, hidden if change_hidden else visible, strict=True
        ):
            where = masks[..., None]
            if seen.values.ndim == 4:
                where = masks.repeat(seen.patch, axis=2).repeat(seen.patch, axis=3)
            noise = rng.normal(0, 5, seen.values.shape).astype(np.float32)
            observations.append(replace(seen, values=np.where(where, noise, seen.values)))
        other = replace(one, sample=replace(one.sample, observations=tuple(observations)))
        after = inputs(objective, [other])
        pairs = zip(objective.predict(**before), objective.predict(**after), strict=True)
        same = [torch.equal(a, b) for a, b in pairs]
        assert all(same) if change_hidden else not any(same)
        assert objective(**after, scale=1.0)["loss"] != objective(**before, scale=1.0)["loss"]


@pytest.mark.parametrize("ratio", [0.25, 0.75, 0.95])
def test_the_ratio_is_kept_and_every_way_occurs(ratio):
    found = Counter()
    for name in ("series", "pairs"):
        (one,) = drawn(name)
        for position in range(60):
            visible, hidden = hide(at(one, position), ratio, 0)
            total = sum(int(kept.sum()) for kept in one.kept)
            assert sum(int(part.sum()) for part in hidden) == int(ratio * total)
            for kept, seen, gone in zip(one.kept, visible, hidden, strict=True):
                assert np.array_equal(seen | gone, kept) and not (seen & gone).any()
            way = WAYS[int(uniform(0, np.array([position]), "way", 1)[0, 0] * len(WAYS))]
            found[way] += 1
    assert set(found) == set(WAYS)


@pytest.mark.parametrize(
    ("way", "axes"), [("places", (0, 1)), ("dates", (1, 2, 3)), ("bands", (0, 2, 3))]
)
def test_a_way_hides_whole_units(way, axes):
    channels = tuple(Channel("sentinel2", band) for band in ("B02", "B03", "B04", "B08"))
    values = np.random.default_rng(0).normal(size=(8, 4, 32, 32)).astype(np.float32)
    seen = Observation(channels, values, np.zeros((8, 2)), 10.0, 8)
    one = at(plain(Sample((seen,), np.array(0))), of_way(way))
    ((visible,), (hidden,)) = hide(one, 0.5, 0)
    units = hidden.mean(axis=axes).ravel()
    assert sorted(units) == [0] * (len(units) // 2) + [1] * (len(units) // 2)
    assert visible.any()


def test_a_sensor_is_hidden_whole():
    (one,) = drawn("series")
    hidden = hide(at(one, of_way("sensors")), 0.8, 0)[1]
    assert any(part.sum() == kept.sum() for part, kept in zip(hidden, one.kept, strict=True))


def test_what_is_missing_is_neither_seen_nor_asked():
    (one,) = drawn("series")
    nothing = again(one, *(replace(o, values=missing(o.values.shape)) for o in raw(one)))
    visible, hidden = hide(nothing, RATIO, 0)
    assert not any(part.any() for part in (*visible, *hidden))
    objective = masked()
    given = inputs(objective, [nothing, *drawn("tiles")])
    scalars = objective(**given, scale=0.5)
    assert scalars["loss"].isfinite()
    assert [len(question.rows) for question in given["hidden"]] == [1]
    series = at(one, 3)
    for visible_part, hidden_part, kept in zip(*hide(series, RATIO, 0), series.kept, strict=True):
        assert not ((visible_part | hidden_part) & ~kept).any()


@pytest.mark.parametrize("names", [(), ("table",), ("tiles",), ("series", "series")])
def test_every_parameter_has_a_gradient_in_every_pass(names):
    objective = masked()
    given = inputs(objective, drawn(*names) if names else [], Batching(mode="packed"))
    loss = objective(**given, scale=1.0)["loss"]
    loss.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert names or not parameter.grad.any(), name
    assert bool(loss) == bool(names)


def test_what_is_asked_is_what_was_hidden():
    """Values of tokens, cut by hand, against those that the loss sees."""
    objective, some = masked(queries=1000), drawn("pairs", "tiles", "table")
    given = inputs(objective, some, PADDING)
    seen = 0
    for question in given["hidden"]:
        group = given["tokens"].groups[question.group]
        cells = held(group)
        rows = zip(question.rows, question.members, question.index, question.asked, strict=True)
        for row, member, index, asked in rows:
            (own,) = some[int(row)].sample.observations
            _, (hidden,) = hide(some[int(row)], RATIO, 0)
            assert sorted(index[asked].tolist()) == np.flatnonzero(hidden).tolist()
            for token in index[asked].tolist():
                place = np.unravel_index(token, hidden.shape)
                part = own.values[place[:2]]
                if len(place) == 4:
                    down, right = (slice(k * own.patch, (k + 1) * own.patch) for k in place[2:])
                    part = part[down, right]
                assert np.array_equal(cells[member, token].numpy(), part.ravel())
                seen += 1
    assert seen > 80
