"""A map lies on the grid of its scene, says what it is, and is laid out for the cloud."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from hpcgeo.errors import InputError
from hpcgeo.kinds.maps import FORMS
from hpcgeo.kinds.target import Target
from hpcgeo.maps.geotiff import RasterForm, limited, write_map
from hpcgeo.maps.reading import SceneGrid
from tests.data.rasters import AFFINE, UTM, noise

GRID = SceneGrid(1300, 900, UTM, AFFINE)


def write(path: Path, form: RasterForm, pixels: np.ndarray, grid: SceneGrid = GRID) -> None:
    cuts = range(0, pixels.shape[1], 100)
    write_map(path, grid, form, ((top, pixels[:, top : top + 100]) for top in cuts))


def cloud_optimised(path: Path) -> list[str]:
    """Return what is wrong with the layout of a file: directories first, the largest data last."""
    wrong = []
    with rasterio.open(path) as file:
        if file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG":
            wrong.append("no layout of a COG")
        if file.block_shapes[0] != (512, 512) and max(file.shape) > 512:
            wrong.append("not tiled")
        factors = file.overviews(1)
        if max(file.shape) > 512 and max(file.shape) / factors[-1] > 512:
            wrong.append("no small overview")
        # GDAL says where each block begins: those of smaller versions come first.
        ends = []
        for level in range(-1, len(factors)):
            options = {} if level < 0 else {"OVERVIEW_LEVEL": level}
            with rasterio.open(path, **options) as part:
                ends.append(int(part.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1) or 0))
        there = [end for end in ends if end]
        if there != sorted(there, reverse=True):
            wrong.append("data of the largest version is not last")
    return wrong


def test_a_map_of_classes(tmp_path):
    target = Target("segmentation", ("water", "wood", "town"))
    form, path = FORMS["class"], tmp_path / "deep" / "a.tif"
    pixels = noise(1, 1300, 900, low=0, high=3)
    pixels[:, :200] = 255
    tags = form.tags(target) | {"HPCGEO_TASK": "cover"}
    said = RasterForm(
        "uint8", 255.0, form.bands(target), 1.0, form.overviews, form.colours(target), tags
    )
    write(path, said, pixels)
    assert cloud_optimised(path) == []
    assert [file.name for file in path.parent.iterdir()] == ["a.tif"]  # nothing beside it
    with rasterio.open(path) as file:
        assert (file.crs, file.transform, file.shape) == (UTM, AFFINE, (1300, 900))
        assert (file.nodata, file.descriptions) == (255, ("class",))
        assert file.tags()["CLASS_1"] == "wood" and file.tags()["HPCGEO_TASK"] == "cover"
        assert len({file.colormap(1)[value][:3] for value in range(3)}) == 3
        np.testing.assert_array_equal(file.read(), pixels)
    with rasterio.open(path, overview_level=0) as small:
        assert set(np.unique(small.read())) <= {0, 1, 2, 255}  # no class between two


def test_a_map_of_numbers_has_their_scale(tmp_path):
    pixels = noise(2, 1300, 900, low=0, high=251)
    pixels[:, :, 450:] = 255
    form = FORMS["probabilities"]
    target = Target("segmentation", ("no", "yes"))
    said = RasterForm("uint8", 255.0, form.bands(target), form.scale("uint8"))
    write(tmp_path / "a.tif", said, pixels)
    assert cloud_optimised(tmp_path / "a.tif") == []
    with rasterio.open(tmp_path / "a.tif") as file:
        assert (file.descriptions, file.scales) == (("no", "yes"), (0.004, 0.004))
        np.testing.assert_array_equal(file.read(), pixels)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as small:
        half = small.read(1)
        blocks = pixels[0].reshape(650, 2, 450, 2).mean((1, 3))
        inside = half != 255
        np.testing.assert_allclose(half[inside], blocks[inside], atol=1)
        assert not inside[:, 226:].any() and inside[:, :224].all()  # nodata is no number


def test_a_photograph_has_no_place(tmp_path):
    grid = SceneGrid(40, 50, None, Affine.identity())
    said = RasterForm("float32", float("nan"), ("height",))
    pixels = np.random.default_rng(0).normal(size=(1, 40, 50)).astype(np.float32)
    write(tmp_path / "a.tif", said, pixels, grid)
    with limited(), rasterio.open(tmp_path / "a.tif") as file:
        assert file.crs is None and np.isnan(file.nodata)
        np.testing.assert_array_equal(file.read(), pixels)


def test_a_grid_without_a_crs_keeps_its_place(tmp_path):
    said, grid = RasterForm("uint8", 255.0, ("class",)), SceneGrid(40, 50, None, AFFINE)
    write(tmp_path / "local.tif", said, np.zeros((1, 40, 50), np.uint8), grid)
    with rasterio.open(tmp_path / "local.tif") as file:
        assert file.crs is None and file.transform == AFFINE


def test_a_full_disk_leaves_no_map(small_disk):
    said = RasterForm("uint8", 255.0, ("a", "b", "c", "d"))
    grid = SceneGrid(3500, 3500, UTM, AFFINE)
    pixels = noise(4, 3500, 3500, low=0, high=255)
    with pytest.raises(InputError, match="cannot be written"):
        write(small_disk / "a.tif", said, pixels, grid)
    assert not list(small_disk.iterdir())
