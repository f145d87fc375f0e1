"""`hpcgeo predict`: whole scenes on their own grid; stopped and resumed, on any ranks, the same."""

import fcntl
import json
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from tests.data.rasters import AFFINE, UTM, write_tiff
from tests.maps.test_geotiff import cloud_optimised
from tests.processes import Process, hpcgeo
from tests.ranks import ended, launch

#: Of tiles and pairs that are made up: their values are small numbers.
TASKS = ["data.only=[tiles,pairs]", "train.steps=2", "optim.warmup_steps=1", "train.micro_batch=2"]


def scene(path: Path, height: int, width: int, names: str = "RGB", seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).normal(size=(len(names), height, width))
    pixels[:, : height // 3, : width // 2] = -99
    pixels = pixels.astype(np.float32)
    return write_tiff(path, pixels, names=names, nodata=-99, crs=UTM, transform=AFFINE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "toy"
    options = [*TASKS, "train.eval_every=null", "checkpoint.every=2", f"run.dir={folder}"]
    found = hpcgeo("train", "gpna_tiny", *options)
    assert found.returncode == 0, found.stderr
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    scene(folder / "north.tif", 75, 90)
    scene(folder / "deep" / "small.tif", 20, 40, seed=1)
    return folder


@pytest.fixture(scope="module")
def maps(run: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The maps of both scenes: probabilities."""
    out = tmp_path_factory.mktemp("maps")
    found = predict(run, folder, out)
    assert found.returncode == 0, found.stderr
    return out


def words(run: Path, folder: object, out: Path, *more: object) -> list[object]:
    how = ["--task", "tiles", "--what", "probabilities", "--dtype", "uint16"]
    return ["predict", run, folder, "--out", out, *how, *more]


def predict(run: Path, folder: object, out: Path, *more: object):
    return hpcgeo(*words(run, folder, out, *more))


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.tif"))}


def test_a_map_lies_on_its_scene(maps, folder):
    assert sorted(files(maps)) == ["deep/small.tif", "north.tif"]
    assert (maps / "north.png").exists() and not (maps / ".parts").exists()
    for name in files(maps):
        with rasterio.open(maps / name) as made, rasterio.open(folder / name) as given:
            assert (made.crs, made.transform, made.shape) == (
                given.crs,
                given.transform,
                given.shape,
            )
            assert made.descriptions == ("0", "1") and made.scales == (1e-4, 1e-4)
            assert made.tags()["HPCGEO_RUN"] == "toy" and made.tags()["HPCGEO_STEP"] == "2"
            missing = given.read(1) == -99
            pixels = made.read()
        assert ((pixels == 65535) == missing).all()
        assert np.isin(pixels[:, ~missing].astype(np.int64).sum(0), range(9999, 10002)).all()
        assert cloud_optimised(maps / name) == []


def test_a_second_start_makes_nothing_again_unless_it_must(run, folder, maps):
    before = {path: path.stat().st_mtime_ns for path in maps.rglob("*.tif")}
    found = predict(run, folder, maps)
    assert found.returncode == 0 and "2 were there already" in found.stderr
    assert before == {path: path.stat().st_mtime_ns for path in maps.rglob("*.tif")}
    other = predict(run, folder, maps, "--overlap", "0.5")
    assert other.returncode == 2 and "overlap: [8, 8] -> [16, 16]" in other.stderr
    assert "--force" in other.stderr


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_makes_the_same_bytes(run, folder, maps, tmp_path, ranks):
    code, said = ended(launch(ranks, *words(run, folder, tmp_path / "out")))
    assert code == 0, said
    assert files(tmp_path / "out") == files(maps)


def test_a_killed_start_goes_on_where_it_was(run, folder, maps, tmp_path):
    out = tmp_path / "out"
    process = Process(*words(run, folder, out))
    limit = time.monotonic() + 200
    while process.poll() is None and not [*out.glob(".parts/north/*.npy")]:
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.kill()
    process.wait(60)
    kept = {path: path.stat().st_mtime_ns for path in out.glob(".parts/north/*.npy")}
    done = (out / "north.tif").exists()
    found = predict(run, folder, out)
    assert found.returncode == 0, found.stderr
    assert kept or done
    assert files(out) == files(maps)


def test_strips_of_an_earlier_start_are_not_made_again(run, folder, maps, tmp_path):
    """A strip that was kept is what the map shows, whatever it holds."""
    out = tmp_path / "out"
    assert predict(run, folder, out).returncode == 0
    one = json.loads((out / "maps.jsonl").read_text().splitlines()[-1])
    parts = out / ".parts" / one["name"].replace("/", "%")
    parts.mkdir(parents=True)
    (parts / "scene").write_text(one["scene"])
    np.save(parts / "000000.npy", np.full((2, 16, one["width"]), 7, np.uint16))
    (out / f"{one['name']}.tif").unlink()
    assert predict(run, folder, out).returncode == 0
    with rasterio.open(out / f"{one['name']}.tif") as made:
        assert (made.read()[:, :16] == 7).all() and not (made.read()[:, 16:] == 7).all()


def test_a_broken_scene_is_named_and_the_rest_is_mapped(run, folder, maps, tmp_path):
    scene(tmp_path / "in" / "good.tif", 40, 40)
    (tmp_path / "in" / "broken.tif").write_bytes((folder / "north.tif").read_bytes()[:9000])
    scene(tmp_path / "in" / "other.tif", 40, 40, names="xyz")
    for ranks in (1, 2):
        out = tmp_path / f"out{ranks}"
        code, said = ended(launch(ranks, *words(run, tmp_path / "in", out)))
        assert code == 1 and list(files(out)) == ["good.tif"]
        assert "broken: no map:" in said and "other: no map:" in said
        assert "1 of 3 scenes are mapped" in said


def test_a_change_between_two_dates(run, tmp_path):
    scene(tmp_path / "a.tif", 40, 50, names=("B4", "B5"))
    after = np.random.default_rng(1).normal(size=(2, 40, 50)).astype(np.float32)
    after[:, 30:] = -99
    write_tiff(tmp_path / "b.tif", after, names=("B4", "B5"), nodata=-99, crs=UTM, transform=AFFINE)
    out = tmp_path / "out"
    how = ["--task", "pairs", "--dates", "2010,2020", "--out", out]
    found = hpcgeo("predict", run, f"{tmp_path}/a.tif,{tmp_path}/b.tif", *how)
    assert found.returncode == 0, found.stderr
    with rasterio.open(out / "b.tif") as made:
        pixels = made.read(1)
        assert made.tags()["CLASS_1"] == "1"
    missing = np.zeros((40, 50), np.bool_)
    missing[:13, :25] = missing[30:] = True
    assert ((pixels == 255) == missing).all()
    alone = hpcgeo("predict", run, tmp_path / "a.tif", "--task", "pairs", "--out", tmp_path / "c")
    assert alone.returncode == 1 and "give BEFORE,AFTER" in alone.stderr


def test_a_run_without_preparation_opens_its_data(run, folder, maps, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    for path in run.iterdir():
        if path.name != "preparation.json":
            (old / path.name).symlink_to(path)
    found = predict(old, folder, tmp_path / "out")
    assert found.returncode == 0 and "keeps no preparation" in found.stderr
    for name in files(maps):
        with rasterio.open(tmp_path / "out" / name) as made, rasterio.open(maps / name) as given:
            np.testing.assert_array_equal(made.read(), given.read())


WRONG = {
    "task": (["--task", "scenes"], "unknown task 'scenes'"),
    "no task": ([], "several tasks of pixels: choose with --task"),
    "what": (["--what", "numbers"], "--what numbers: task tiles is a segmentation: choose class"),
    "dtype": (["--what", "class", "--dtype", "float32"], "a map of class has uint8 or uint16"),
    "overlap": (["--overlap", "0.75"], "--overlap 0.75: a fraction from 0 to 0.5"),
    "tile": (["--tile", "30"], "--tile 30: a multiple of 4"),
    "step": (["--step", "9"], "no checkpoint of step 9"),
    "data": (["--data", "tiles=elsewhere"], "leave --data out"),
}


@pytest.mark.parametrize(("more", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_said_before_any_work(run, folder, tmp_path, more, message):
    if more and "--task" not in more:
        more = ["--task", "tiles", *more]
    found = hpcgeo("predict", run, folder, "--out", tmp_path / "out", *more)
    assert found.returncode == 2 and message in found.stderr, found.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(run, folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = predict(run, folder, out)
    assert found.returncode == 2 and "in use by another process" in found.stderr


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_a_scene_is_never_written_over(run, tmp_path, ending):
    given = scene(tmp_path / "here.tif", 40, 40)
    if ending == "png":
        given = tmp_path / "here.png"
        Image.new("RGB", (40, 40)).save(given)
        (tmp_path / "here.tif").unlink()
    before = given.read_bytes()
    found = predict(run, given, tmp_path)
    assert found.returncode == 2, found.stderr
    assert f"here.{ending} is a scene, and what is made of here would be written over it" in (
        found.stderr
    )
    assert given.read_bytes() == before and not (tmp_path / ".parts").exists()
