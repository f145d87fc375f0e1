"""From samples to what a forward takes: who is where, what is asked, what is known of a band."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch

from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.objectives.collate import (
    centres,
    moved,
    packed_bytes,
    padding,
    questions,
    tokens,
    view_of,
    whole,
)
from hpcgeo.options import Batching
from hpcgeo.workloads.mixture import band_of
from tests.mixed import KNOWN, PADDING, drawn, multitask


def test_tokens_lie_sample_by_sample_each_behind_its_own():
    """Against a loop over samples, observations and tokens."""
    objective, some = multitask(), drawn()
    made, grouping = tokens(some, PADDING, KNOWN, whole(some))
    flat, read, _ = objective.backbone.tokenizer(made)
    expected = []
    for sample, one in enumerate(some):
        alone, _ = tokens([one], PADDING, KNOWN, whole([one]))
        expected.append(objective.backbone.tokenizer(alone).flat[:1])  # its own token
        for number, kept in enumerate(one.kept):
            group, member = grouping.find(sample, number)
            cells = read[group][member].flatten(0, 3)
            expected += [cells[place : place + 1] for place in np.flatnonzero(kept)]
    assert torch.allclose(flat, torch.cat(expected), atol=1e-5)
    with pytest.raises(KeyError):
        grouping.find(len(some))


def test_observations_of_like_shape_are_read_together():
    some = drawn("tiles", "scenes", "tiles", "tiles")
    some[3] = replace(some[3], named=(False,))
    made, grouping = tokens(some, PADDING, KNOWN, whole(some))
    assert grouping.places == (((0, 0), (2, 0)), ((1, 0),), ((3, 0),))
    assert [group.named for group in made.groups] == [True, True, False]


@pytest.mark.parametrize("mode", ["padding", "dbscan", "bins", "packed"])
def test_padding_is_counted(mode):
    batching = Batching(mode=mode, max_padding=30)
    lengths = [10, 50, 12, 45, 1]
    made = {"padding": 250 - 118, "bins": 5 + 2, "dbscan": 5 + 2, "packed": 0}[mode]
    if mode in ("bins", "dbscan"):
        made += 11  # the single one joins 12 and 10
    assert padding(lengths, batching) == pytest.approx(made)
    assert padding([], batching) == 0


def test_pixels_are_drawn_from_the_position_alone():
    some = drawn("tiles", "tiles", "pairs")

    def asked(order, seed=0):
        chosen = [some[i] for i in order]
        _, grouping = tokens(chosen, PADDING, KNOWN, whole(chosen))
        return {
            order[row]: queries
            for question in questions(chosen, grouping, 9, seed)
            for row, queries in zip(question.rows.tolist(), question.queries, strict=True)
        }

    first, second = asked([0, 1, 2]), asked([2, 1, 0])
    assert all(torch.equal(first[row], second[row]) for row in range(3))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], asked([0, 1, 2], seed=1)[0])


def test_centres_count_row_by_row():
    found = centres(torch.arange(6), (2, 3))
    assert found.tolist() == pytest.approx(
        np.array(
            [[0.25, x] for x in (1 / 6, 0.5, 5 / 6)] + [[0.75, x] for x in (1 / 6, 0.5, 5 / 6)]
        )
    )


def test_a_radar_band_of_any_name_says_its_polarisation_and_orbit(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "boat: {title: Boat, source: me, bands: {cross: [3.0e+7, null, 1, VH], "
        "green: [550, 30, 1]}}"
    )
    bands = (Channel("boat", "cross"), Channel("boat", "green"), Channel("sentinel1", "VV"))
    seen = Observation(bands, np.ones((1, 3, 8, 8), np.float32), np.zeros((1, 2)), 1.0, 8, -1)
    one = plain(Sample((seen,), np.array(0)))
    made, _ = tokens([one], PADDING, partial(band_of, path), whole([one]))
    flags = [[0, 0, 1, 0, -1], [0, 0, 0, 0, 0], [0, 0, 0, 1, -1]]
    assert made.groups[0].flags[0].tolist() == flags


@dataclass(frozen=True)
class Part:
    value: torch.Tensor
    rest: tuple


def test_all_tensors_move():
    part = Part(torch.ones(1), (torch.ones(2), "word", Part(torch.ones(3), ())))
    found = moved(part, torch.device("meta"))
    assert found.value.is_meta and found.rest[0].is_meta and found.rest[2].value.is_meta
    assert found.rest[1] == "word"


def test_tensors_of_all_types_travel_in_one_piece():
    tensors = [
        torch.rand(3, 5, dtype=torch.float64).T,
        torch.tensor([True, False, True]),
        torch.zeros(0, 7, dtype=torch.int64),
        torch.tensor(7),
        torch.rand(2, 2),
    ]
    area, begins = packed_bytes(tensors, pinned=False)
    assert area.dtype == torch.uint8 and not any(begin % 64 for begin in begins)
    found = [view_of(area, begin, like) for begin, like in zip(begins, tensors, strict=True)]
    assert all(torch.equal(one, other) for one, other in zip(found, tensors, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_what_was_moved_is_the_same_there():
    part = Part(torch.rand(3), (torch.arange(5), Part(torch.tensor([True, False]), ())))
    found = moved(part, torch.device("cuda"))
    assert torch.equal(found.value.cpu(), part.value)
    assert torch.equal(found.rest[0].cpu(), part.rest[0])
    assert torch.equal(found.rest[1].value.cpu(), part.rest[1].value)
