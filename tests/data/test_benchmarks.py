"""Public data sets: each is read as its publisher lays it out, with its own splits and classes."""

import io
import json
import logging
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hpcgeo.config import load
from hpcgeo.data.labelled import LabelledSplit, open_tasks
from hpcgeo.data.readers.benchmarks.facts import EXPECTED, benchmarks
from hpcgeo.data.readers.benchmarks.fuel_moisture import months
from hpcgeo.data.readers.benchmarks.inert import Named, inert
from hpcgeo.data.readers.collection import SPLITS, Frame, days
from hpcgeo.data.readers.table import LAYOUTS, reader_of
from hpcgeo.errors import InputError
from hpcgeo.kinds.table import KINDS
from hpcgeo.sensors import sensor
from hpcgeo.train.loop import new_engine
from hpcgeo.workloads.choice import workload_of
from tests.data.benchmarks import LARGE, WRITERS, marked, shade, write
from tests.distributed import on_ranks
from tests.parallel.mixing import topology_of
from tests.workloads.test_quadrants import SMALL

#: Of each data set as it is written here: samples of train, validation and test, kind of task,
#: number of classes.
SETS = {
    "millionaid": ((51, 0, 459), "classification", 51),
    "aid": ((60, 0, 240), "classification", 30),
    "aid_50": ((120, 30, 150), "classification", 30),
    "nwpu_resisc45": ((270, 90, 90), "classification", 45),
    "nwpu_resisc45_10": ((45, 0, 405), "classification", 45),
    "nwpu_resisc45_20": ((90, 0, 360), "classification", 45),
    "ucmerced": ((126, 42, 42), "classification", 21),
    "ucmerced_50": ((84, 21, 105), "classification", 21),
    "eurosat": ((60, 20, 20), "classification", 10),
    "eurosat_rgb": ((60, 20, 20), "classification", 10),
    "patternnet": ((266, 38, 76), "classification", 38),
    "rsd46_whu": ((368, 92, 92), "classification", 46),
    "mlrsnet": ((12, 3, 15), "multilabel", 60),
    "bigearthnet": ((6, 2, 2), "multilabel", 19),
    "bigearthnet_s1": ((6, 2, 2), "multilabel", 19),
    "bigearthnet_mm": ((6, 2, 2), "multilabel", 19),
    "oscd": ((12, 0, 12), "change", 2),
    "dsifn": ((12, 12, 12), "change", 2),
    "levir_cd": ((12, 12, 12), "change", 2),
    "whu_aerial": ((12, 12, 12), "segmentation", 2),
    "vaihingen": ((52, 12, 68), "segmentation", 6),
    "potsdam": ((80, 16, 56), "segmentation", 6),
    "fmow": ((124, 0, 62), "classification", 62),
    "geo_bench": ((12, 3, 3), "classification", 3),
    "fuel_moisture": ((24, 6, 10), "regression", 1),
    "spacenet2": ((64, 8, 8), "super_resolution", 8),
}


