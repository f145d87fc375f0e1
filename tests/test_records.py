"""Records: written whole, read back, refused with file and line; fields declare themselves."""

import csv
import io
import json
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

import hpcgeo_analysis
from hpcgeo import records
from hpcgeo.errors import InputError
from hpcgeo.measured import ABOVE_ZERO, Shown, Spread, told
from hpcgeo.records import Record, append, read
from hpcgeo_analysis import report
from hpcgeo_analysis.reading import load

RECORD = Record(
    kind="measured",
    machine="local",
    device="CPU",
    nodes=1,
    world_size=2,
    model="vit_tiny",
    objective="mae",
    chip=(64, 64),
    strategy="HYBRID_SHARD",
    group_size=2,
    dtype="float32",
    micro_batch=32,
    accumulate=1,
    global_batch=64,
    data="synthetic",
    created="2026-01-01T00:00:00+00:00",
)


def test_appended_records_come_back(tmp_path: Path) -> None:
    file = tmp_path / "a" / "records.jsonl"
    for world_size in (1, 2):
        append(file, RECORD.model_copy(update={"world_size": world_size}))
    assert [record.world_size for record in read([file])] == [1, 2]
    assert read([tmp_path]) == read([file])
    assert RECORD.layout == "HYBRID_SHARD(2)"


def test_a_torn_line_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"kind": "meas')
    append(file, RECORD)
    torn, whole = file.read_text().splitlines()
    assert torn == '{"kind": "meas'
    assert Record.model_validate_json(whole) == RECORD


def test_samples_of_a_mixture_have_no_one_size() -> None:
    tasks = {"data": {"tasks": {}, "batching": {"mode": "bins"}}}
    mixed = RECORD.model_copy(update={"config": tasks, "chip": None})
    assert mixed.mixed and not RECORD.mixed
    assert mixed.key["chip"] == mixed.key["bands"] == "of several data sets"
    assert RECORD.key["bands"] == "not recorded"
    assert '"data.batching.mode": "bins"' in mixed.key["options"]
    assert not RECORD.model_copy(update={"config": {"data": 5}}).mixed


@pytest.mark.parametrize("padding", [-0.1, 1.0, float("nan")])
def test_padding_is_a_part_of_the_whole(padding: float) -> None:
    with pytest.raises(ValidationError, match="padding"):
        Record.model_validate(RECORD.model_dump() | {"padding": padding})


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_spread(values: list[float]) -> None:
    spread = Spread.of(values)
    assert min(values) <= spread.p10 <= spread.median <= spread.p90 <= max(values)
    assert spread.relative >= 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("{}", ":2: not a record: kind"),
        ('{"kind": "measured", "x": 1}', ":2: not"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "records.jsonl"
    append(file, RECORD)
    with file.open("a") as handle:
        handle.write(line + "\n")
    with pytest.raises(InputError, match=message):
        read([file])


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read([tmp_path / "x"])
    with pytest.raises(InputError, match=r"no record\.json"):
        read([tmp_path])


def columns(files: dict[str, bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files["table.csv"].decode())))


def test_every_field_is_shown_somewhere() -> None:
    """In a column of the CSV, or by a section of the report that it names."""
    [row] = columns(report.render([RECORD]))
    sections = {"head", "other", "scaling", "omissions", "made", "batching", "steps", "mfu"}
    sections |= {"collectives", "stragglers", "memory", "predictions", "energy"}
    for name, shown in told(Record).items():
        assert shown.section in sections, name
        assert name in row or shown.section != "other", name
    assert row["schema_version"] == "2"


class Wider(Record):
    """A record with fields of another package."""

    cooling_w: Annotated[float | None, ABOVE_ZERO, Shown(unit="W")] = Field(
        None, description="power of the pumps"
    )
    latency_s: float | None = None
    operator: str | None = None


def test_a_field_from_outside_reaches_csv_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "Record", Wider)
    file = tmp_path / "records.jsonl"
    for power in (40.0, 44.0):
        more = {"cooling_w": power, "latency_s": 0.25, "operator": "me"}
        append(file, Wider.model_validate(RECORD.model_dump() | more))
    files = report.render(load([file]).records)
    [row] = columns(files)
    assert (row["cooling_w"], row["latency_s"], row["operator"]) == ("42.0", "0.25", "me")
    text = files["report.md"].decode()
    _, found = text.split("## Other fields")
    assert "cooling w, W" in found and "latency s, s" in found and "| 42 |" in found
    pytest.importorskip("pandas")
    [point] = hpcgeo_analysis.load([file]).itertuples()
    assert (point.cooling_w, point.latency_s, point.operator) == (42.0, 0.25, "me")
    append(file, Wider.model_validate(RECORD.model_dump() | {"cooling_w": 0.0}))
    with pytest.raises(InputError, match=r"cooling_w is 0\.0; it must be above zero"):
        load([file])


def test_a_newer_minor_version_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "records.jsonl"
    values = json.loads(RECORD.model_dump_json()) | {"schema_minor": 9, "cooling_w": 40.0}
    spread = {"median": 1.0, "p10": 1.0, "p90": 1.0, "values": [], "skew": 0.1}
    file.write_text(json.dumps(values | {"step_s": spread}) + "\n")
    with pytest.raises(InputError, match="skew"):
        read([file])
    loaded = load([file])
    assert loaded.newer == {"cooling_w": 1, "step_s.skew": 1}
    text = report.render(loaded.records, newer=loaded.newer)["report.md"].decode()
    assert "1 record of a newer version: cooling_w was left out." in text
    pytest.importorskip("pandas")
    assert "cooling_w" not in hpcgeo_analysis.load([file])
    assert "of a newer version, left out: cooling_w, step_s.skew" in caplog.text
    file.write_text(json.dumps(values | {"schema_minor": 0}) + "\n")
    with pytest.raises(InputError, match="cooling_w"):
        load([file])


def test_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    values = json.loads(RECORD.model_dump_json()) | {"schema_version": 3}
    file.write_text(json.dumps(values) + "\n")
    with pytest.raises(InputError, match=r":1: a record of version 3, .* up to 2: install"):
        load([file])


def test_a_torn_line_is_left_out_and_a_file_of_nothing_else_refused(tmp_path, caplog):
    whole = RECORD.model_dump_json()
    path = tmp_path / "records.jsonl"
    path.write_text(f"{whole}\n{whole[:300]}")
    assert len(records.read_on([path])) == 1
    assert "records.jsonl:2: not JSON" in caplog.text
    path.write_text(whole[:300])
    with pytest.raises(InputError, match="not JSON"):
        records.read_on([path])
