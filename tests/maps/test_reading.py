"""What the model is given of a scene is what it was given in training; files are named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine

from hpcgeo.data.labelled import open_tasks
from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.maps.bands import BandNames
from hpcgeo.maps.layers import SceneWords
from hpcgeo.maps.reading import SceneReader
from hpcgeo.maps.scenes import NamedScene, scenes
from hpcgeo.options import Task
from hpcgeo.workloads.preparation import PreparedBand, PreparedTask, preparation_of
from tests.data.labelled import pairs, tile_masks
from tests.data.rasters import AFFINE, UTM, noise, write_tiff
from tests.data.test_rasters import at, say

RGB = tuple(PreparedBand("rgb", band, 0, 100.0, 50.0) for band in "RGB")
PHOTOS = PreparedTask(
    target=Target("segmentation", ("no", "yes")),
    bands=RGB,
    patch=8,
    chip=(32, 32),
    dates=1,
    gsd_m=(9.0, 11.0),
    timed=True,
    placed=True,
)
PLAIN = SceneWords()


def prepared(reader: str, path: Path, size: int | None, patch: int = 8) -> tuple:
    """Return the training split of a data set, and how its samples are prepared."""
    part = open_tasks(reader, path, split="train", size=size, patch=patch)
    task = Task(reader=reader, path=path, size=size, patch=patch)
    return part, preparation_of({"it": part}, {"it": task}).tasks["it"]


def assert_same(found, expected) -> None:
    assert len(found.observations) == len(expected.observations)
    for ours, theirs in zip(found.observations, expected.observations, strict=True):
        assert (ours.channels, ours.patch, ours.orbit) == (
            theirs.channels,
            theirs.patch,
            theirs.orbit,
        )
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.time, theirs.time)
        np.testing.assert_allclose(ours.gsd_m, theirs.gsd_m, rtol=1e-9)
    np.testing.assert_allclose(found.place, expected.place, rtol=1e-12)
    np.testing.assert_allclose(found.elevation_m, expected.elevation_m)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentinel-2 at 10 m with clouds, Sentinel-1 at 20 m, elevation at 30 m, of one place."""
    folder = tmp_path_factory.mktemp("three")
    clouds = np.full((1, 70, 70), 4, np.uint8)
    clouds[0, :32, :16] = 9
    for number, day in enumerate(("20200101", "20200705")):
        optical = noise(3, 70, 70, dtype="uint16", high=9000, seed=number)
        optical[:, 40:50, 3:9] = 0
        write_tiff(
            folder / f"S2_{day}.tif", optical, names=("B02", "B03", "B08"), nodata=0, **at(10)
        )
        write_tiff(folder / f"SCL_{day}.tif", clouds, **at(10))
        backscatter = noise(2, 35, 35, dtype="float32", seed=number)
        write_tiff(folder / f"S1_{day}.tif", backscatter, names=("VV_dB", "VH_dB"), **at(20))
    write_tiff(folder / "dem.tif", noise(1, 24, 24, dtype="int16"), **at(30))
    classes = noise(1, 70, 70, low=0, high=3)
    write_tiff(folder / "labels.tif", classes, **at(10))
    hidden = {"files": "SCL_{date}.tif", "values": [9]}
    return say(
        folder,
        {"files": "S2_{date}.tif", "sensor": "sentinel2", "clouds": hidden},
        {"files": "S1_{date}.tif", "sensor": "sentinel1", "patch": 4, "orbit": "descending"},
        {"files": "dem.tif", "sensor": "dem", "bands": ["elevation"], "patch": 4},
        cover={"files": "labels.tif", "classes": {1: "field", 2: "wood"}},
    )


def test_a_tile_of_several_sensors_is_what_training_was_given(three, tmp_path):
    part, task = prepared("rasters", three, 32)
    (scene,) = scenes([str(three)], tmp_path)
    with SceneReader(scene, task, PLAIN, every_date=False) as reader:
        tiles = {
            (top, left): tile
            for top in (0, 32)
            for left, tile in zip((0, 32), reader.tiles(top, (0, 32), (32, 32)), strict=True)
        }
    # Training holds some chips back: they are found among the tiles by their place.
    assert len(part) >= 2
    for index in range(len(part)):
        expected = part.read(index)
        (found,) = [
            tile.sample
            for tile in tiles.values()
            if np.allclose(tile.sample.place, expected.place, atol=1e-9)
        ]
        assert_same(found, expected)
    assert not tiles[32, 0].there[8:18, 3:9].any() and tiles[32, 0].there[:8].all()
    assert not tiles[0, 0].there[:, :16].any()  # clouds on every date


