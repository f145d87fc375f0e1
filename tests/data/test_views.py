"""Views: PyTorch's own interpolation is the oracle; a batch is the same as its parts."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from hpcgeo.data.loader import ImageBatch
from hpcgeo.data.views import RandomView, Views
from hpcgeo.options import Augment

CPU = torch.device("cpu")
CALM = Augment(scale=(1, 1), ratio=(1, 1), flip=False, rotate=False)


def batch_of(pixels, valid=None, first=0):
    valid = [pixels.shape[2:]] * len(pixels) if valid is None else valid
    position = np.arange(first, first + len(pixels))
    layout = np.zeros(len(pixels), dtype=np.int64)
    return ImageBatch(torch.as_tensor(pixels), np.array(valid), layout, position, position)


def dataset_of(mean=0.0, std=1.0, nodata=np.nan, bands=3):
    shape = 1, bands
    return SimpleNamespace(
        mean=np.full(shape, mean), std=np.full(shape, std), nodata=np.array([nodata])
    )


class One:
    """Makes one view of a batch, where it is read or on its device."""

    def __init__(self, dataset, chip, augment, seed, cut):
        self._views = Views(dataset, [RandomView(chip, augment)], seed, cut=cut)
        self.draw, self.plain = self._views.draw, self._views.plain
        self.denormalise = self._views.denormalise

    def __call__(self, batch, device):
        (view,) = self._views(batch, device)
        return view


def views(chip, augment, mean=0.0, std=1.0, nodata=np.nan, bands=3, seed=0, cut=True):
    return One(dataset_of(mean, std, nodata, bands), chip, augment, seed, cut)


@pytest.fixture(params=[True, False], ids=["where it is read", "on the device"])
def cut(request):
    return request.param


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
def test_views_are_those_of_pytorch(batch, chip, cut):
    make = views(chip, Augment(scale=(0.05, 1)), cut=cut)
    crops = make.draw(batch)
    assert crops.transposed.any() and not crops.transposed.all()
    found = make(batch, CPU)
    assert found.shape == (16, 3, *chip)
    for number in range(16):
        assert torch.allclose(found[number], expected(batch, crops, chip, number), atol=1e-5)


def test_a_batch_is_its_parts(batch, cut):
    make = views((32, 32), Augment(), cut=cut)
    whole = make(batch, CPU)
    for number in range(16):
        one = ImageBatch(*(part[number : number + 1] for part in vars(batch).values()))
        assert torch.allclose(make(one, CPU)[0], whole[number], atol=1e-6)
    assert not torch.equal(whole, views((32, 32), Augment(), seed=1, cut=cut)(batch, CPU))
    later = replace(batch, position=batch.position + 16)
    assert not torch.equal(whole, make(later, CPU))


def test_without_augmentation_nothing_changes(batch, cut):
    whole = batch_of(batch.pixels[:, :, :44])
    assert torch.allclose(views((44, 44), CALM, cut=cut)(whole, CPU), whole.pixels, atol=1e-6)


def test_crops_stay_in_the_valid_part_and_keep_their_ranges():
    valid = np.array([[40, 60], [60, 7], [1, 1], [60, 60]] * 500)
    batch = batch_of(torch.zeros(2000, 1, 1, 1), valid)
    crops = views((8, 8), Augment(scale=(0.2, 0.5))).draw(batch)
    assert (crops.top >= 0).all() and (crops.left >= 0).all()
    assert (crops.top + crops.height <= valid[:, 0]).all()
    assert (crops.left + crops.width <= valid[:, 1]).all()
    assert (crops.height >= 1).all() and (crops.width >= 1).all()
    height, width = crops.height[3::4], crops.width[3::4]
    area = height * width / 3600
    assert 0.18 < area.min() < 0.23 and 0.45 < area.max() < 0.53
    assert 0.7 < (width / height).min() < 0.8 and 1.25 < (width / height).max() < 1.4


def test_all_rotations_without_flips_and_no_mirror_images(cut):
    pixels = torch.arange(9.0).reshape(1, 1, 3, 3).repeat(400, 1, 1, 1)
    turned = Augment(scale=(1, 1), ratio=(1, 1), flip=False, rotate=True)
    found = views((3, 3), turned, bands=1, cut=cut)(batch_of(pixels), CPU)
    kinds = {tuple(view.flatten().round().int().tolist()) for view in found}
    expected = {tuple(pixels[0, 0].rot90(k).flatten().int().tolist()) for k in range(4)}
    assert kinds == expected
    both = views((3, 3), replace_augment(turned, flip=True), bands=1, cut=cut)(
        batch_of(pixels), CPU
    )
    assert len({tuple(view.flatten().round().int().tolist()) for view in both}) == 8


def replace_augment(augment, **changes):
    return augment.model_copy(update=changes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_bands_are_normalised_and_nodata_is_zero(dtype, cut):
    pixels = torch.full((1, 2, 8, 8), 130).to(dtype)
    missing = float("nan") if dtype.is_floating_point else 7
    pixels[0, 1, :4] = missing
    make = views(
        (8, 8), CALM, mean=100, std=10, bands=2, nodata=np.nan if missing != missing else 7, cut=cut
    )
    found = make(batch_of(pixels), CPU)
    assert found.dtype == torch.float32
    assert torch.allclose(found[0, 0], torch.tensor(3.0)) and not found[0, 1, :4].any()
    assert torch.allclose(
        make.denormalise(found, torch.zeros(1, dtype=torch.int64))[0, 0], torch.tensor(130.0)
    )


def test_a_constant_band_does_not_divide_by_zero(cut):
    found = views((4, 4), CALM, mean=5, std=0, bands=1, cut=cut)(
        batch_of(torch.full((1, 1, 4, 4), 5)), CPU
    )
    assert not found.any()


def test_plain_is_the_largest_centred_view(batch, cut):
    found = views((22, 22), Augment(), cut=cut).plain(batch, CPU)
    middle = batch.pixels[:, :, 8:52]
    assert torch.allclose(
        found, interpolate(middle, (22, 22), mode="bilinear", antialias=True), atol=1e-5
    )
    part = batch_of(batch.pixels, valid=[[30, 44]] * 16)
    found = views((30, 30), Augment(), cut=cut).plain(part, CPU)
    assert torch.allclose(found, batch.pixels[:, :, :30, 7:37], atol=1e-6)


@pytest.mark.parametrize("bands", [1, 3, 13])
@pytest.mark.parametrize("chip", [(32, 32), (20, 36), (90, 70)])
def test_pixels_of_8_bits_are_rounded_to_the_same_levels(chip, bands):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (16, bands, 60, 44), generator=draw, dtype=torch.uint8)
    batch, augment = batch_of(pixels), Augment(scale=(0.05, 1))
    here, there = (views(chip, augment, bands=bands, cut=cut)(batch, CPU) for cut in (True, False))
    assert torch.equal(here, here.round()) and torch.equal(there, there.round())
    differ = (here - there).abs()
    assert differ.max() <= 2 and (differ > 0).float().mean() < 0.03
    exact = views(chip, augment, bands=bands)(batch_of(pixels.float()), CPU)
    assert (here - exact).abs().max() <= 1.1, "half a level along the rows, half along the columns"


def test_layouts_have_their_own_nodata_and_units(cut):
    """The same reflectance, stored as 1000, or as 2000 with an offset."""
    pixels = torch.full((4, 1, 8, 8), 1000, dtype=torch.uint16)
    pixels[1:3] = 2000
    pixels[0, :, :4], pixels[1, :, :4], pixels[3, :, :4] = 0, 65535, 65535
    dataset = SimpleNamespace(
        mean=np.array([[500.0], [1500.0], [500.0]]),
        std=np.full((3, 1), 250.0),
        nodata=np.array([0.0, 65535.0, np.nan]),
    )
    batch = replace(batch_of(pixels), layout=np.array([0, 1, 1, 2]))
    (found,) = Views(dataset, [RandomView((8, 8), CALM)], 0, cut=cut)(batch, CPU)
    assert torch.equal(found[:3, 0, 4:], torch.full((3, 4, 8), 2.0))
    assert not found[:2, 0, :4].any(), "what is missing is the mean"
    assert (found[3, 0, :4] > 200).all(), "of a layout without nodata, nothing is missing"


def test_the_mean_of_several_scales_is_no_level_of_8_bits(cut):
    pixels = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8)
    pixels[:, :, :4] = 0
    dataset = SimpleNamespace(
        mean=np.array([[550.0], [55.0]]), std=np.array([[450.0], [45.0]]), nodata=np.zeros(2)
    )
    batch = replace(batch_of(pixels), layout=np.array([0, 1]))
    (found,) = Views(dataset, [RandomView((8, 8), CALM)], 0, cut=cut)(batch, CPU)
    assert not found[:, 0, :4].any()
    assert torch.allclose(found[:, 0, 4:], torch.tensor([-1.0, 1.0])[:, None, None], atol=1e-6)


@pytest.mark.gpu
def test_views_on_an_accelerator_are_the_same(batch):
    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    make = views((32, 32), Augment())
    there = make(batch, torch.device("cuda"))
    assert torch.allclose(there.cpu(), make(batch, CPU), atol=1e-4)
