"""Records: written whole, read back, and refused with file and line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hpcgeo.errors import InputError
from hpcgeo.records import Record, Spread, append, read

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