class Written(dict[str, Path]):
    """The folders of the data sets, each written when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        self[name] = write(name, self.folder / name)
        return self[name]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("benchmarks"))


@cache
def opened(path: Path, name: str) -> LabelledSplit:
    tasks = open_tasks(name, path, split="train", patch=8, size=32)
    assert isinstance(tasks, LabelledSplit)
    return tasks


def test_every_data_set_is_written_here():
    assert list(SETS) == list(benchmarks()) and set(WRITERS) == set(LAYOUTS) == set(EXPECTED)
    for row in benchmarks().values():
        assert row.title and row.source and row.stated_split
        assert set(row.kind.replace(" or", ",").split(", ")) <= set(KINDS)
        known = {band.name for band in sensor(row.sensor).bands}
        assert {channel.band for channel in row.channels} <= known, row.name
        assert not isinstance(row.classes, tuple) or len(set(row.classes)) == len(row.classes)
        assert set(row.colours) <= {*row.known, None}


@pytest.mark.parametrize("name", SETS)
def test_splits_classes_and_labels(paths, name):
    counts, kind, num_classes = SETS[name]
    train = opened(paths[name], name)
    assert (train.target.kind, len(train.target.names)) == (kind, num_classes)
    parts = [train.other(split) for split in SPLITS]
    assert tuple(map(len, parts)) == counts
    collection = train.collection
    together = np.concatenate([part.indices for part in parts])
    assert len(set(together.tolist())) == len(together) == len(collection.splits)
    for index in range(0, len(together), max(1, len(together) // 40)):
        sample = collection.load(index)
        seen = sample.observations[0]
        assert seen.patch in (1, 8) and seen.values.dtype == np.float32
        assert seen.time.shape == (len(seen.values), 2)
        for one in sample.observations:
            assert set(one.channels) <= set(collection.channels)
        if kind == "super_resolution":
            _look_at_finer(sample.target, seen.values)
        elif KINDS[kind].dense:
            _look_at_mask(sample.target, seen.values)
        elif kind == "classification":
            value = float(np.median(seen.values[0, 0]))
            lighter = 1000 if name == "eurosat" else 0
            assert value == pytest.approx(shade(int(sample.target)) + lighter, abs=1.4)
            assert int(sample.target) == collection.labels[index]
        else:
            assert sample.target.dtype == np.float32 and sample.target.shape == (num_classes,)


def _look_at_finer(finer: np.ndarray, values: np.ndarray) -> None:
    """Means of 4 x 4 pixels are what is seen, beside the edges of a coarser pixel."""
    assert finer.shape == values.shape[1:] == (8, 32, 32) and 0 < finer.min() < finer.max() < 1
    means = finer.reshape(8, 8, 4, 8, 4).mean((2, 4)) * 2047
    assert np.corrcoef(means.ravel(), values[0][:, 1::4, 1::4].ravel())[0, 1] > 0.9


def _look_at_mask(classes: np.ndarray, values: np.ndarray) -> None:
    """Each class has its own brightness; what lies beyond the edge is missing and not labelled."""
    assert classes.shape == values.shape[2:] and classes.dtype == np.int64
    missing = ~np.isfinite(values[0, 0])
    np.testing.assert_array_equal(classes == -1, missing)
    for number in set(classes[~missing].tolist()):
        inside = values[0, 0][classes == number]
        assert np.median(inside) == pytest.approx(shade(0) + 10 * number, abs=1.4)
        if len(values) == 2:
            changed = np.median(values[1, 0][classes == number] - inside)
            assert changed == pytest.approx(100 * number, abs=2.5)


@pytest.mark.parametrize("name", SETS)
def test_it_is_the_same_again_until_its_content_is_another(paths, name, tmp_path):
    path = write(name, tmp_path / "again")
    collect = reader_of(name)
    first, again = opened(paths[name], name).collection, collect(path, None, Frame(8, 32))
    assert first.fingerprint == again.fingerprint and first.target == again.target
    np.testing.assert_array_equal(first.splits, again.splits)
    np.testing.assert_array_equal(first.groups, again.groups)
    lists = {".csv", ".npy"} if name.startswith(("bigearthnet", "fuel")) else {".jpg", ".tif"}
    files = sorted(each for each in path.rglob("*") if each.suffix in {*lists, ".png", ".hdf5"})
    with files[0].open("ab") as file:
        file.write(b"\n")  # behind its end
    assert collect(path, None, Frame(8, 32)).fingerprint != first.fingerprint


def test_chips_cover_each_pixel_once(paths):
    """Images of 40 x 48 pixels in chips of 32 are four; each pixel with a label is in one."""
    for name in ("levir_cd", "vaihingen", "oscd"):
        collection = opened(paths[name], name).collection
        one = list(range(4))
        assert len(set(collection.groups[one])) == 1
        counts = sum(int((collection.load(index).target >= 0).sum()) for index in one)
        assert counts == LARGE[0] * LARGE[1]
        whole = open_tasks(name, paths[name], split="train", patch=16).read(0)
        assert whole.target.shape == (48, 48) and (whole.target[40:] == -1).all()
        num_classes = len(benchmarks()[name].known)
        np.testing.assert_array_equal(whole.target[:40], marked(LARGE, num_classes))


def test_other_layouts_are_found(tmp_path):
    for name, layout, count in (
        ("levir_cd", 1, 12),
        ("potsdam", 2, 80),
        ("vaihingen", 1, 52),
        ("spacenet2", 1, 64),
    ):
        path = write(name, tmp_path / name, layout=layout)
        assert len(opened(path, name)) == count


def test_what_is_known_beside_the_pixels(paths):
    oscd = opened(paths["oscd"], "oscd").read(0).observations[0]
    assert oscd.time[1].tolist() == [*days(_day("2017-08-29"), _day("2017-08-30"))]
    eurosat = opened(paths["eurosat"], "eurosat").read(0)
    assert eurosat.place == pytest.approx((13.73, 45.15), abs=0.01)
    assert eurosat.observations[0].gsd_m == pytest.approx(5, rel=0.01)  # 16 pixels of 10 m, at 32
    patch = opened(paths["bigearthnet_mm"], "bigearthnet_mm").collection.load(1)
    optical, radar = patch.observations
    assert optical.time[0].tolist() == [*days(_day("2017-06-13"), _day("2017-06-14"))]
    assert [channel.sensor for channel in (optical.channels[0], radar.channels[0])] == [
        "sentinel2",
        "sentinel1",
    ]
    assert (optical.values == 1001).all() and optical.gsd_m == 10 * 120 / 32
    names = opened(paths["bigearthnet"], "bigearthnet").target.names
    assert [names[number] for number in np.flatnonzero(patch.target)] == ["Pastures"]
    fmow = opened(paths["fmow"], "fmow").collection.load(5)  # of a class with three dates
    (seen,) = fmow.observations
    assert seen.values.shape == (3, 3, 32, 32) and (np.diff(seen.time[:, 0]) > 0).all()
    assert fmow.place == (1 + 1, 11) and seen.gsd_m == pytest.approx(0.5 * 30 / 32)
    assert months([11, 0])[:, 1].tolist() == [15.5, 15.5]
    assert np.diff(months([11, 0])[:, 0]).tolist() == [31]


def _day(text: str):
    return np.datetime64(text).item()


def test_43_classes_of_bigearthnet(paths):
    tasks = open_tasks(
        "bigearthnet", paths["bigearthnet"], split="train", target="43", patch=8, size=32
    )
    found = np.flatnonzero(tasks.read(0).target).tolist()
    assert [tasks.target.names[number] for number in found] == ["Airports", "Rice fields"]


@pytest.mark.parametrize(
    ("kind", "ours"),
    [("SegmentationClasses", "segmentation"), ("MultiLabelClassification", "multilabel")],
)
def test_geo_bench_has_several_kinds(tmp_path, kind, ours):
    tasks = opened(write("geo_bench", tmp_path / "set", kind=kind), "geo_bench")
    assert tasks.target.kind == ours and tasks.target.names == ("water", "forest", "town")
    assert [channel.band for channel in tasks.channels] == ["B02", "B8A"]
    sample = tasks.collection.load(4)
    if ours == "segmentation":
        np.testing.assert_array_equal(sample.target, marked((32, 32), 3))
    else:
        assert sample.target.tolist() == [0, 1, 0]
    assert sample.observations[0].time[0].tolist() == [
        *days(_day("2017-06-13"), _day("2017-06-14"))
    ]


class Bomb:
    """What a pickle would run."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_no_pickle_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {"label": np.int64(7), "marks": np.arange(6.0).reshape(2, 3), "bomb": Bomb(), "n": [1]}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = inert(pickle.dumps(told, protocol))
        assert found["label"] == 7 and found["n"] == [1]
        np.testing.assert_array_equal(found["marks"], told["marks"])
        assert isinstance(found["bomb"], Named)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="a pickle that cannot be read"):
        inert(b"no pickle")
    with pytest.raises(InputError, match="numbers alone are read"):
        inert(pickle.dumps({"label": np.array([{}], dtype=object)}))