def test_a_tile_of_two_dates_is_what_training_was_given(tmp_path):
    part, task = prepared("pairs", pairs(tmp_path / "pairs"), None)
    path = Path(part.collection.load.args[0][0])  # of the first sample, before
    other = Path(str(path).replace("/A/", "/B/"))
    (scene,) = scenes([f"{path},{other}"], tmp_path / "out")
    named = SceneWords(BandNames(names=("B5", "B4", "B3", "B2")), ("1990", "2000"))
    with SceneReader(scene, task, named, every_date=True) as reader:
        (tile,) = reader.tiles(0, (0,), (32, 32))
    expected = next(part.read(index) for index in range(len(part)) if part.indices[index] == 0)
    assert_same(tile.sample, expected)
    assert not tile.there[:16, :16].any() and tile.there[16:].all()  # missing before, not after
    with pytest.raises(
        InputError, match=r"no band B5, B4, B3, B2 of landsat7.*--bands B5,B4,B3,B2"
    ):
        SceneReader(scene, task, PLAIN, every_date=True).__enter__()
    with pytest.raises(InputError, match="give BEFORE,AFTER"):
        SceneReader(NamedScene("a", (path,)), task, replace(named, dates=None), True).__enter__()
    with pytest.raises(InputError, match=r"2 dates, and .* is a scene of 1"):
        SceneReader(NamedScene("a", (path,)), task, named, every_date=True).__enter__()


def test_a_photograph_lies_nowhere(tmp_path):
    part, task = prepared("tile_masks", tile_masks(tmp_path / "tiles"), 32)
    Image.fromarray(noise(40, 50, 3)).save(tmp_path / "photo.png")
    (scene,) = scenes([str(tmp_path / "photo.png")], tmp_path / "out")
    with SceneReader(scene, task, PLAIN, every_date=False) as reader:
        assert (reader.grid.height, reader.grid.width, reader.grid.crs) == (40, 50, None)
        first, last = reader.tiles(8, (0, 18), (32, 32))
        assert np.isnan(reader.gsd_m())
    seen = last.sample.observations[0]
    assert seen.channels == part.channels and np.isnan([*last.sample.place, seen.gsd_m]).all()
    moments = np.array([part.moments[channel] for channel in part.channels], np.float32)
    stored = noise(40, 50, 3)[8:, 18:].transpose(2, 0, 1)
    mean, std = moments.T[:, :, None, None]
    np.testing.assert_array_equal(seen.values[0], (stored - mean) / std)
    assert first.there.all()


def test_beyond_a_small_scene_pixels_are_reflected_and_are_not_there(tmp_path):
    stored = noise(3, 20, 40)
    path = write_tiff(tmp_path / "a.tif", stored, names="RGB", crs=UTM, transform=AFFINE)
    with SceneReader(NamedScene("a", (path,)), PHOTOS, PLAIN, every_date=False) as reader:
        (tile,) = reader.tiles(0, (8,), (32, 32))
    values = tile.sample.observations[0].values[0] * 50 + 100
    np.testing.assert_allclose(values[:, :20], stored[:, :, 8:], atol=1e-3)
    np.testing.assert_allclose(values[:, 20:], stored[:, 18:6:-1, 8:], atol=1e-3)
    assert tile.there.shape == (20, 32)


@pytest.mark.parametrize(
    ("names", "said", "message"),
    [
        (("x", "y", "z"), PLAIN, "no band R, G, B of rgb .*--bands R,G,B, if that is their order"),
        (("R", "G"), PLAIN, "no band B of rgb among its 'R, G': the model needs them all"),
        (("a", "b", "c", "d"), PLAIN, "name its 4 bands in their order with --bands"),
        (("R", "G", "B"), SceneWords(BandNames("sentinel2")), "unknown sensor of the task"),
        (("x", "y", "z"), SceneWords(BandNames(names=("R", "G"))), "3 bands, and --bands names 2"),
        (("x", "y", "z"), SceneWords(BandNames(names=("R", "G", "Q"))), "unknown band of the task"),
    ],
)
def test_bands_that_are_not_those_of_the_task(names, said, message, tmp_path):
    path = write_tiff(
        tmp_path / "a.tif", noise(len(names), 32, 32), names=names, crs=UTM, transform=AFFINE
    )
    with pytest.raises(InputError, match=message):
        SceneReader(NamedScene("a", (path,)), PHOTOS, said, every_date=False).__enter__()


