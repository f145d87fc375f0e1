"""Numbers for each pixel: loss, metrics and scale, with pixels that are not known left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score, root_mean_squared_error

from hpcgeo.data.labelled import open_tasks
from hpcgeo.data.readers.collection import Frame
from hpcgeo.data.readers.rasters import collect
from hpcgeo.errors import InputError
from hpcgeo.kinds.metrics import start
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from tests.data.rasters import noise, write_tiff
from tests.data.test_rasters import at, say

TARGET = Target("pixel_regression", ("height", "cover"), (3.0, 0.5), (2.0, 0.25))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heights")
    write_tiff(folder / "image.tif", noise(3, 64, 64), names="RGB", **at(10))
    heights = np.random.default_rng(0).normal(20, 5, (3, 64, 64)).astype(np.float32)
    heights[:, :10] = -1
    write_tiff(folder / "heights.tif", heights, nodata=-1, **at(10))
    return say(
        folder,
        {"files": "image.tif", "sensor": "rgb"},
        high={"files": "heights.tif", "numbers": ["height", None, "cover"]},
    )


def numbers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth, answer = rng.normal(size=(2, 5, 2, 6, 7)).astype(np.float32)
    truth[0, 0, :3] = np.nan
    truth[1] = np.nan
    return truth, answer


def test_the_loss_is_the_mean_square_over_known_pixels():
    truth, answer = (each.reshape(5, 2, -1).swapaxes(1, 2) for each in numbers())  # (b, Q, K)
    found = kind_of(TARGET).loss(torch.tensor(answer), torch.tensor(truth))
    expected = [
        np.nanmean((a - t) ** 2) if np.isfinite(t).any() else 0
        for a, t in zip(answer, truth, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_metrics_are_those_of_scikit_learn_over_known_pixels(metric):
    truth, answer = numbers()
    state = start(metric, TARGET)
    for first in (0, 3):
        some = slice(first, first + 3)
        state.update(["a", "b", "c"][: len(truth[some])], torch.tensor(answer[some]), truth[some])
    expected = []
    for output, std in enumerate(TARGET.std):
        known = np.isfinite(truth[:, output])
        both = truth[:, output][known], answer[:, output][known]
        expected.append(
            root_mean_squared_error(*both) * std if metric == "rmse" else r2_score(*both)
        )
    assert state.compute()[0] == pytest.approx(np.mean(expected), rel=1e-5)


def test_maps_show_the_numbers_in_their_own_unit():
    _, answer = numbers()
    found = kind_of(TARGET).averaged(torch.tensor(answer), TARGET)
    expected = answer * np.array([2, 0.25])[:, None, None] + np.array([3, 0.5])[:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_labels_are_bands_of_a_raster_brought_to_one_scale(folder):
    part = open_tasks("rasters", folder, split="train", size=32, patch=8)
    assert part.target.kind == "pixel_regression" and part.target.names == ("height", "cover")
    assert part.target.mean == pytest.approx((20, 20), abs=0.5)
    assert part.target.std == pytest.approx((5, 5), abs=0.5)
    sample, plain = part.read(0), collect(folder, "high", Frame(8, 32)).load(int(part.indices[0]))
    assert sample.dense and sample.target.shape == (2, 32, 32)
    mean, std = (np.array(each)[:, None, None] for each in (part.target.mean, part.target.std))
    np.testing.assert_allclose(sample.target * std + mean, plain.target, rtol=1e-4)
    assert np.isnan(plain.target[:, :10]).all() or np.isfinite(plain.target).all()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"numbers": ["height"]}, "3 bands, and numbers names 1"),
        ({"numbers": ["a", "b", "c"], "classes": {1: "x"}}, "one of the two"),
        ({}, "give classes, or numbers"),
        ({"numbers": ["a", "b", "c"], "band": 2}, "band is that of classes"),
    ],
)
def test_labels_that_do_not_fit(folder, tmp_path, label, message):
    for path in folder.glob("*.tif"):
        (tmp_path / path.name).symlink_to(path)
    raster = {"files": "image.tif", "sensor": "rgb"}
    say(tmp_path, raster, high={"files": "heights.tif", **label})
    with pytest.raises(InputError, match=message):
        collect(tmp_path, None, Frame(8, 32))