def refuse(said: str, path: Path, name: str, **more) -> None:
    with pytest.raises(InputError, match=said) as error:
        open_tasks(name, path, split="train", patch=8, size=32, **more)
    assert "\n" not in str(error.value)


def test_what_is_wrong_with_class_folders_is_told(tmp_path, caplog):
    path = write("eurosat_rgb", tmp_path / "set")
    refuse("unknown target 'x'; known: class", path, "eurosat_rgb", target="x")
    folder = path / "2750"
    with caplog.at_level(logging.WARNING):
        reader_of("eurosat_rgb")(path, None, Frame(8, 32))
    assert "100 images, EuroSAT, RGB has 27000" in caplog.text
    (folder / "Pasture/Pasture_000.jpg").unlink()
    refuse(r"eurosat-\w+\.txt names Pasture_000.jpg, which is not there", path, "eurosat_rgb")
    for list_ in path.glob("*.txt"):
        list_.unlink()
    with caplog.at_level(logging.INFO):
        ours = reader_of("eurosat_rgb")(path, None, Frame(8, 32))
    assert (ours.splits == "train").sum() == 59  # 60 % of every class, of one 5 of 9
    assert "ours: 60% of every class train, 20% validation, the rest test" in caplog.text
    (folder / "Meadow").mkdir()
    refuse("Meadow: no image", path, "eurosat_rgb")
    (folder / "Forest").rename(folder / "Meadow")
    refuse("unknown class 'Meadow'.*SeaLake", path, "eurosat_rgb")
    for file in (folder / "Meadow").iterdir():
        file.unlink()
    (folder / "Meadow").rmdir()
    refuse("no images of Forest", path, "eurosat_rgb")
    refuse("no folder of classes|no image", tmp_path / "none", "eurosat_rgb")


