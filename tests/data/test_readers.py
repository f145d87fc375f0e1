"""Sets of labelled samples: every layout gives the same kind of samples, parts and errors."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgeo.data.labelled import LabelledSplit, _splits, open_tasks
from hpcgeo.data.readers.collection import SPLITS, Collection, Frame, days, year
from hpcgeo.data.readers.pixel_series import collect, steps
from hpcgeo.data.readers.table import READERS
from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.sensors import sensor
from tests.data.labelled import LAYOUTS, write_table

KINDS = {
    "scenes": "classification",
    "tile_masks": "segmentation",
    "pairs": "change",
    "pixel_series": "classification",
    "histograms": "regression",
    "dhs": "regression",
    "lsms": "regression",
    "land_cover": "classification",
    "brick_kilns": "classification",
    "crop_yield": "regression",
    "fields": "segmentation",
    "rasters": "segmentation",
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("labelled")
    return {reader: write(folder / reader) for reader, (write, _) in LAYOUTS.items()}


def opened(paths: dict[str, Path], reader: str, split: str, **more) -> LabelledSplit:
    target = more.pop("target", LAYOUTS[reader][1])
    size = more.pop("size", 32)
    more = {"patch": 16, **more}
    return open_tasks(reader, paths[reader], split=split, target=target, size=size, **more)


def test_every_reader_has_a_layout_here():
    # Data sets of shards are tried where they are built (tests/workloads/test_quadrants.py).
    assert {*READERS} - {"generated", "shards"} == set(LAYOUTS) == set(KINDS)


@pytest.mark.parametrize("reader", LAYOUTS)
def test_samples_have_one_form(paths, reader):
    tasks = {split: opened(paths, reader, split) for split in SPLITS}
    for split in SPLITS:
        set_ = tasks[split]
        assert set_.target == tasks["train"].target and set_.channels == tasks["train"].channels
        assert set_.fingerprint == tasks["train"].fingerprint and set_.target.kind == KINDS[reader]
        for index in range(len(set_)):
            sample = set_.read(index)
            for seen in sample.observations:
                num_dates, num_bands, *rest = seen.values.shape
                assert seen.values.dtype == np.float32 and len(seen.channels) == num_bands
                assert set(seen.channels) <= set(set_.channels)
                assert seen.time.shape == (num_dates, 2) and (seen.time[:, 1] > 0).all()
                assert rest == [seen.channels[0].length] or not any(
                    side % seen.patch for side in rest
                )
            if KINDS[reader] in ("segmentation", "change"):
                assert sample.target.shape == sample.observations[0].values.shape[2:]
                assert set(np.unique(sample.target)) <= {0, 1}
            else:
                assert sample.target.shape == ((1,) if KINDS[reader] == "regression" else ())
            integers = KINDS[reader] != "regression"
            assert sample.target.dtype == (np.int64 if integers else np.float32)
    for channel in tasks["train"].channels:
        assert channel.band in {band.name for band in sensor(channel.sensor).bands}


@pytest.mark.parametrize("reader", LAYOUTS)
def test_parts_share_nothing_and_are_always_the_same(paths, reader):
    parts = [opened(paths, reader, split) for split in SPLITS]
    together = np.concatenate([part.indices for part in parts])
    groups = parts[0].collection.groups
    assert len(set(together)) == len(together) == len(groups)
    named = [set(groups[part.indices]) for part in parts]
    assert not (named[0] & named[1] or named[0] & named[2] or named[1] & named[2])
    again = [opened(paths, reader, split).indices for split in SPLITS]
    assert all(map(np.array_equal, again, [part.indices for part in parts]))
    if "validation" not in parts[0].collection.splits:
        held, kept = len(parts[1]), len(parts[0])
        assert 1 / 12 < held / (held + kept) < 1 / 3


@pytest.mark.parametrize("reader", LAYOUTS)
def test_training_values_and_numbers_are_standardised(paths, reader):
    train = opened(paths, reader, "train")
    values = {channel: [] for channel in train.channels}
    numbers = []
    for index in range(len(train)):
        sample = train.read(index)
        numbers.append(sample.target)
        for seen in sample.observations:
            for band, channel in enumerate(seen.channels):
                values[channel].append(seen.values[:, band].ravel())
    for channel, parts in values.items():
        together = np.concatenate(parts)
        known = together[np.isfinite(together)]
        assert known.mean() == pytest.approx(0, abs=1e-3), channel
        assert known.std() == pytest.approx(1, abs=1e-3), channel
    if KINDS[reader] == "regression":
        numbers = np.concatenate(numbers)
        assert numbers.mean() == pytest.approx(0, abs=1e-5)
        real = numbers * train.target.std[0] + train.target.mean[0]
        assert np.allclose(real, train.collection.labels[train.indices, 0], atol=1e-5)


@pytest.mark.parametrize("reader", LAYOUTS)
def test_a_worker_may_have_it(paths, reader):
    tasks = opened(paths, reader, "test")
    copy = pickle.loads(pickle.dumps(tasks))
    here, there = tasks.read(0), copy.read(0)
    assert np.array_equal(here.target, there.target)
    for mine, theirs in zip(here.observations, there.observations, strict=True):
        assert np.array_equal(mine.values, theirs.values, equal_nan=True)


def test_asking_for_tasks_loads_no_gdal():
    code = "import sys, hpcgeo.data.labelled; print({'rasterio', 'h5py'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_fewer_labels_keep_every_class_and_are_nested(paths):
    whole = opened(paths, "scenes", "train")
    half, few = (opened(paths, "scenes", "train", labels=part) for part in (0.5, 0.01))
    assert len(half) == pytest.approx(len(whole) / 2, abs=3) and len(few) == 3
    assert set(few.indices) <= set(half.indices) <= set(whole.indices)
    classes = whole.collection.labels
    assert set(classes[few.indices]) == set(classes[whole.indices])
    other = opened(paths, "scenes", "train", labels=0.5, seed=1)
    assert set(other.indices) != set(half.indices)
    assert few.target == whole.target and few.moments == whole.moments
    for split in ("validation", "test"):
        assert len(opened(paths, "scenes", split, labels=0.5)) == len(
            opened(paths, "scenes", split)
        )


def test_wrong_arguments_are_told(paths):
    def refuse(said: str, reader: str = "scenes", split: str = "train", **more):
        with pytest.raises(InputError, match=said):
            open_tasks(reader, paths["scenes"], split=split, **more)

    refuse("unknown reader 'scene'.*did you mean 'scenes'.*tile_masks", reader="scene")
    refuse("split 'val': one of train, validation, test", split="val")
    refuse("unknown target 'x'; known: class", target="x")
    refuse("labels 0: a fraction", labels=0)
    refuse("labels 2: a fraction", labels=2)
    refuse("patch 12: a power of two", patch=12)
    refuse("size 40: must be a multiple of patch 16", size=40)
    refuse(r"\.png: 32 x 32 pixels are no multiple of patch 64; give a size", patch=64)
    with pytest.raises(InputError, match="unknown target ''; known: landcover10, croptype24"):
        opened(paths, "pixel_series", "train", target=None)
    with pytest.raises(InputError, match="unknown target 'wealth'; known: asset_index"):
        opened(paths, "dhs", "train", target="wealth")


@pytest.mark.parametrize("reader", LAYOUTS)
def test_what_cannot_be_read_is_named(tmp_path, reader):
    write, target = LAYOUTS[reader]
    path = write(tmp_path / "set")
    tasks = open_tasks(reader, path, split="train", target=target, patch=16, size=32)
    files = sorted(
        file
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file() and file.suffix != ".csv"
    )
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    names = "|".join({file.name for file in files})
    if reader in ("pixel_series", "histograms", "crop_yield"):  # read whole when opened
        with pytest.raises(InputError, match=names):
            open_tasks(reader, path, split="train", target=target)
    else:
        with pytest.raises(InputError, match=f"({names}): cannot be read"):
            tasks.read(0)
    with pytest.raises(InputError, match=r"(?i)no such file"):
        open_tasks(reader, tmp_path / "none", split="train", target=target)


def test_a_task_may_keep_its_places_to_itself(paths):
    told = opened(paths, "pixel_series", "train")
    untold = opened(paths, "pixel_series", "train", place=False)
    assert np.isfinite(told.read(0).place).all() and np.isnan(untold.read(0).place).all()
    assert np.isnan(untold.other("test").read(0).place).all()
    for ours, theirs in zip(untold.read(0).observations, told.read(0).observations, strict=True):
        np.testing.assert_array_equal(ours.values, theirs.values)


def test_scenes_may_have_several_labels(tmp_path):
    path = LAYOUTS["scenes"][0](tmp_path / "scenes")
    table = path / "split.csv"
    marked = table.read_text().replace(",river,", ",river; water,").replace(",forest,", ",,")
    table.write_text(marked)
    tasks = open_tasks("scenes", path, split="train", target="labels", patch=16, size=32)
    assert tasks.target == Target("multilabel", ("beach", "river", "water"))
    found = {tuple(tasks.read(index).target.tolist()) for index in range(len(tasks))}
    assert found == {(1, 0, 0), (0, 1, 1), (0, 0, 0)}
    assert tasks.read(0).target.dtype == np.float32
    with pytest.raises(InputError, match=r"unknown target 'label'.*did you mean 'labels'"):
        open_tasks("scenes", path, split="train", target="label")
    table.write_text("path,label,split\na.png,,train\n")
    (path / "a.png").touch()
    with pytest.raises(InputError, match=r"split\.csv: no label in the column label"):
        open_tasks("scenes", path, split="train", target="labels")


def test_tables_that_are_wrong_are_told(tmp_path):
    path = tmp_path / "scenes"
    for rows, said in (
        ([{"path": "a.png", "label": "a"}], "split.csv: no column split"),
        ([{"path": "a.png", "label": "a", "split": "dev"}], "split 'dev'; known: train"),
        ([{"path": "a.png", "label": "a", "split": "train"}], "a.png: no such file"),
    ):
        write_table(path / "split.csv", rows)
        with pytest.raises(InputError, match=said):
            open_tasks("scenes", path, split="train")
    (path / "split.csv").write_text("path,label,split\na.png\n")
    with pytest.raises(InputError, match="line 2 is cut short"):
        open_tasks("scenes", path, split="train")
    (path / "split.csv").write_text("path,label,split\n")
    with pytest.raises(InputError, match="no rows"):
        open_tasks("scenes", path, split="train")


def test_the_fingerprint_is_that_of_what_is_read(tmp_path):
    write, _ = LAYOUTS["histograms"]
    path = write(tmp_path / "a")
    first = open_tasks("histograms", path, split="train").fingerprint
    arrays = dict(np.load(path))
    np.savez_compressed(path, **arrays)
    assert open_tasks("histograms", path, split="train").fingerprint == first
    arrays["years"][0] += 1
    np.savez_compressed(path, **arrays)
    assert open_tasks("histograms", path, split="train").fingerprint != first


def test_times():
    assert days_of("2000-01-01", "2000-01-03") == (1, 1)
    assert year(2001) == (366 + 182.5, 182.5)
    months = steps([date_of("2021-12-01"), date_of("2022-02-01")])
    assert months[:, 1].tolist() == [15.5, 14]
    tens = steps([date_of("2022-02-01"), date_of("2022-02-11"), date_of("2022-02-21")])
    assert tens[:, 1].tolist() == [5, 5, 4] and np.diff(tens[:, 0]).tolist() == [10, 9]
    with pytest.raises(InputError, match="2022-02-05: the first day of a month"):
        steps([date_of("2022-02-05")])


def days_of(start: str, end: str) -> tuple[float, float]:
    return days(date_of(start), date_of(end))


def date_of(text: str):
    return np.datetime64(text).item()


def test_pixels_are_in_physical_units(paths):
    collection = collect(paths["pixel_series"], "landcover10", Frame(1))
    numbers = np.load(paths["pixel_series"])["X"].astype(np.float64)
    optical, radar, weather, terrain = collection.load(0).observations
    assert optical.values[0, :, 0, 0] == pytest.approx(numbers[0, 0, :2] / 10_000)
    assert np.isnan(optical.values[1]).all()
    assert radar.values[0, :, 0, 0] == pytest.approx(20 * np.log10(numbers[0, 0, 2:4]) - 83)
    assert weather.channels[0] == Channel("agera5", "precipitation")
    assert weather.values[2, :, 0, 0] == pytest.approx(numbers[0, 2, 4:6] / 100)
    assert terrain.values[:, :, 0, 0] == pytest.approx(numbers[0, :1, 6:])
    assert np.isnan(weather.values[1]).all()
    assert np.isinf(terrain.time[0, 1])
    assert collection.load(0).elevation_m[0] == numbers[0, 0, 6]
    assert collection.target.names == ("grass", "trees")
    assert len(collection.labels) == 30  # a quarter has no label


def test_tiles_know_their_place_and_size_on_the_ground(paths):
    sample = opened(paths, "tile_masks", "test", size=64).read(0)
    seen = sample.observations[0]
    assert seen.values.shape == (1, 3, 64, 64)
    assert seen.gsd_m == pytest.approx(111_320 * 0.001 / 2 / 64, rel=0.01)  # cos 60 = 1/2
    assert sample.place[1] == 60 and sample.target[:32].all() and not sample.target[32:].any()


def test_pairs_know_their_years_and_what_is_missing(paths):
    sample = opened(paths, "pairs", "test", size=None).read(0)
    (seen,) = sample.observations
    assert seen.time.tolist() == [list(year(1990)), list(year(2000))]
    assert sample.place == pytest.approx((-74 + 0.016, -8.016))
    assert seen.gsd_m == pytest.approx(110.5, rel=0.01)
    assert np.isnan(seen.values[0, :, :16, :16]).all() and np.isfinite(seen.values[1]).all()
    assert sample.target[8:24].all() and sample.target.sum() == 16 * 32


def test_villages_know_their_years_and_which_lights(paths):
    tasks = opened(paths, "histograms", "test")
    early, late = tasks.read(0), tasks.read(1)
    assert early.observations[0].time[0].tolist() == list(days_of("2003-01-01", "2006-01-01"))
    assert late.observations[0].time[0].tolist() == list(days_of("2015-01-01", "2018-01-01"))
    lights = [sample.observations[0].channels[-1].sensor for sample in (early, late)]
    assert lights == ["dmsp", "viirs"] and len(tasks.channels) == 9
    assert early.place_spread_m == 5000


#: The real folders: reader, path, target, size, samples of each part, classes.
REAL = [
    ("scenes", "scene_ucmerced", None, 256, (1049, 210, 420), 21),
    ("tile_masks", "seg_buildings_oam", None, None, (588, 126, 252), 2),
    ("pairs", "cd_river_landsat", None, None, (42, 12, 18), 2),
    *(
        ("pixel_series", f"timeseries/worldcereal_pixels/{name}.npz", target, None, parts, classes)
        for name, target, parts, classes in (
            ("fra2022_monthly", "landcover10", (194, 48, 63), 7),
            ("fra2022_monthly", "croptype24", (92, 19, 31), 9),
            ("fra2023_dekad", "landcover10", (226, 51, 102), 4),
            ("fra2023_dekad", "croptype24", (152, 36, 60), 17),
        )
    ),
    ("histograms", "lsms_wealth/lsms_landsat_histograms.npz", None, None, (1509, 303, 604), 1),
    ("fuel_moisture", "fuel_moisture", None, None, (1307, 271, 735), 1),
]


@pytest.mark.parametrize(("reader", "name", "target", "size", "parts", "classes"), REAL)
def test_the_real_folders(reader, name, target, size, parts, classes):
    if "HPCGEO_DATA" not in os.environ:
        pytest.skip("HPCGEO_DATA names no folder of real data")
    path = Path(os.environ["HPCGEO_DATA"]) / name
    sets = [open_tasks(reader, path, split=split, target=target, size=size) for split in SPLITS]
    assert tuple(map(len, sets)) == parts
    assert len(sets[0].target.names) == classes
    for tasks in sets:
        sample = tasks.read(len(tasks) - 1)
        assert any(np.isfinite(seen.values).any() for seen in sample.observations)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../outside.png"])
def test_a_table_names_nothing_outside_of_its_folder(tmp_path, name):
    Image.new("RGB", (16, 16)).save(tmp_path / "outside.png")
    folder = tmp_path / "set"
    folder.mkdir()
    lines = [f"{name},{label},{split}" for label in "ab" for split in ("train", "test")]
    (folder / "split.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"split.csv: line 2 names .*outside of the folder"):
        open_tasks("scenes", folder, split="train")


def test_every_class_is_held_out_where_clusters_have_one(tmp_path):
    """Several chips of a photograph stay together, and validation has every class."""
    photographs = [f"{name}{n}" for name in "abc" for n in range(7) for _ in range(4)]
    collection = Collection(
        target=Target("classification", tuple("abc")),
        channels=(),
        splits=np.array(["train"] * len(photographs)),
        groups=np.array(photographs),
        labels=np.array(["abc".index(name[0]) for name in photographs]),
        fingerprint="",
        load=lambda index: None,
    )
    held = _splits(collection) == "validation"
    assert {*collection.labels[held].tolist()} == {0, 1, 2}
    for photograph in {*photographs}:
        own = held[collection.groups == photograph]
        assert own.all() or not own.any()
    # Where a place has several classes, places are held out whole.
    mixed = replace(collection, groups=np.array([name[1:] for name in photographs]))
    held = _splits(mixed) == "validation"
    assert held.any() and not {*mixed.groups[held]} & {*mixed.groups[~held]}


def test_a_folder_of_classes_without_a_table_has_a_way_out(tmp_path):
    with pytest.raises(InputError, match=r"a table of path, label and split .* hpcgeo data build"):
        open_tasks("scenes", tmp_path, split="train")
