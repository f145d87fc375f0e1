"""Views: PyTorch's own interpolation is the oracle; a batch is the same as its parts."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from hpcgeo.data.loader import ImageBatch
from hpcgeo.data.views import Views
from hpcgeo.options import Augment

CPU = torch.device("cpu")
CALM = Augment(scale=(1, 1), ratio=(1, 1), flip=False, rotate=False)


def batch_of(pixels, valid=None, first=0):
    valid = [pixels.shape[2:]] * len(pixels) if valid is None else valid
    position = np.arange(first, first + len(pixels))
    return ImageBatch(torch.as_tensor(pixels), np.array(valid), position, position)


def views(chip, augment, mean=0.0, std=1.0, nodata=None, bands=3, seed=0):
    dataset = SimpleNamespace(mean=np.full(bands, mean), std=np.full(bands, std), nodata=nodata)
    return Views(dataset, chip, augment, seed)


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    return batch_of(torch.rand(16, 3, 60, 44, generator=draw))


def expected(batch, crops, chip, number):
    """Crop, transpose, resize and mirror one sample with PyTorch's own functions."""
    top, left = crops.top[number], crops.left[number]
    rows = slice(top, top + crops.height[number])
    columns = slice(left, left + crops.width[number])
    crop = batch.pixels[number : number + 1, :, rows, columns]
    crop = crop.mT if crops.transposed[number] else crop
    out = interpolate(crop, chip, mode="bilinear", antialias=True, align_corners=False)[0]
    out = out.flip(-2) if crops.up_down[number] else out
    return out.flip(-1) if crops.left_right[number] else out


@pytest.mark.parametrize("chip", [(32, 32), (20, 36), (90, 70), (1, 1)])
def test_views_are_those_of_pytorch(batch, chip):
    make = views(chip, Augment(scale=(0.05, 1)))
    crops = make.draw(batch)
    assert crops.transposed.any() and not crops.transposed.all()
    found = make(batch, CPU)
    assert found.shape == (16, 3, *chip)
    for number in range(16):
        assert torch.allclose(found[number], expected(batch, crops, chip, number), atol=1e-5)


def test_a_batch_is_its_parts(batch):
    make = views((32, 32), Augment())
    whole = make(batch, CPU)
    for number in range(16):
        one = ImageBatch(*(part[number : number + 1] for part in vars(batch).values()))
        assert torch.allclose(make(one, CPU)[0], whole[number], atol=1e-6)
    assert not torch.equal(whole, views((32, 32), Augment(), seed=1)(batch, CPU))
    later = replace(batch, position=batch.position + 16)
    assert not torch.equal(whole, make(later, CPU))


def test_without_augmentation_nothing_changes(batch):
    whole = batch_of(batch.pixels[:, :, :44])
    assert torch.allclose(views((44, 44), CALM)(whole, CPU), whole.pixels, atol=1e-6)


def test_crops_stay_in_the_valid_part_and_keep_their_ranges():
    valid = np.array([[40, 60], [60, 7], [1, 1], [60, 60]] * 500)
    batch = ImageBatch(torch.zeros(2000, 1, 1, 1), valid, np.arange(2000), np.arange(2000))
    crops = views((8, 8), Augment(scale=(0.2, 0.5))).draw(batch)
    assert (crops.top >= 0).all() and (crops.left >= 0).all()
    assert (crops.top + crops.height <= valid[:, 0]).all()
    assert (crops.left + crops.width <= valid[:, 1]).all()
    assert (crops.height >= 1).all() and (crops.width >= 1).all()
    height, width = crops.height[3::4], crops.width[3::4]
    area = height * width / 3600
    assert 0.18 < area.min() < 0.23 and 0.45 < area.max() < 0.53
    assert 0.7 < (width / height).min() < 0.8 and 1.25 < (width / height).max() < 1.4


def test_all_rotations_without_flips_and_no_mirror_images():
    pixels = torch.arange(9.0).reshape(1, 1, 3, 3).repeat(400, 1, 1, 1)
    turned = Augment(scale=(1, 1), ratio=(1, 1), flip=False, rotate=True)
    found = views((3, 3), turned, bands=1)(batch_of(pixels), CPU)
    kinds = {tuple(view.flatten().round().int().tolist()) for view in found}
    expected = {tuple(pixels[0, 0].rot90(k).flatten().int().tolist()) for k in range(4)}
    assert kinds == expected
    both = views((3, 3), replace_augment(turned, flip=True), bands=1)(batch_of(pixels), CPU)
    assert len({tuple(view.flatten().round().int().tolist()) for view in both}) == 8


def replace_augment(augment, **changes):
    return augment.model_copy(update=changes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_bands_are_normalised_and_nodata_is_zero(dtype):
    pixels = torch.full((1, 2, 8, 8), 130).to(dtype)
    missing = float("nan") if dtype.is_floating_point else 7
    pixels[0, 1, :4] = missing
    make = views((8, 8), CALM, mean=100, std=10, bands=2, nodata=None if missing != missing else 7)
    found = make(batch_of(pixels), CPU)
    assert found.dtype == torch.float32
    assert torch.allclose(found[0, 0], torch.tensor(3.0)) and not found[0, 1, :4].any()
    assert torch.allclose(make.denormalise(found)[0, 0], torch.tensor(130.0))


def test_a_constant_band_does_not_divide_by_zero():
    found = views((4, 4), CALM, mean=5, std=0, bands=1)(batch_of(torch.full((1, 1, 4, 4), 5)), CPU)
    assert not found.any()


def test_plain_is_the_largest_centred_view(batch):
    found = views((22, 22), Augment()).plain(batch, CPU)
    middle = batch.pixels[:, :, 8:52]
    assert torch.allclose(
        found, interpolate(middle, (22, 22), mode="bilinear", antialias=True), atol=1e-5
    )
    part = batch_of(batch.pixels, valid=[[30, 44]] * 16)
    found = views((30, 30), Augment()).plain(part, CPU)
    assert torch.allclose(found, batch.pixels[:, :, :30, 7:37], atol=1e-6)


@pytest.mark.gpu
def test_views_on_an_accelerator_are_the_same(batch):
    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    make = views((32, 32), Augment())
    there = make(batch, torch.device("cuda"))
    assert torch.allclose(there.cpu(), make(batch, CPU), atol=1e-4)
