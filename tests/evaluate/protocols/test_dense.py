"""Segmentation from patches: mixtures by hand, a memory bank, both heads against pixels."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hpcgeo.evaluate.protocols.choice import choose, scored
from hpcgeo.evaluate.protocols.dense import (
    DenseKNN,
    DenseLinear,
    bilinear,
    memory_bank,
    mixed,
    upsampled,
)
from hpcgeo.kinds.target import IGNORED
from tests.evaluate.protocols.features import chips, split, target


def test_mixtures_by_hand():
    truth = np.array([[[0, 0, 1, 2], [0, 1, 1, 2], [IGNORED] * 4, [IGNORED, IGNORED, 2, IGNORED]]])
    found = mixed(truth, (2, 2), 3)[0]
    np.testing.assert_allclose(found[0], [[3 / 4, 1 / 4, 0], [0, 1 / 2, 1 / 2]])
    assert np.isnan(found[1, 0]).all() and found[1, 1].tolist() == [0, 0, 1]
    # Three rows of pixels over two of patches: the middle one begins in the first.
    assert mixed(np.array([[[0], [1], [1]]]), (2, 1), 2)[0, :, 0].tolist() == [[0.5, 0.5], [0, 1]]


def test_a_memory_bank_is_drawn_by_its_seed():
    vectors, truth = chips(10, 3)
    truth[:, :4] = IGNORED  # the first row of patches
    part = split(vectors, truth)
    whole = memory_bank(part, 3, 1000, 0)
    assert len(whole) == 10 * 12 and np.isfinite(whole.truth).all()
    np.testing.assert_array_equal(whole.vectors, vectors[:, 1:].reshape(-1, 8))
    one, other = (memory_bank(part, 3, 50, seed) for seed in (1, 2))
    assert len(one) == 50 and (one.vectors != other.vectors).any()
    rows = {row.tobytes(): mixture for row, mixture in zip(whole.vectors, whole.truth, strict=True)}
    for row, mixture in zip(one.vectors, one.truth, strict=True):
        np.testing.assert_array_equal(rows[row.tobytes()], mixture)


@pytest.mark.parametrize("protocol", [DenseKNN(), DenseLinear(epochs=20, batch=8)])
def test_classes_of_pixels_are_found(protocol):
    vectors, truth = chips(60, 3)
    truth[:, 0] = IGNORED
    train, validation, test = (
        split(vectors[rows], truth[rows]) for rows in (slice(30), slice(30, 45), slice(45, 60))
    )
    kind = target("segmentation", 3)
    found = choose(protocol, {"patches": (train, validation)}, kind, metric="mean_iou")
    (state,) = scored(found.model, test, kind, "mean_iou", rows=4)
    assert state.compute()[0] > 0.6
    answers = found.model.answers(torch.from_numpy(test.vectors))
    assert answers.shape == (1, 15, 3, 16, 16)


def test_the_linear_head_is_a_convolution_that_is_upsampled():
    vectors, truth = chips(20, 3)
    settings = [{"lr": 0.01, "weight_decay": 0.0}]
    model = DenseLinear(epochs=2).fit(split(vectors, truth), target("segmentation", 3), settings, 0)
    seen = torch.from_numpy(vectors)
    standard = (seen - seen.mean((0, 1, 2))) / seen.std((0, 1, 2), correction=0)
    patches = F.conv2d(
        standard.movedim(-1, 1), model.weights[:, 0].T[:, :, None, None], model.biases[0]
    )
    wanted = F.interpolate(patches, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model.answers(seen)[0], wanted, atol=1e-5, rtol=1e-5)


def test_pixels_of_a_step_are_those_of_the_upsampled_frame():
    patches = torch.randn(2, 3, 4, 5, 7)  # (S, n, K, h, w)
    rows, columns = bilinear(5, 32)[3::4], bilinear(7, 30)[1::4]
    found = torch.einsum("snkhw,yh,xw->snkyx", patches, rows, columns)
    torch.testing.assert_close(found, upsampled(patches, (32, 30))[..., 3::4, 1::4])


def test_nearest_patches_give_a_weighted_mean_of_mixtures():
    vectors, truth = chips(12, 3)
    part = split(vectors[:10], truth[:10])
    model = DenseKNN().fit(part, target("segmentation", 3), [{"k": 7, "weights": "similarity"}], 0)
    bank = F.normalize(torch.from_numpy(vectors[:10]).reshape(-1, 8), dim=1)
    asked = F.normalize(torch.from_numpy(vectors[10:]).reshape(-1, 8), dim=1)
    similar, rows = (asked @ bank.T).topk(7)
    mixtures = torch.from_numpy(mixed(truth[:10], (4, 4), 3)).reshape(-1, 3)[rows]
    votes = ((similar / 0.02).softmax(1)[..., None] * mixtures).sum(1).reshape(2, 4, 4, 3)
    wanted = upsampled(votes.permute(0, 3, 1, 2)[None], (16, 16))
    found = model.answers(torch.from_numpy(vectors[10:])).exp()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_small_bank_has_fewer_neighbours():
    vectors, truth = chips(1, 2)
    part = split(vectors, truth)
    model = DenseKNN(bank=6).fit(part, target("segmentation", 2), DenseKNN().settings(None, 1), 0)
    assert model.answers(torch.from_numpy(vectors)).shape == (4, 1, 2, 16, 16)
