"""A folder of photographs made here, and the folder of real imagery where there is one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.data.rasters import noise


@pytest.fixture
def real() -> Path:
    """The folder of real imagery; the test is skipped where there is none."""
    folder = Path(__file__).parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder of real imagery beside the repository")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of small PNG images in two classes."""

    def write(count: int = 12, size: int = 32) -> Path:
        folder = tmp_path / "photos"
        for number in range(count):
            path = folder / f"class{number % 2}" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(size, size, 3, seed=number)).save(path)
        return folder

    return write
