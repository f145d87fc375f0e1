"""`hpcgeo-profile`: one complete record per point, sweeps that skip, go on and record failures."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hpcgeo.records import Record, read
from hpcgeo.train.provenance import commit
from hpcgeo.zoo import architecture

SMALL = {"train.micro_batch": 4, "data.chip": 32, "launch.threads": 1}


def hpcgeo(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpcgeo", "profile", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[Record]]:
    """A sweep of two points that work, two that fail and four that cannot exist."""
    folder = tmp_path_factory.mktemp("sweep")
    file, records = folder / "sweep.yaml", folder / "records.jsonl"
    points = [
        {"strategy": "FULL_SHARD"},
        {"strategy": "HYBRID_SHARD", "group_size": 3},  # cannot exist
    ]
    sweep = {"recipe": "mae_vit_tiny", "steps": 4, "warmup": 2, "set": SMALL, "ranks": [1, 2]}
    sweep["grid"] = {"parallel": points, "data.path": ["synthetic", str(folder / "missing")]}
    file.write_text(yaml.safe_dump(sweep))
    done = hpcgeo("sweep", file, "--records", records)
    assert done.returncode == 3, done.stderr
    assert "2 measured, 2 failed" in done.stdout
    assert "group_size 3 does not divide 2 data-parallel ranks" in done.stderr
    return file, records, read([records])


def test_a_record_is_complete_and_consistent(swept: tuple[Path, Path, list[Record]]) -> None:
    good = [record for record in swept[2] if record.status == "ok"]
    assert [record.world_size for record in good] == [1, 2]
    for record in good:
        assert record.kind == "measured" and record.strategy == "FULL_SHARD"
        assert record.warmup_steps and record.warmup_steps >= 2
        assert record.step_s is not None and len(record.step_s.values) == 4
        assert record.images_per_s == pytest.approx(record.global_batch / record.step_s.median)
        assert record.global_batch == 4 * record.world_size
        forward = architecture("vit_tiny").mae_forward_flops(3, (32, 32), 0.75)
        assert record.model_flops == 3 * forward * record.global_batch
        assert record.peak_source == "measured" and record.peak_flops_per_s
        assert record.mfu == pytest.approx(
            record.model_flops
            / (record.peak_flops_per_s * record.world_size * record.step_s.median)
        )
        assert record.data_wait_s is not None and 0 <= record.data_wait_s < record.step_s.median
        assert record.peak_memory_bytes and record.peak_memory_bytes > 2**27
        assert record.memory_source == "resident"
        assert record.versions["torch"] and record.command and "profile run" in record.command
        assert record.config is not None and "run" not in record.config
    assert good[0].comm_s == pytest.approx(0, abs=5e-3)
    assert good[1].comm_s is not None and good[1].comm_s > 0


def test_a_failure_is_a_record_with_its_cause(swept: tuple[Path, Path, list[Record]]) -> None:
    failed = [record for record in swept[2] if record.status == "failed"]
    assert [record.world_size for record in failed] == [1, 2]
    for record in failed:
        assert record.error is not None and "missing" in record.error
        assert record.images_per_s is None and record.step_s is None


def test_what_is_recorded_is_skipped(swept: tuple[Path, Path, list[Record]]) -> None:
    file, records, before = swept
    if commit()[1]:
        pytest.skip("a tree with uncommitted changes is measured anew")
    done = hpcgeo("sweep", file, "--records", records)
    assert done.returncode == 3, done.stderr
    assert "0 measured, 2 failed" in done.stdout  # failures are tried again
    assert read([records])[: len(before)] == before


def test_a_typo_is_no_empty_sweep(swept: tuple[Path, Path, list[Record]]) -> None:
    file, records, _ = swept
    done = hpcgeo("sweep", file, "train.micro_bach=4", "--records", records)
    assert done.returncode == 2
    assert "unknown knob 'train.micro_bach'" in done.stderr


def test_a_run_that_is_stopped_early_is_not_recorded(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    knobs = [f"{key}={value}" for key, value in SMALL.items()]
    done = hpcgeo("run", "mae_vit_tiny", *knobs, "launch.time_limit=0.001", "--records", records)
    assert done.returncode == 2
    assert "nothing is recorded; give the run more time" in done.stderr
    assert not records.exists()
