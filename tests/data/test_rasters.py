"""Rasters that lie over each other: the same ground, real units, no token of what is missing."""

import json
import os
import re
import shlex
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled import open_tasks
from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.readers.collection import Frame, days, year
from hpcgeo.data.readers.rasters import collect
from hpcgeo.data.readers.windows import valid
from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import IGNORED
from hpcgeo.models.initialise import draw
from hpcgeo.models.perceiver import Perceiver
from hpcgeo.models.tokenizers import Tokenizer
from hpcgeo.objectives.collate import tokens, whole
from hpcgeo.options import Batching
from hpcgeo.workloads.choice import workload_of
from hpcgeo.workloads.mixture import band_of
from hpcgeo.zoo import architecture
from tests.data.rasters import UTM, noise, write_tiff
from tests.processes import hpcgeo
from tests.ranks import metrics

WEST, NORTH = 465_000, 5_080_000
ROOT = Path(__file__).parents[2]


def at(gsd: float, east: float = 0, south: float = 0) -> dict:
    """Return where a raster lies, from the north-west corner in metres."""
    return {"crs": UTM, "transform": Affine(gsd, 0, WEST + east, 0, -gsd, NORTH - south)}


def ground(size: int, gsd: float, east: float = 0, south: float = 0) -> np.ndarray:
    """Return two bands of pixels that say where they lie: metres to the east, to the south."""
    centres = (np.arange(size) + 0.5) * gsd
    return np.stack(np.meshgrid(centres + east, centres + south)).astype(np.float32)