def test_splits_that_do_not_fit_are_told(tmp_path):
    path = write("nwpu_resisc45", tmp_path / "set")
    lists = {each.stem.partition("-")[2]: each for each in path.glob("*.txt")}
    text = lists["test"].read_text()
    lists["test"].write_text(text + lists["train"].read_text().splitlines()[0])
    refuse("and so does the list of train", path, "nwpu_resisc45")
    lists["test"].unlink()
    refuse("resisc45-test.txt: no such file", path, "nwpu_resisc45")
    path = write("rsd46_whu", tmp_path / "rsd")
    (path / "RSD46-WHU/val").rename(path / "RSD46-WHU/dev")
    refuse("no folder val, one of the splits", path, "rsd46_whu")


def test_what_is_wrong_with_masks_is_told(tmp_path):
    path = write("vaihingen", tmp_path / "set")
    refuse("unknown target 'x'; known: segmentation", path, "vaihingen", target="x")
    image = path / "top/top_mosaic_09cm_area1.tif"
    image.rename(path / "hidden.tif")
    refuse("area1.tif: no such file, and there is .*area1.tif", path, "vaihingen")
    (path / "hidden.tif").rename(image)
    mask = path / benchmarks()["vaihingen"].files[0]["mask"].format(name="top_mosaic_09cm_area1")
    stored = mask.read_bytes()
    mask.unlink()
    refuse("no .*area1.tif, one of ISPRS", path, "vaihingen")
    mask.write_bytes((path / "top/top_mosaic_09cm_area2.tif").read_bytes())
    tasks = open_tasks("vaihingen", path, split="train", patch=8, size=32)
    with pytest.raises(InputError, match=r"area1.tif: colour \(20, 20, 20\) is that of no class"):
        tasks.read(0)
    mask.write_bytes(stored[:200])
    with pytest.raises(InputError, match=r"area1.tif: cannot be read"):
        tasks.read(0)
    refuse("no masks of LEVIR-CD: {split}/label/{name}.png", path, "levir_cd")


