"""Pictures of reconstructions: the right bands, holes in grey, small chips enlarged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hpcgeo.pictures.pages import GAP, HEADER, save, spread_out, visible


@pytest.mark.parametrize(
    ("bands", "sensor", "chosen"),
    [
        (["red", "green", "blue"], None, [0, 1, 2]),
        (["nir", "blue", "green", "red"], None, [3, 2, 1]),
        (["B01", "B02", "B03", "B04", "B05", "B11"], "sentinel2", [3, 2, 1]),
        (["B1", "B2", "B3", "B4", "B5"], "landsat8", [3, 2, 1]),
        (["R", "G", "B", "NIR"], "naip", [0, 1, 2]),
        (["VV", "VH"], "sentinel1", [0, 0, 0]),
        (["elevation"], "dem", [0, 0, 0]),
        (["anything", "else"], None, [0, 0, 0]),
    ],
)
def test_bands_shown(bands: list[str], sensor: str | None, chosen: list[int]) -> None:
    assert visible(bands, sensor) == chosen


def test_a_picture(tmp_path: Path) -> None:
    image = torch.zeros(1, 3, 40, 40)
    image[:, 0, :20] = 1  # red above, black below
    holes = image.clone()
    holes[:, :, :, :20] = torch.nan
    path = tmp_path / "pictures" / "one.png"
    save(path, {"input": image, "masked": holes}, [0, 1, 2])
    pixels = np.asarray(Image.open(path))
    side = 160 + GAP  # enlarged four times, and its frame
    assert pixels.shape == (side + HEADER, 2 * side, 3)
    first, second = pixels[HEADER:, :side], pixels[HEADER:, side:]
    assert tuple(first[40, 40]) == (255, 0, 0) and tuple(first[120, 40]) == (0, 0, 0)
    assert tuple(second[40, 40]) == (128, 128, 128) and tuple(second[40, 120]) == (255, 0, 0)
    assert [p.name for p in path.parent.iterdir()] == ["one.png"]


def test_samples_are_spread_out() -> None:
    assert spread_out(3, 101).tolist() == [0, 50, 100]
    assert spread_out(6, 2).tolist() == [0, 1]
