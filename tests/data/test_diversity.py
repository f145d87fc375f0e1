"""Entropy of images by the folder they come from: by hand, and as the command shows it."""

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy as scipy_entropy

from hpcgeo.data.shards.dataset import ShardDataset
from hpcgeo.data.shards.diversity import ALL, HERE, entropy, origins
from tests.data.rasters import AFFINE, UTM, write_tiff
from tests.processes import hpcgeo


def built(folder, *options):
    done = hpcgeo("data", "build", folder, "--out", folder.with_suffix(".set"), *options)
    assert done.returncode == 0, done.stderr
    return folder.with_suffix(".set")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Two flat images, and four of noise of 16 levels; one lies in no folder."""
    folder = tmp_path_factory.mktemp("mixed") / "photos"
    rng = np.random.default_rng(0)
    for name in ("flat", "noise/deep"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (32, 32), (40 * number, 40 * number, 40 * number)).save(
            folder / "flat" / f"{number}.png"
        )
    for number, where in enumerate(("noise", "noise", "noise/deep", ".")):
        grey = rng.integers(0, 16, (32, 32), dtype=np.uint8) * 10
        Image.fromarray(grey).convert("RGB").save(folder / where / f"n{number}.png")
    return built(folder, "--chip", 32)


def test_by_hand(photographs):
    here, flat, noise, every = origins(ShardDataset(photographs))
    assert [one.name for one in (here, flat, noise, every)] == [HERE, "flat", "noise", ALL]
    assert [one.samples for one in (here, flat, noise, every)] == [1, 2, 3, 6]
    assert (flat.entropy, flat.together) == (0, 1)  # two levels, as often
    assert noise.entropy == pytest.approx(4, abs=0.05) and noise.together > noise.entropy
    assert every.entropy == pytest.approx((here.entropy + 3 * noise.entropy) / 6)
    # Of fewer that are read a folder counts as often as it has images.
    *_, fewer = origins(ShardDataset(photographs), read=1)
    assert fewer.samples == 6 and fewer.entropy == pytest.approx(every.entropy, abs=0.05)


def test_it_is_that_of_scipy():
    counts = np.random.default_rng(1).integers(0, 9, 50)
    assert entropy(counts) == pytest.approx(scipy_entropy(counts, base=2))
    assert np.isnan(entropy([0, 0]))


def test_numbers_that_are_no_bytes_and_what_is_missing(tmp_path):
    values = np.random.default_rng(0).normal(1000, 50, (1, 32, 32)).astype(np.float32)
    values[:, :, :4] = np.nan
    (tmp_path / "a").mkdir()
    write_tiff(tmp_path / "a" / "x.tif", values, crs=UTM, transform=AFFINE)
    one, every = origins(ShardDataset(built(tmp_path / "a", "--chip", 32, "--bands", "x")))
    assert 5 < one.entropy < 8 and every.together == one.together


def test_the_command(photographs):
    done = hpcgeo("data", "info", photographs, "--entropy")
    assert done.returncode == 0, done.stderr
    assert "50.0%" in done.stdout and "bits: entropy of the grey levels" in done.stdout
    done = hpcgeo("data", "info", photographs, "--layout", "x")
    assert done.returncode == 2 and "--layout x: of --entropy alone" in done.stderr
