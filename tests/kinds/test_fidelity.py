"""PSNR and SSIM against their definitions, written out, and as metrics of finer images."""

import numpy as np
import pytest
import torch

from hpcgeo.kinds.fidelity import psnr, ssim
from hpcgeo.kinds.metrics import metric_of, start
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target

TARGET = Target("super_resolution", ("red", "green"))


def images(seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return images (b, 2, H, W) and noisy ones."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, 2, 17, 14)).astype(np.float32)
    return truth, (truth + rng.normal(0, 0.1, truth.shape)).astype(np.float32)


def window_by_window(x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean SSIM of one band, as Wang et al. write it (equations 5 to 8 and 13 to 17)."""
    at = np.arange(-5, 6)
    gauss = np.exp(-(at**2) / (2 * 1.5**2))
    w = np.outer(gauss, gauss)
    w /= w.sum()
    c1, c2 = 0.01**2, 0.03**2
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum()
            cov = (w * (a - ma) * (b - mb)).sum()
            found.append(
                (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return float(np.mean(found))


def test_ssim_is_that_of_the_paper() -> None:
    truth, noisy = images(0)
    for x, y in zip(noisy.astype(float), truth.astype(float), strict=True):
        wanted = [window_by_window(a, b) for a, b in zip(x, y, strict=True)]
        assert ssim(x, y) == pytest.approx(wanted, abs=1e-9)
    assert ssim(truth[0], truth[0]) == pytest.approx([1, 1])
    assert ssim(truth[0][:, :5, :5], truth[0][:, :5, :5]) == pytest.approx([1, 1])


def test_psnr_is_that_of_all_bands() -> None:
    truth, noisy = images(1)
    wanted = 10 * np.log10(1 / np.mean((truth[0].astype(float) - noisy[0]) ** 2))
    assert psnr(noisy[0], truth[0]) == pytest.approx(wanted)
    assert psnr(truth[0], truth[0]) == 100


def test_metrics_are_means_over_images_and_merge() -> None:
    truth, noisy = images(2)
    each = {
        "psnr": [psnr(x, y) for x, y in zip(noisy, truth, strict=True)],
        "ssim": [ssim(x, y).mean() for x, y in zip(noisy, truth, strict=True)],
    }
    assert metric_of(None, TARGET) == "psnr"
    for name, numbers in each.items():
        whole, part = (start(name, TARGET, 5) for _ in range(2))
        for state, rows in ((whole, slice(0, 2)), (part, slice(2, 6))):
            clusters = [str(row) for row in range(6)][rows]
            state.update(clusters, torch.from_numpy(noisy[rows]), truth[rows])
        whole.merge(part)
        found, resampled = whole.compute()
        assert found == pytest.approx(np.mean(numbers)) and len(resampled) == 5
        assert np.isnan(start(name, TARGET).compute()[0])


def test_what_is_not_known_is_not_counted() -> None:
    truth, noisy = images(3, 1)
    truth[:, :, :, 11:] = np.nan
    state = start("psnr", TARGET)
    state.update(["a"], torch.from_numpy(noisy), truth)
    known = psnr(noisy[0, :, :, :11], truth[0, :, :, :11])
    assert state.compute()[0] == pytest.approx(known, rel=1e-6)
    answer, wanted = (torch.from_numpy(each).flatten(2).movedim(2, 1) for each in (noisy, truth))
    loss = kind_of(TARGET).loss(answer, wanted)
    apart = np.abs(noisy[..., :11] - truth[..., :11]).mean()
    assert loss.item() == pytest.approx(apart, rel=1e-5)