def test_bands_are_found_by_name_in_any_order(tmp_path):
    stored = noise(4, 32, 32)
    path = write_tiff(
        tmp_path / "a.tif", stored, names=("nir", "B", "G", "R"), crs=UTM, transform=AFFINE
    )
    with SceneReader(NamedScene("a", (path,)), PHOTOS, PLAIN, every_date=False) as reader:
        (tile,) = reader.tiles(0, (0,), (32, 32))
    seen = tile.sample.observations[0]
    assert seen.channels == tuple(Channel("rgb", band) for band in "RGB")
    np.testing.assert_allclose(seen.values[0] * 50 + 100, stored[[3, 2, 1]], atol=1e-3)
    for names in (("-", "R", "G", "B"), ("-", "red", "green", "blue")):  # as `data build` has them
        other = SceneWords(BandNames(names=names))
        with SceneReader(NamedScene("a", (path,)), PHOTOS, other, every_date=False) as reader:
            (tile,) = reader.tiles(0, (0,), (32, 32))
        seen = tile.sample.observations[0]
        np.testing.assert_allclose(seen.values[0] * 50 + 100, stored[1:], atol=1e-3)


def test_dates_on_other_grids_are_brought_to_the_first(tmp_path):
    stored = noise(3, 48, 48)
    moved = AFFINE @ Affine.translation(2, 3) if hasattr(Affine, "__matmul__") else None
    moved = moved or AFFINE * Affine.translation(2, 3)
    first = write_tiff(tmp_path / "a.tif", stored, names="RGB", crs=UTM, transform=AFFINE)
    second = write_tiff(
        tmp_path / "b.tif", stored[:, 3:, 2:], names="RGB", crs=UTM, transform=moved
    )
    with SceneReader(NamedScene("a", (first, second)), PHOTOS, PLAIN, every_date=True) as reader:
        (tile,) = reader.tiles(0, (0,), (32, 32))
    before, after = tile.sample.observations[0].values
    np.testing.assert_array_equal(before[:, 3:, 2:], after[:, 3:, 2:])
    assert np.isnan(after[:, :3]).all() and not tile.there[:3].any() and tile.there[3:, 2:].all()
    degrees = {"crs": CRS.from_epsg(4326), "transform": Affine(1e-4, 0, 14, 0, -1e-4, 46)}
    other = write_tiff(tmp_path / "c.tif", stored, names="RGB", **degrees)
    with pytest.raises(InputError, match="another CRS than"):
        SceneReader(NamedScene("a", (first, other)), PHOTOS, PLAIN, every_date=True).__enter__()
    broken = tmp_path / "d.tif"
    broken.write_bytes(first.read_bytes()[:100])
    with pytest.raises(InputError, match=r"d\.tif: cannot be read"):
        SceneReader(NamedScene("d", (broken,)), PHOTOS, PLAIN, every_date=False).__enter__()


def test_what_a_command_line_names(tmp_path):
    for name in ("a/x.tif", "a/deep/y.tif", "b/x.tif", "b/deep/y.tif", "out/z.tif"):
        write_tiff(tmp_path / name, noise(3, 8, 8), crs=UTM, transform=AFFINE)
    out = tmp_path / "out"

    def names(*texts: str) -> list[str]:
        return [scene.name for scene in scenes(texts, out)]

    assert names(f"{tmp_path}/a") == ["deep/y", "x"]
    assert names(f"{tmp_path}/a/x.tif", f"{tmp_path}/b/deep/y.tif") == ["x", "y"]
    assert names(f"{tmp_path}/b/*.tif") == ["x"]
    assert names(f"{tmp_path}/a,{tmp_path}/b") == ["deep/y", "x"]
    assert "out/z" not in names(str(tmp_path / "a"), f"{tmp_path}/out/../b/deep")
    pair = scenes([f"{tmp_path}/a/x.tif,{tmp_path}/b/deep/y.tif"], out)
    assert [path.name for path in pair[0].files] == ["x.tif", "y.tif"] and pair[0].name == "y"
    for wrong, message in (
        ([f"{tmp_path}/none.tif"], "no such file or folder"),
        ([f"{tmp_path}/*.png"], "no file fits"),
        ([f"{tmp_path}/a", f"{tmp_path}/b"], "would both be the map"),
        ([f"{tmp_path}/a,{tmp_path}/b/x.tif"], "give a file, or a folder, for each date"),
        ([f"{tmp_path}/a,{tmp_path}/none"], "none: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            scenes(wrong, out)
    (tmp_path / "b/x.tif").unlink()
    with pytest.raises(InputError, match="no image x, as in the other folders"):
        scenes([f"{tmp_path}/a,{tmp_path}/b"], out)
