"""SustainBench: its layouts are read as they are, and its table of tasks is complete."""

import numpy as np
import pytest

from hpcgeo.data.labelled import open_tasks
from hpcgeo.data.readers.collection import SPLITS, days
from hpcgeo.data.readers.sustainbench import crop_yield, dhs, fields, lsms
from hpcgeo.errors import InputError
from hpcgeo.kinds.metrics import metrics
from hpcgeo.tables import read
from tests.data.labelled import LAYOUTS, write_table
from tests.data.test_readers import KINDS, date_of, days_of


def open_(reader, path, split="train", target=None, size=32):
    return open_tasks(reader, path, split=split, target=target, patch=16, size=size)


def test_the_twelve_tasks_can_be_opened(tmp_path):
    facts = read("sustainbench")
    assert len(facts["tasks"]) == 12 and "Table 1" in facts["source"]
    targets = {"dhs": dhs.TARGETS, "fields": fields.TARGETS, "lsms": lsms.TARGETS}
    for row in facts["tasks"].values():
        assert row["reader"] in LAYOUTS and KINDS[row["reader"]] == row["kind"]
        assert row.get("target") in (None, *targets.get(row["reader"], ()))
        assert row["metric"] in metrics() and row["method"]
        assert 0 < row["gpna"] < 1 and 0 < row["status_quo"] < 1
    better = [
        row["gpna"] < row["status_quo"]
        if row["metric"] == "rmse"
        else row["gpna"] >= row["status_quo"]
        for row in facts["tasks"].values()
    ]
    assert sum(better) == 8  # "matches or outperforms ... on 8 of 12 tasks"


def test_a_country_is_in_one_part():
    countries = [name for names in dhs.COUNTRIES.values() for name in names.split()]
    assert len(countries) == len(set(countries)) == 30 + 13 + 13


def test_clusters_of_surveys(tmp_path):
    path = LAYOUTS["dhs"][0](tmp_path / "dhs")
    tasks = {split: open_("dhs", path, split, "asset_index") for split in SPLITS}
    assert [len(each) for each in tasks.values()] == [6, 6, 6]
    sample = tasks["train"].collection.load(1)  # of 2014
    (seen,) = sample.observations
    assert seen.time[0].tolist() == list(days_of("2013-01-01", "2016-01-01"))
    assert seen.channels[-1].sensor == "viirs" and seen.channels[6].band == "B4"
    assert seen.gsd_m == pytest.approx(15 * 31 / 32)  # Mercator at 60 degrees
    assert (seen.values[0, :, -1] == pytest.approx(9, abs=3)) and sample.place == (20, 60)
    # without a label, no sample
    assert len(open_("dhs", path, "validation", "women_bmi")) == 5
    with pytest.raises(InputError, match="31 x 31 pixels are no multiple of patch 16"):
        open_("dhs", path, "train", "asset_index", size=None)
    table = path / "dhs_final_labels.csv"
    table.write_text(table.read_text().replace("AL-2008", "XX-2008"))
    with pytest.raises(InputError, match=r"unknown country of .*'XX'"):
        open_("dhs", path, "train", "asset_index")


def test_changes_of_wealth(tmp_path):
    path = LAYOUTS["lsms"][0](tmp_path / "lsms")
    tasks = [open_("lsms", path, split) for split in SPLITS]
    assert sum(map(len, tasks)) == 19  # one has too few households
    sample = tasks[0].read(0)
    sensors = [seen.channels[-1].sensor for seen in sample.observations]
    assert sensors == ["dmsp", "viirs"] and tasks[0].target.names == ("indexOfDiff",)
    assert tasks[0].target.mean[0] < 0 < open_("lsms", path, target="diffOfIndex").target.mean[0]
    write_table(
        path / "asset_infrstructure_indicies_lsms.csv",
        [{"country": "mw", "ea_id": "1", "lat": 1, "lon": 1}],
    )
    with pytest.raises(InputError, match="no row of et 01"):
        open_("lsms", path)


def test_land_cover_tiles(tmp_path):
    path = LAYOUTS["land_cover"][0](tmp_path / "tiles")
    tasks = open_("land_cover", path, size=64)
    assert tasks.target.names == ("075", "121")
    stored = np.load(path / "tile_triplets" / "0anchor.npy")
    (seen,) = open_("land_cover", path).collection.load(0).observations
    assert np.array_equal(seen.values[0, 3], stored[..., 3])  # near infrared; classes left out
    assert tasks.read(0).observations[0].gsd_m == 0.3


def test_brick_kilns(tmp_path):
    path = LAYOUTS["brick_kilns"][0](tmp_path / "kilns")
    tasks = open_("brick_kilns", path)
    sample = tasks.read(0)
    assert sample.place == pytest.approx((92, 21.2))
    assert [channel.band for channel in sample.observations[0].channels][8:10] == ["B8A", "B09"]
    assert sample.observations[0].time[0].tolist() == list(days_of("2018-10-01", "2019-06-01"))
    (path / "examples_1.hdf5").unlink()
    with pytest.raises(InputError, match=r"examples_1\.hdf5: no such file"):
        open_("brick_kilns", path)


def test_yields_of_a_season(tmp_path):
    path = LAYOUTS["crop_yield"][0](tmp_path / "yields")
    tasks = open_("crop_yield", path)
    counts = np.load(path / "train_hists.npz")["data"]
    (seen,) = tasks.collection.load(1).observations
    assert seen.values.shape == (4, 9, 12)
    assert seen.values[2, 5] == pytest.approx(np.sqrt(counts[1, :, 2, 5]))
    first = days(date_of("2005-08-24"), date_of("2005-09-01"))
    assert seen.time[0].tolist() == list(first) and np.diff(seen.time[:, 0]).tolist() == [8] * 3
    usa = crop_yield.season("usa", 2010, 32)
    assert usa[0, 1] == 64 and usa[:, 0].mean() == pytest.approx(
        days_of("2010-07-02", "2010-07-02")[0]
    )


def test_outlines_and_areas_of_fields(tmp_path):
    path = LAYOUTS["fields"][0](tmp_path / "fields")
    inside = {}
    for target in fields.TARGETS:
        tasks = open_("fields", path, "validation", target)
        assert tasks.target.names == ("background", target)
        inside[target] = int(tasks.read(0).target.sum())
    assert inside == {"outline": 2 * 32, "area": 20 * 32}
    with pytest.raises(InputError, match="unknown target ''; known: outline, area"):
        open_("fields", path)
