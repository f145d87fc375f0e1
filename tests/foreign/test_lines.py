"""Records and metrics from anyone: work, or one clear error."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.records import Record, read
from hpcgeo.train.run_folder import begin
from hpcgeo_analysis.points import points
from hpcgeo_analysis.reading import load as load_records
from hpcgeo_analysis.report import make
from hpcgeo_analysis.sections.runs import load_run
from tests.analysis.conftest import whole_record
from tests.foreign.mutations import damaged, many, texts, trees

ROOT = Path(__file__).parents[2]
RECORDS = (ROOT / "profiles" / "records" / "local" / "records.jsonl").read_text().splitlines()[:3]
ROWS = [
    {"step": step, "epoch": 0, "loss": 2 / step, "lr": 1e-3, "images_per_s": 100.0, "step_s": 0.1}
    for step in range(1, 9)
]
METRICS = "".join(json.dumps(row) + "\n" for row in ROWS)


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def row_files(rows: list[Any]) -> st.SearchStrategy[bytes]:
    """Files of JSON lines with other values, other text, or other bytes."""
    whole = lines(rows).decode()
    changed = st.lists(trees(rows[0]), min_size=1, max_size=2).map(lambda new: [*rows[1:], *new])
    return changed.map(lines) | texts(whole) | damaged(whole.encode())


RECORD_FILES = row_files([json.loads(line) for line in RECORDS])
WHOLE = [whole_record("DDP", n, 0.1) for n in (4, 1, 2)]
WHOLE_FILES = row_files([json.loads(record.model_dump_json()) for record in WHOLE])


@many
@given(content=RECORD_FILES)
def test_records(folder: Path, content: bytes) -> None:
    file = folder / "records.jsonl"
    file.write_bytes(content)
    try:
        for record in read([file]):
            assert Record.model_validate_json(record.model_dump_json()).layout == record.layout
        points(load_records([file])[0])
    except InputError as error:
        assert str(file) in str(error) and len(str(error)) < 2000


@settings(many, max_examples=many.max_examples // 100)
@given(content=RECORD_FILES | WHOLE_FILES)
def test_reports_of_such_records(folder: Path, content: bytes) -> None:
    file = folder / "records.jsonl"
    file.write_bytes(content)
    try:
        make([file], folder / "report")
    except InputError as error:
        assert str(error)


@many
@given(content=row_files(ROWS), step=st.integers(0, 10))
def test_metrics_of_a_run_that_is_resumed(folder: Path, content: bytes, step: int) -> None:
    """What is kept are whole lines of steps already done, in their order."""
    file = folder / "metrics.jsonl"
    file.write_bytes(content)
    begin(load("mae_vit_tiny"), folder, step)
    assert all(json.loads(line)["step"] <= step for line in file.read_text().split("\n") if line)


@settings(many, max_examples=many.max_examples // 10)
@given(content=row_files(ROWS))
def test_metrics_in_a_report(folder: Path, content: bytes) -> None:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_bytes(content)
    try:
        assert load_run(1, run).figure.panels[0]
    except InputError as error:
        assert "metrics.jsonl" in str(error) and len(str(error)) < 2000


@pytest.mark.parametrize("name", ["step-x.png", "step-00000001.png"])
def test_pictures_in_a_report(tmp_path: Path, name: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(METRICS)
    (tmp_path / "reconstructions").mkdir()
    (tmp_path / "reconstructions" / name).write_bytes(b"<script>")
    with pytest.raises(InputError, match=name):
        load_run(1, tmp_path)