def say(folder: Path, *rasters: dict, **labels: dict) -> Path:
    (folder / "samples.yaml").write_text(yaml.safe_dump({"rasters": [*rasters], "labels": labels}))
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentinel-2 at 10 m, Sentinel-1 at 20 m, Landsat and elevation at 30 m, of one place."""
    folder = tmp_path_factory.mktemp("four")
    for number, day in enumerate(("20200101", "20200606", "20200705")):
        optical = noise(4, 70, 70, dtype="uint16", high=9000, seed=number)
        if day == "20200606":
            optical[:] = 0  # nothing at all was seen
        if day == "20200705":
            optical[2] = 0  # a band is missing
            optical[1, :8, :8] = 0  # a token
            optical[0, 8:16, :3] = 0  # less than half of one
        names = ("B02", "B03", "B04", "B08")
        write_tiff(folder / f"S2_{day}.tif", optical, names=names, nodata=0, **at(10))
    for day in ("20200103", "20200707"):
        backscatter = noise(2, 35, 35, dtype="float32")
        write_tiff(folder / f"S1_{day}.tif", backscatter, names=("VV_dB", "VH_dB"), **at(20))
    write_tiff(folder / "L8_2020.tif", noise(3, 24, 24, dtype="uint16"), **at(30))
    write_tiff(folder / "dem.tif", noise(1, 24, 24, dtype="int16"), **at(30))
    clouds = np.full((1, 70, 70), 4, np.uint8)
    clouds[0, :32, :16] = 9
    for day in ("20200101", "20200606", "20200705"):
        write_tiff(folder / f"SCL_{day}.tif", clouds, **at(10))
    classes = np.zeros((1, 70, 70), np.uint8)
    classes[0, :32, :20], classes[0, :32, 20:32] = 7, 8
    write_tiff(folder / "labels.tif", classes, nodata=0, **at(10))
    return say(
        folder,
        {"files": "S2_{date}.tif", "sensor": "sentinel2"},
        {"files": "S1_{date}.tif", "sensor": "sentinel1", "patch": 4, "orbit": "descending"},
        {"files": "L8_{date}.tif", "sensor": "landsat8", "bands": ["B2", None, "B4"], "patch": 4},
        {"files": "dem.tif", "sensor": "dem", "bands": ["elevation"], "patch": 4},
        cover={"files": "labels.tif", "classes": {7: "field", 8: "wood"}},
    )


def counts(found) -> list[int]:
    return [int(kept.sum()) for kept in found.kept]


def test_four_sensors_are_one_sample(four):
    found = collect(four, None, Frame(8, 32))
    assert len(found.splits) == 4  # 70 pixels are two chips of 32; the rest is left
    sample = found.load(0)
    sizes = [seen.values.shape for seen in sample.observations]
    # 320 m are 32, 16 and 10.7 pixels; whole tokens of 4 pixels are nearest at 12
    assert sizes == [(3, 4, 32, 32), (2, 2, 16, 16), (1, 2, 12, 12), (1, 1, 12, 12)]
    gsd = [seen.gsd_m for seen in sample.observations]
    assert gsd == pytest.approx([10, 20, 320 / 12, 320 / 12], rel=1e-3)
    assert [seen.orbit for seen in sample.observations] == [0, -1, 0, 0]
    assert sample.observations[2].channels == (Channel("landsat8", "B2"), Channel("landsat8", "B4"))
    dates = [days(date(2020, *day), date(2020, day[0], day[1] + 1)) for day in ((1, 1), (6, 6))]
    assert sample.observations[0].time[:2].tolist() == [list(each) for each in dates]
    assert sample.observations[2].time.tolist() == [list(year(2020))]
    assert np.isinf(sample.observations[3].time[0, 1])
    lon, lat = transform(UTM, CRS.from_epsg(4326), [WEST + 160], [NORTH - 160])
    assert sample.place == pytest.approx((lon[0], lat[0]), abs=1e-6)
    assert 1 <= sample.elevation_m[0] <= 200 and sample.elevation_m[1] > 4
    assert (sample.target[:, :20] == 0).all() and (sample.target[:, 20:] == 1).all()
    assert (found.load(3).target == IGNORED).all()
    # 16 tokens of each date and band; the second date has none, the third lacks a band and a token
    assert counts(plain(sample)) == [64 + 0 + 47, 2 * 2 * 16, 2 * 9, 9]
    assert counts(plain(found.load(3))) == [64 + 48, 64, 18, 9]


def test_clouds_are_dropped(four):
    rows = yaml.safe_load((four / "samples.yaml").read_text())["rasters"][:1]
    rows[0]["clouds"] = {"files": "SCL_{date}.tif", "values": [8, 9]}
    path = four / "clouds.yaml"
    path.write_text(yaml.safe_dump({"rasters": rows}))
    found = collect(path, None, Frame(8, 32))
    # half of 16 tokens remain; the token that is missing anyway lies under the clouds
    assert counts(plain(found.load(0))) == [32 + 0 + 24]
    assert counts(plain(found.load(1))) == [64 + 0 + 48]
    assert found.target.kind == "unlabelled" and found.load(0).target.shape == (0,)
    write_tiff(four / "CLD_20200101.tif", np.ones((1, 70, 70), np.uint8), **at(10))
    rows[0]["clouds"]["files"] = "CLD_{date}.tif"
    path.write_text(yaml.safe_dump({"rasters": rows}))
    with pytest.raises(InputError, match=r"S2_20200606.tif: no CLD_\{date\}.tif of the same"):
        collect(path, None, Frame(8, 32))


def test_they_go_through_the_model_together(four):
    sample = open_tasks("rasters", four, split="train", patch=8, size=32).read(0)
    drawn = [plain(sample)]
    channels = sorted({channel for seen in sample.observations for channel in seen.channels})
    model = architecture("gpna_tiny")
    tokenizer, backbone = Tokenizer(channels, model.context), Perceiver(model)
    for part in (tokenizer, backbone):
        for name, weight in part.named_parameters():
            weight.data = draw(name, weight.shape, slice(None), seed=0)
    made, _ = tokens(drawn, Batching(), partial(band_of, None), whole(drawn))
    flat = tokenizer(made).flat
    assert flat.shape == (drawn[0].length, model.context)
    latents = backbone(flat, made.layout)
    assert latents.shape == (1, model.latents, model.stack.width) and latents.isfinite().all()
    for number, seen in enumerate(sample.observations):  # every sensor has a say
        values = seen.values.copy()
        values[np.isfinite(values)] += 1
        others = list(sample.observations)
        others[number] = replace(seen, values=values)
        changed, _ = tokens(
            [plain(replace(sample, observations=tuple(others)))],
            Batching(),
            partial(band_of, None),
            whole(drawn),
        )
        again = backbone(tokenizer(changed).flat, changed.layout)
        assert not torch.allclose(again, latents)


@pytest.mark.parametrize("chip", range(4))
def test_every_sensor_sees_the_same_ground(tmp_path, chip):
    """Pixels say where they lie, so what is read at another grid must say where it lies there."""
    write_tiff(tmp_path / "S2.tif", ground(64, 10), names=("B04", "B08"), **at(10))
    far = {"east": -200, "south": -100}
    write_tiff(tmp_path / "S1.tif", ground(60, 20, **far), names=("VV", "VH"), **at(20, **far))
    write_tiff(tmp_path / "dem.tif", ground(40, 30, **far), **at(30, **far))
    small = {"east": 100, "south": 200}  # covers a part of the first chip alone
    write_tiff(tmp_path / "L8.tif", ground(3, 30, **small), names=("B4", "B5"), **at(30, **small))
    say(
        tmp_path,
        {"files": "S2.tif", "sensor": "sentinel2"},
        {"files": "S1.tif", "sensor": "sentinel1"},
        {"files": "dem.tif", "sensor": "dem", "bands": ["elevation", "slope"]},
        {"files": "L8.tif", "sensor": "landsat8", "patch": 1},
    )
    sample = collect(tmp_path, None, Frame(4, 32)).load(chip)
    row, column = divmod(chip, 2)
    for seen in sample.observations:
        side = seen.values.shape[2]
        wanted = ground(side, 320 / side, east=320 * column, south=320 * row)
        off = np.abs(seen.values[0] - wanted)
        if seen.channels[0].sensor == "landsat8":  # as it ends, beyond the centres of its pixels
            assert (chip == 0) == np.isfinite(off).any() and not (off > 15).any()
        else:
            assert off.max() < (0.05 if side != 32 else 1e-9)


def test_degrees_small_rasters_and_composites(tmp_path):
    degrees = {"crs": CRS.from_epsg(4326), "transform": Affine(0.001, 0, 20, 0, -0.001, 60)}
    for name in ("2020", "2020-02", "2020-12"):
        write_tiff(tmp_path / f"a_{name}.tif", noise(1, 20, 26), names=("B4",), **degrees)
    say(tmp_path, {"files": "a_{date}.tif", "sensor": "landsat8"})
    found = collect(tmp_path, None, Frame(8, 32))
    (seen,) = found.load(0).observations
    assert seen.values.shape == (3, 1, 32, 32) and len(found.splits) == 1
    assert np.isfinite(seen.values).sum() == 3 * 20 * 26  # what lies outside is missing
    assert counts(plain(found.load(0))) == [
        3 * 3 * 3
    ]  # half of the third row, a quarter of the last column
    assert seen.gsd_m == pytest.approx(111_412 * 0.001 * 0.5**0.5, rel=0.01)  # cos 60 = 1/2
    wanted = [
        days(date(2020, 2, 1), date(2020, 3, 1)),
        year(2020),
        days(date(2020, 12, 1), date(2021, 1, 1)),
    ]
    assert seen.time.tolist() == [list(each) for each in wanted]
    say(tmp_path, {"files": "a_2020.tif", "sensor": "landsat8", "date": 2020, "days": 16})
    (seen,) = collect(tmp_path, None, Frame(16)).load(0).observations
    assert seen.time.tolist() == [list(days(date(2020, 1, 1), date(2020, 1, 17)))]
    assert seen.values.shape == (1, 1, 16, 32)  # 1.25 and 1.6 tokens


def test_bands_go_by_any_spelling_and_in_their_units(tmp_path, caplog):
    """B1 is B01; scale and offset are applied; what is no band of the sensor is said once."""
    names = ["B1", "sr_b4", "B8A", "SCL"]
    for day in ("20200101", "20200202"):
        path = write_tiff(
            tmp_path / f"S2_{day}.tif", noise(4, 32, 32, dtype="uint16"), names=names, **at(10)
        )
        with rasterio.open(path, "r+") as raster:
            raster.scales, raster.offsets = (1e-2,) * 4, (-1.0,) * 4
    say(tmp_path, {"files": "S2_{date}.tif", "sensor": "sentinel2"})
    made = collect(tmp_path / "samples.yaml", None, Frame(8))
    assert [one.band for one in made.channels] == ["B01", "B04", "B8A"]
    with rasterio.open(tmp_path / "S2_20200101.tif") as raster:
        stored = raster.read([1, 2, 3]).astype(np.float32)
    (seen,) = made.load(0).observations
    assert np.allclose(seen.values[0], stored * 1e-2 - 1, atol=1e-5)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "its bands 'SCL' are none of sentinel2 and are left out" in said


def test_places_and_parts(tmp_path):
    for number in range(6):
        part = ("train", "validation", "test")[number % 3]
        for place in (f"{part}/p{number}",):
            write_tiff(tmp_path / f"{place}_2020.tif", noise(1, 8, 16), names=("B04",), **at(10))
    write_tiff(tmp_path / "dem.tif", noise(1, 8, 16), **at(10))
    say(
        tmp_path,
        {"files": "{split}/{place}_{date}.tif", "sensor": "sentinel2"},
        {"files": "dem.tif", "sensor": "dem", "bands": ["elevation"]},
    )
    found = collect(tmp_path, None, Frame(8, 8))
    assert len(found.splits) == 12 and len(set(found.groups)) == 6
    assert {part: int((found.splits == part).sum()) for part in set(found.splits)} == dict.fromkeys(
        ("train", "validation", "test"), 4
    )
    assert all(len(found.load(index).observations) == 2 for index in range(12))
    train = open_tasks("rasters", tmp_path, split="train", patch=8, size=8)
    assert len(train.other("validation")) == 4
    write_tiff(tmp_path / "test/p2_2021.tif", noise(1, 8, 16), **at(10))  # no band has a name
    with pytest.raises(InputError, match=r"p2_2021.tif: its bands \(''\) name none of sentinel2"):
        collect(tmp_path, None, Frame(8, 8))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"sensor": "sentinel3"}, "sentinel3 is a sensor of your own: name bands"),
        ({"bands": ["B04"]}, "S2_20200101.tif: 4 bands, 1 are named"),
        ({"bands": ["B04", "B04", None, None]}, r"name B04 twice"),
        ({"files": "S3_{date}.tif"}, r"S3_\{date\}.tif: no such files"),
        ({"files": "/far/S2_{date}.tif"}, r"files = '/far/.*give it from the folder of this file"),
        ({"files": "S2_*.tif"}, r"of one place with .*S2_20200101.tif, but no \{date\}"),
        ({"patch": 12}, "patch 12: a power of two"),
        ({"orbit": "up"}, r"rasters.0.orbit = 'up': Input should be 'ascending' or 'descending'"),
        ({"band": ["B04"]}, r"unknown key 'rasters.0.band'"),
    ],
)
def test_what_is_wrong_is_told(four, row, said):
    path = four / "wrong.yaml"
    rasters = [{"files": "S2_{date}.tif", "sensor": "sentinel2"} | row]
    path.write_text(yaml.safe_dump({"rasters": rasters}))
    with pytest.raises(InputError, match=said):
        collect(path, None, Frame(8, 32))


def test_rasters_that_do_not_fit_are_told(four, tmp_path):
    path = tmp_path / "samples.yaml"

    def refused(said: str, *rasters: dict, **labels: dict) -> None:
        say(tmp_path, *rasters, **labels)
        with pytest.raises(InputError, match=said):
            collect(path, None, Frame(8, 32))

    first = {"files": "{place}.tif", "sensor": "sentinel2"}
    write_tiff(tmp_path / "a.tif", noise(1, 32, 32), names=("B04",), **at(10))
    other = {"crs": CRS.from_epsg(32634), "transform": at(10)["transform"]}
    write_tiff(tmp_path / "dem.tiff", noise(1, 32, 32), names=("elevation",), **other)
    dem = {"files": "dem.tiff", "sensor": "dem"}
    refused("dem.tiff is in EPSG:32634, .*a.tif in EPSG:32633: .*gdalwarp", first, dem)
    write_tiff(tmp_path / "dem.tiff", noise(1, 32, 32))
    refused("dem.tiff: no CRS", first, dem)
    turned = {"crs": UTM, "transform": Affine(10, 1, WEST, 1, -10, NORTH)}
    write_tiff(tmp_path / "dem.tiff", noise(1, 32, 32), **turned)
    refused("dem.tiff: north is not up", first, dem)
    mask = {"files": "{site}.tiff", "classes": {1: "a"}}
    refused(r"\{site\}.tiff names site: one of the rasters must name every part", first, cover=mask)
    mask = {"files": "{place}.tiff", "classes": {1: "a"}}
    refused(r"\{place\}.tiff: 0 files for one place \(place a\)", first, cover=mask)
    path.write_text("rasters: []\n")
    with pytest.raises(InputError, match=r"rasters = .*: List should have at least 1 item"):
        collect(path, None, Frame(8, 32))


def recipe(folder: Path, tasks: dict, **objective) -> dict:
    return {
        "run": {"dir": str(folder / "run")},
        "model": {"name": "gpna_tiny", "depth": 1},
        "data": {"tasks": tasks, "flip": False},
        "objective": objective,
        "optim": {"base_lr": 0.3, "warmup_steps": 4, "clip": 1.0},
        "train": {"steps": 24, "micro_batch": 4, "dtype": "float32", "eval_every": 12},
        "launch": {"threads": 1},
        "checkpoint": {"every": 0},
    }


def test_pretraining_without_labels(four, tmp_path):
    """Two data sets, one of them unlabelled: the error on what is held out falls."""
    halves = np.where(np.arange(64) % 32 < 16, 0, 100)  # every chip is dark on its left
    (tmp_path / "plain").mkdir()
    for place in "abcdefgh":
        pixels = (halves + noise(2, 64, 64, high=50)).astype(np.int16)
        write_tiff(tmp_path / f"plain/{place}_2020.tif", pixels, names=("B04", "B08"), **at(10))
    say(tmp_path / "plain", {"files": "{place}_{date}.tif", "sensor": "sentinel2"})
    tasks = {
        "plain": {"reader": "rasters", "path": str(tmp_path / "plain"), "size": 32, "patch": 8},
        "four": {"reader": "rasters", "path": str(four), "size": 32, "patch": 8},
    }
    said = recipe(tmp_path, tasks, name="masked_tokens")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(said))
    hpcgeo("train", path).check_returncode()
    lines = (tmp_path / "run/scores.jsonl").read_text().splitlines()
    scores = [json.loads(line) for line in lines]
    assert [(one["step"], one["task"], one["samples"]) for one in scores] == [
        (12, "four", 1),
        (12, "plain", 4),  # a place of eight
        (24, "four", 1),
        (24, "plain", 4),
    ]
    assert {one["metric"] for one in scores} == {"masked_mse"}
    assert scores[3]["value"] < min(0.5, scores[1]["value"])  # the other is noise
    losses = [row["loss"] for row in metrics(tmp_path / "run")]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    with pytest.raises(InputError, match=r"task plain: .*/plain has no labels, and objective.name"):
        workload_of(RunConfig.model_validate(said | {"objective": {"name": "multitask"}}))


def test_a_new_sensor_in_five_lines(tmp_path):
    """What docs/extending.md says, word by word."""
    text = (ROOT / "docs/extending.md").read_text("utf-8")
    text = text[text.index("## A new sensor in five lines") : text.index("## How to add")]
    sensors, samples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len((sensors + samples).splitlines()) == 5
    (tmp_path / "sensors.yaml").write_text(sensors)
    (tmp_path / "samples.yaml").write_text(samples)
    for field in "abc":
        for day in ("20240501", "20240601"):
            write_tiff(tmp_path / f"{field}_{day}.tif", noise(3, 64, 64), **at(0.1))
    (command,) = re.findall(r"```sh\n(hpcgeo train.*?)```", text, re.DOTALL)
    words = shlex.split(command.replace("\\\n", ""))
    short = ["train.steps=2", "optim.warmup_steps=1", "train.micro_batch=4", "launch.threads=1"]
    hpcgeo(*words[1:], *short, cwd=tmp_path).check_returncode()
    (line,) = (tmp_path / "runs/gpna_tiny/scores.jsonl").read_text().splitlines()
    assert json.loads(line)["samples"] == 2  # of twelve chips


#: Real folders: what is said of them, size and patch; chips, and tokens of each sensor in one.
CUBE = [{"files": "s2s1_{date}.tif", "sensor": each} for each in ("sentinel2", "sentinel1")]
TILES = [{"files": f"{{patch}}/{name}_{{date}}.tif"} for name in ("S2_L2A", "S1_GRD")]
REAL = {
    "landsat_ucayali": (
        [{"files": "{date}.tif", "sensor": "landsat7", "bands": ["B5", "B4", "B3", "B2"]}],
        (128, 16),
        (377 // 128) * (560 // 128),
        [8 * 4 * 64],
    ),
    "naip_prairie": (
        [{"files": "m_*_{date}.tif", "sensor": "naip", "bands": ["R", "G", "B", "NIR"]}],
        (128, 16),
        (724 // 128) * (934 // 128),
        [2 * 4 * 64],
    ),
    "sentinel2_l1c_13band": (
        [
            {"files": "S2_L1C_{date}.tif", "sensor": "sentinel2"},
            {"files": "dem.tif", "sensor": "dem", "bands": ["elevation"]},
        ],
        (32, 8),
        9,
        [5 * 13 * 16, 16],
    ),
    # the optical bands of two of twelve months are missing
    "worldcereal_monthly_cube": (
        [*CUBE, {"files": "dem.tif", "sensor": "dem"}],
        (32, 8),
        9,
        [10 * 9 * 16, 12 * 2 * 16, 2 * 16],
    ),
    "worldcereal_s1s2": (
        [TILES[0] | {"sensor": "sentinel2"}, TILES[1] | {"sensor": "sentinel1", "patch": 4}],
        (32, 8),
        2 * 4,
        [10 * 10 * 16, 10 * 2 * 16],
    ),
}


def linked(name: str, folder: Path) -> None:
    for path in (Path(os.environ["HPCGEO_DATA"]) / "multispectral" / name).iterdir():
        (folder / path.name).symlink_to(path)


@pytest.mark.parametrize("name", REAL)
def test_the_real_folders(tmp_path, name):
    if "HPCGEO_DATA" not in os.environ:
        pytest.skip("HPCGEO_DATA names no folder of real data")
    linked(name, tmp_path)
    rows, (size, patch), chips, wanted = REAL[name]
    train = open_tasks("rasters", say(tmp_path, *rows), split="train", patch=patch, size=size)
    held = train.other("validation")
    assert len(train) + len(held) == chips and len(held) == max(1, round(chips / 6))
    for part in (train, held):
        for index in range(len(part)):
            found = plain(part.read(index))
            assert counts(found) == wanted
            for seen, kept in zip(found.sample.observations, found.kept, strict=True):
                assert np.nanmax(np.abs(seen.values[:, 0])) < 100 and kept.any()


def test_the_real_cloudy_dates(tmp_path):
    """Two of five dates are cloudy: what is bright in B01, taken for clouds, has no tokens."""
    if "HPCGEO_DATA" not in os.environ:
        pytest.skip("HPCGEO_DATA names no folder of real data")
    linked("sentinel2_l1c_13band", tmp_path)
    row = {"files": "S2_L1C_{date}.tif", "sensor": "sentinel2"}
    for path in sorted(tmp_path.glob("S2_*.tif")):
        with rasterio.open(path) as raster:
            cloudy = (raster.read([1]) > 1300).astype(np.uint8)
            where = {"crs": raster.crs, "transform": raster.transform}
        write_tiff(tmp_path / path.name.replace("S2_L1C", "clouds"), cloudy, **where)
    row["clouds"] = {"files": "clouds_{date}.tif", "values": [1]}
    found = plain(collect(say(tmp_path, row), None, Frame(8, 96)).load(0))
    left = found.kept[0].mean(axis=(1, 2, 3))
    assert (left[[1, 2]] < 0.05).all() and (left[[0, 3, 4]] > 0.95).all(), left


def test_infinite_pixels_are_missing(tmp_path):
    pixels = np.ones((1, 4, 4), np.float32)
    pixels[0, 1, 2] = -np.inf
    path = write_tiff(tmp_path / "db.tif", pixels, crs=UTM, transform=Affine(1, 0, 5e5, 0, -1, 5e6))
    with rasterio.open(path) as raster:
        found = valid(raster, [1], Window(0, 0, 4, 4))
    assert np.isnan(found[0, 1, 2]) and np.isfinite(found).sum() == 15
