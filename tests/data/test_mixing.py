"""Mixtures of labelled images: their shares, their gaps, and the same on any ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hpcgeo.data.labelled import LabelledSplit, open_tasks
from hpcgeo.data.labelled_batches import DrawnBatches
from hpcgeo.data.mixing import Mixing, alike
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.data.sampling.mixture import MixtureSampler
from hpcgeo.errors import InputError
from hpcgeo.kinds.table import KINDS
from tests.mixed import drawn, sets

BLUE = (Channel("rgb", "B"),)
BOTH = Mixing(0.8, 1.0, 0.1)


def image(value: float, label: int, size: int = 16) -> Sample:
    values = np.full((1, 1, size, size), value, dtype=np.float32)
    seen = Observation(BLUE, values, np.zeros((1, 2)), 1.0, 4)
    return Sample((seen,), np.eye(2, dtype=np.float32)[label])


def mixtures(mixing: Mixing, count: int) -> list[Sample]:
    return [
        mixing.mixed(image(0, 0), image(1, 1), np.random.default_rng(seed)) for seed in range(count)
    ]


def test_labels_have_the_shares_of_the_pixels() -> None:
    for mixing in (Mixing(mixup=0.8), Mixing(cutmix=1.0), BOTH):
        for one in mixtures(mixing, 40):
            of_other = one.observations[0].values.mean()
            assert one.target == pytest.approx([1 - of_other, of_other], abs=1e-6)


def test_mixup_blends_and_cutmix_cuts() -> None:
    def values_of(mixing: Mixing) -> list[int]:
        return [len(np.unique(one.observations[0].values)) for one in mixtures(mixing, 60)]

    assert set(values_of(Mixing(mixup=0.8))) == {1}
    assert set(values_of(Mixing(cutmix=1.0))) <= {1, 2}
    assert 15 < sum(count == 2 for count in values_of(BOTH)) < 45


def test_shares_are_those_of_the_beta_distribution() -> None:
    shares = np.array([one.target[0] for one in mixtures(Mixing(mixup=0.8), 1500)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(0.25 / 2.6, abs=0.01)  # 1 / (4 (2 alpha + 1))


def test_what_is_missing_in_one_is_that_of_the_other() -> None:
    own, other = image(0, 0), image(1, 1)
    own.observations[0].values[..., :4, :] = np.nan
    other.observations[0].values[..., -4:, :] = np.nan
    values = Mixing(mixup=0.8).mixed(own, other, np.random.default_rng(0)).observations[0].values
    assert (values[..., :4, :] == 1).all()
    assert (values[..., -4:, :] == 0).all()
    assert len(np.unique(values[..., 4:-4, :])) == 1


def test_what_is_not_alike_is_seen() -> None:
    assert alike(image(0, 0), image(1, 1))
    assert not alike(image(0, 0), image(1, 1, size=8))
    (vector,) = drawn("table")
    assert not alike(vector.sample, vector.sample)


def batches(
    micro_batch: int, rank: int = 0, world: int = 1, mixing: Mixing | None = BOTH
) -> DrawnBatches:
    sizes = {name: len(part) for name, part in sets().items()}
    mixture = MixtureSampler(sizes, weights={}, temperature=2, epochs={}, seed=0)
    crops = {"scenes": (0.3, 1.0), "pairs": (0.3, 1.0)}
    return DrawnBatches(sets(), mixture, 0, micro_batch, rank, world, True, 0.0, crops, mixing)


def test_any_ranks_draw_the_same_mixtures() -> None:
    whole = batches(24)[1]
    parts = [one for rank in range(2) for one in batches(12, rank, 2)[1]]
    for a, b in zip(whole, parts, strict=True):
        assert (a.task, a.index, a.position) == (b.task, b.index, b.position)
        assert np.array_equal(a.sample.target, b.sample.target, equal_nan=True)
        for x, y in zip(a.sample.observations, b.sample.observations, strict=True):
            assert np.array_equal(x.values, y.values, equal_nan=True)


def test_only_images_with_labels_of_whole_samples_are_mixed() -> None:
    plain, found, changed = batches(60, mixing=None)[0], batches(60)[0], 0
    for before, after in zip(plain, found, strict=True):
        soft = after.task in ("scenes", "series")
        assert (after.sample.target.dtype == np.float32) >= soft
        values = [part.sample.observations[0].values for part in (before, after)]
        same = np.array_equal(*values, equal_nan=True)
        assert same or after.task == "scenes"
        changed += not same
        if soft:
            assert after.sample.target.sum() == pytest.approx(1)
        if after.task == "series":  # smoothed alone
            wanted = np.full(len(after.sample.target), 0.1 / len(after.sample.target))
            wanted[int(before.sample.target)] += 0.9
            assert after.sample.target == pytest.approx(wanted)
    assert changed > 5  # not all: a rectangle may be empty


def test_soft_labels_are_those_of_torch_and_the_plain_loss_without() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 2])
    kind = KINDS["classification"]

    def soft(amount: float) -> torch.Tensor:
        return torch.from_numpy(
            np.stack([kind.soft(np.array(k), 4, amount) for k in labels.tolist()])
        )

    theirs = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(kind.loss(logits, soft(0.1)), theirs)
    torch.testing.assert_close(kind.loss(logits, soft(0.0)), kind.loss(logits, labels))
    several = KINDS["multilabel"].soft(np.array([0, 1, 1], np.float32), 3, 0.2)
    assert several.tolist() == pytest.approx([0.1, 0.9, 0.9])


class Damaged:
    """A data set of which only one sample can be read."""

    def __init__(self, part: LabelledSplit) -> None:
        self.part, self.target = part, part.target

    def __len__(self) -> int:
        return len(self.part)

    def read(self, index: int) -> Sample:
        if index:
            raise InputError("scene.tif: no such file")
        return self.part.read(index)


def test_a_partner_that_cannot_be_read_leaves_a_sample_unmixed() -> None:
    part: Any = open_tasks("generated", Path("scenes"), split="train", patch=8, size=16)
    mixture = MixtureSampler({"scenes": 1}, weights={}, temperature=2, epochs={}, seed=0)
    parts: Any = {"scenes": Damaged(part)}
    made = DrawnBatches(parts, mixture, 0, 1, 0, 1, False, 0.0, {}, Mixing(mixup=1.0))
    (one,), before = made[0], part.read(0)
    assert np.array_equal(one.sample.observations[0].values, before.observations[0].values)
    assert one.sample.target[int(before.target)] == 1
