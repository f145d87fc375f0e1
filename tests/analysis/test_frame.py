"""Records as a table of pandas: the rows and columns of table.csv."""

import sys

import pytest

import hpcgeo_analysis
from hpcgeo.errors import InputError
from hpcgeo.records import append
from hpcgeo_analysis import report


def test_the_table_is_the_csv(tmp_path, sweep):
    pytest.importorskip("pandas")
    for record in sweep:
        append(tmp_path / "records.jsonl", record)
    frame = hpcgeo_analysis.load([tmp_path])
    lines = report.render(sweep)["table.csv"].decode().splitlines()
    assert list(frame.columns) == lines[0].split(",") and len(frame) == len(lines) - 1
    alone = frame[(frame.layout == "DDP") & (frame.devices == 1)]
    assert alone.images_per_s.iloc[0] == pytest.approx(8 / 0.101, rel=0.02)
    assert frame.status.value_counts()["failed"] == 1


def test_without_pandas_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs pandas: install"):
        hpcgeo_analysis.load([tmp_path])