def test_what_is_wrong_with_the_others_is_told(tmp_path):
    path = write("mlrsnet", tmp_path / "mlrsnet")
    table = path / "labels/wetland.csv"
    stored = table.read_text()
    table.write_text(stored.replace("label 03", "label 3"))
    refuse("wetland.csv: other labels than .*airplane.csv", path, "mlrsnet")
    table.write_text(stored.replace("wetland_00001.jpg,0", "wetland_00001.jpg,2"))
    refuse("wetland.csv: line 3: a name, then 0 or 1", path, "mlrsnet")
    table.write_text(stored.replace("wetland_00001.jpg", "wetland_1.jpg"))
    refuse("wetland_1.jpg: no such file", path, "mlrsnet")

    path = write("bigearthnet", tmp_path / "ben")
    refuse("unknown target '20'; known: 19, 43", path, "bigearthnet", target="20")
    patch = next((path / "BigEarthNet-v1.0").iterdir())
    patch.rename(path / "elsewhere")
    refuse("39: no such patch, and a list of splits names it", path, "bigearthnet")
    (path / "bigearthnet-val.csv").unlink()
    refuse("bigearthnet-val.csv: no such file", path, "bigearthnet")

    path = write("fmow", tmp_path / "fmow")
    about = path / "train/airport/airport_0/airport_0_0_rgb.json"
    about.write_text("{}")
    with pytest.raises(InputError, match=r"airport_0_0_rgb\.json: cannot be read: 'timestamp'"):
        open_tasks("fmow", path, split="train", patch=8, size=32).read(0)

    path = write("geo_bench", tmp_path / "geo")
    (path / "sample_03.hdf5").unlink()
    refuse("sample_03.hdf5: no such file", path, "geo_bench")
    (path / "default_partition.json").write_text(json.dumps({"train": ["../x"]}))
    refuse("outside of the folder", path, "geo_bench")

    path = write("fuel_moisture", tmp_path / "fuel")
    np.save(path / "month.npy", np.zeros((3, 3)))
    refuse(r"month.npy: \(3, 3\), not \(40, 3\)", path, "fuel_moisture")
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}]), allow_pickle=True)
    (path / "month.npy").write_bytes(buffer.getvalue())
    refuse("month.npy: cannot be read", path, "fuel_moisture")


def two_steps(cases: dict[str, list[str]]) -> dict[str, list[float]]:
    """Return the losses of two steps of each run."""
    found = {}
    for name, options in cases.items():
        run = load("gpna_tiny", [*options, *SMALL])
        workload, topology = workload_of(run), topology_of(run)
        engine = new_engine(run, workload, topology)
        batches = iter(workload.batches(topology, 0))
        losses = []
        for _ in range(2):
            todo = workload.step(iter([next(batches)]), topology.device)
            losses.append(float(engine.forward_backward(todo.passes, todo.count)["loss"]))
            engine.step(1e-3)
        found[name] = losses
    return found


@pytest.mark.long
@pytest.mark.slow
def test_each_kind_trains(paths):
    """Two steps on one data set of each kind."""
    cases = {
        name: [
            f"data={{tasks: {{a: {{reader: {name}, path: {paths[name]}, patch: 8, size: 16}}}}}}"
        ]
        for name in (
            *("eurosat_rgb", "mlrsnet", "whu_aerial", "oscd", "fuel_moisture", "spacenet2"),
        )
    }
    (found,) = on_ranks(two_steps, 1, cases)
    assert all(np.isfinite(losses).all() for losses in found.values()), found
