"""Samples of two splits that show the same are found, listed, and left out of training."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hpcgeo.data.duplicate_list import Duplicate
from hpcgeo.data.duplicates import Looks, alike, averages, close_by
from hpcgeo.data.labelled import open_tasks
from hpcgeo.errors import InputError
from tests.data.labelled import LAYOUTS, write_table
from tests.processes import hpcgeo


def photograph(seed: int, size: int = 64) -> Image.Image:
    """Return a made-up photograph: smooth noise."""
    noise = np.random.default_rng(seed).normal(size=(size, size, 3))
    smooth = ndimage.gaussian_filter(noise, (4, 4, 0), mode="wrap")
    levels = (smooth - smooth.min()) / np.ptp(smooth) * 255
    return Image.fromarray(levels.astype(np.uint8))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photographs, of which tests 30 and 31 are those of training 0 and 1, stored otherwise."""
    folder = tmp_path_factory.mktemp("scenes")
    rows = []
    for number in range(40):
        image = photograph({30: 0, 31: 1}.get(number, number))
        if number == 30:
            image = image.resize((48, 48)).point(lambda value: int(value * 0.8 + 10))
        name = f"{number}.jpg"
        image.save(folder / name, quality=40 if number == 31 else 95)
        split = "train" if number < 24 else "validation" if number < 30 else "test"
        rows.append({"path": name, "label": "ab"[number % 2], "split": split})
    even = Image.new("RGB", (64, 64), (90, 90, 90))
    for number, split in ((40, "train"), (41, "test")):
        even.save(folder / f"{number}.jpg")
        rows.append({"path": f"{number}.jpg", "label": "a", "split": split})
    write_table(folder / "split.csv", rows)
    return folder


def test_copies_are_found_and_left_out(scenes: Path, tmp_path: Path) -> None:
    """Of another size, brightness or compression; even images are no copies of each other."""
    out = tmp_path / "list.json"
    done = hpcgeo("data", "duplicates", scenes, "--reader", "scenes", "--out", out, "--workers", 2)
    assert done.returncode == 3, done.stderr
    assert "2 pairs of test and train are the same by their looks" in done.stdout
    listed = json.loads(out.read_text())
    assert {(pair["first"], pair["second"]) for pair in listed["pairs"]} == {(0, 30), (1, 31)}
    whole, without = (
        open_tasks("scenes", scenes, split="train", patch=8, size=64, leave_out=path)
        for path in (None, out)
    )
    assert len(whole) == 25 and len(without) == 23
    assert [without.group(0), without.group(1)] == ["2.jpg", "3.jpg"]
    assert len(without.other("test")) == len(whole.other("test")) == 11
    for change, said in (
        ({"fingerprint": "x"}, "is of other data"),
        ({"samples": 3}, "is of other samples"),
        ({"split_by_place": 1.0}, "is of other split_by_place"),
        ({"pairs": [{"first": 0, "second": 99}]}, "names a sample that is not there"),
        ({"pairs": [{"first": 0}]}, "second is missing"),
    ):
        out.write_text(json.dumps({**listed, **change}))
        with pytest.raises(InputError, match=said):
            open_tasks("scenes", scenes, split="train", patch=8, size=64, leave_out=out)


def test_hashes_are_compared_as_one_by_one() -> None:
    """Against a plain count of the bits that differ."""
    rng = np.random.default_rng(0)
    bits = np.where(rng.random((300, 64)) < 0.5, 1, -1).astype(np.float32)
    for copy in range(0, 100, 3):
        bits[200 + copy] = bits[copy]
        bits[200 + copy, : copy % 9] *= -1
    small = np.full((300, 256), 1 / 16, np.float32)
    splits = np.array(["train"] * 150 + ["validation"] * 50 + ["test"] * 100)
    looks = Looks(bits, small, np.full((300, 2), np.nan), np.full(300, np.nan))
    expected = {
        (i, j): int((bits[i] != bits[j]).sum())
        for i in range(300)
        for j in range(i + 1, 300)
        if splits[i] != splits[j] and (bits[i] != bits[j]).sum() <= 6
    }
    found = {
        tuple(sorted((pair.first, pair.second))): pair.bits for pair in alike(looks, splits, 6)
    }
    assert found == expected and len(expected) >= 20


def test_averages_are_those_of_areas() -> None:
    image = np.random.default_rng(0).random((21, 30)).astype(np.float32)
    fine = np.kron(image, np.ones((8, 9)))  # 168 x 270
    blocks = fine.reshape(8, 21, 9, 30).mean((1, 3))
    np.testing.assert_allclose(averages(image, 8, 9), blocks, rtol=1e-5)


def test_places_nearer_than_an_image_is_wide() -> None:
    """At 60 degrees north 0.001 degrees of longitude are 56 m."""
    places = np.array([[10, 60], [10.001, 60], [10.004, 60], [np.nan, np.nan], [10.004, -60]])
    splits = np.array(["train", "test", "test", "test", "validation"])
    none = np.zeros((5, 64), np.float32), np.zeros((5, 256), np.float32)
    looks = Looks(*none, places, np.full(5, 60.0))
    assert close_by(looks, splits) == [Duplicate(1, 0, metres=pytest.approx(55.6, abs=0.1))]


def test_splits_that_share_ground_are_said(tmp_path: Path) -> None:
    """Tiles of a map that touch share no ground; one that is moved by half a tile does."""
    path = LAYOUTS["tile_masks"][0](tmp_path / "tiles")
    words = ["data", "duplicates", path, "--reader", "tile_masks", "--out", tmp_path / "list.json"]
    done = hpcgeo(*words)
    assert done.returncode == 0 and "0 pairs across the splits" in done.stdout
    table = path / "tiles.csv"
    text = table.read_text()
    assert "39.008" in text and text.splitlines()[9].endswith("test")
    table.write_text(text.replace("39.008,", "39.0075,", 1))  # west of the first tile of the test
    assert hpcgeo(*words).returncode == 3
    [pair] = json.loads((tmp_path / "list.json").read_text())["pairs"]
    assert pair["bits"] is None and pair["metres"] < 55
