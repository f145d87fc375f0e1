"""What a map shows: probabilities within half a step, classes as decided, nodata as it was."""

import numpy as np
import pytest
import torch

from hpcgeo.kinds.maps import FORMS
from hpcgeo.kinds.table import KINDS, kind_of
from hpcgeo.kinds.target import Target

TARGET = Target("segmentation", ("a", "b", "c"))
ANSWER = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 6, 7)).astype(np.float32))
THERE = np.ones((6, 7), np.bool_)
THERE[:2] = False


def test_only_kinds_of_pixels_have_maps():
    for kind in KINDS.values():
        assert not kind.maps or kind.dense
        assert set(kind.maps) <= set(FORMS)


def test_classes_are_those_that_the_kind_decides():
    kind = kind_of(TARGET)
    mean = kind.averaged(ANSWER, TARGET)[0].numpy()
    for dtype, nodata in (("uint8", 255), ("uint16", 65535)):
        pixels = FORMS["class"].encode(mean, THERE, dtype)
        assert pixels.dtype == dtype and (pixels[0, :2] == nodata).all()
        np.testing.assert_array_equal(pixels[0, 2:], kind.decide(ANSWER)[0, 2:].numpy())


@pytest.mark.parametrize("dtype", FORMS["probabilities"].dtypes)
def test_probabilities_are_within_half_a_step(dtype):
    form = FORMS["probabilities"]
    mean = kind_of(TARGET).averaged(ANSWER, TARGET)[0].numpy()
    np.testing.assert_allclose(mean.sum(0), 1, rtol=1e-5)
    pixels = form.encode(mean, THERE, dtype)
    assert form.bands(TARGET) == TARGET.names
    found = pixels[:, 2:].astype(np.float64) * form.scale(dtype)
    np.testing.assert_allclose(found, mean[:, 2:], atol=form.scale(dtype) / 2 + 1e-6)
    nodata = form.nodata(dtype)
    assert np.isnan(pixels[:, :2]).all() if np.isnan(nodata) else (pixels[:, :2] == nodata).all()


@pytest.mark.parametrize("name", FORMS)
def test_a_picture_has_a_legend_and_grey_holes(name):
    form, target = FORMS[name], Target("segmentation", ("a", "b"))
    mean = np.random.default_rng(0).random((2, 6, 7)).astype(np.float32)
    dtype = form.dtypes[0]
    image, legend = form.picture(form.encode(mean, THERE, dtype), target, dtype)
    assert image.shape == (3, 6, 7) and len(legend) >= 2
    assert ((image >= 0) & (image <= 1)).all() and (image[:, :2] == 0.5).all()
