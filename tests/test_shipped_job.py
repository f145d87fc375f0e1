"""The shipped job on a real Slurm: two nodes, killed half way, submitted again, the same losses."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm import Slurm

JOB = Path(__file__).parents[1] / "jobs" / "local_vit_tiny.sbatch"
STEPS = 120
KNOBS = [f"train.steps={STEPS}", "checkpoint.every=20", "train.micro_batch=8", "data.chip=32"]
KNOBS += ["parallel.strategy=FULL_SHARD"]


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    hpcgeo = [sys.executable, "-m", "hpcgeo", "data"]
    make = [*hpcgeo, "synthesize", folder / "scenes", "--scenes", "2", "--size", "256"]
    build = [*hpcgeo, "build", folder / "scenes", "--out", folder / "shards", "--chip", "64"]
    for command in (make, build):
        subprocess.run(command, check=True, capture_output=True)
    return folder / "shards"


def test_killed_half_way_and_submitted_again(slurm: Slurm, shards: Path, tmp_path: Path) -> None:
    env = {"RUN": str(tmp_path / "whole"), "DATA": str(shards)}
    job = slurm.submit(JOB, *KNOBS, env=env)
    assert slurm.wait(job) == ("COMPLETED", 0), slurm.output(job)
    assert "FULL_SHARD: 2 cpu ranks" in slurm.output(job)

    env["RUN"] = str(tmp_path / "killed")
    job = slurm.submit(JOB, *KNOBS, env=env)
    slurm.wait_for(job, "step 50/", timeout_s=120)
    slurm.run("scancel", "--signal=KILL", "--full", job)
    state, _ = slurm.wait(job)
    assert state != "COMPLETED"
    job = slurm.submit(JOB, *KNOBS, env=env)
    assert slurm.wait(job) == ("COMPLETED", 0), slurm.output(job)
    resumed = re.search(rf"from step (\d+) of {STEPS}", slurm.output(job))
    assert resumed and 40 <= int(resumed[1]) < STEPS
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)

    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    assert record["world_size"] == 2
    if slurm.named:
        assert record["hosts"] == ["node1", "node2"] and record["nodes"] == 2


def test_the_end_of_the_job_saves_and_the_next_one_goes_on(
    slurm: Slurm, shards: Path, tmp_path: Path
) -> None:
    """USR2 to the batch script, as Slurm sends it before the end of a job."""
    env = {"RUN": str(tmp_path / "run"), "DATA": str(shards)}
    knobs = [*KNOBS, "train.steps=100000", "checkpoint.every=100000"]
    job = slurm.submit(JOB, *knobs, env=env)
    slurm.wait_for(job, "step 10/", timeout_s=120)
    slurm.run("scancel", "--signal=USR2", "--batch", job)
    began = time.monotonic()
    assert slurm.wait(job) == ("COMPLETED", 0), slurm.output(job)
    assert time.monotonic() - began < 60
    assert "received SIGUSR2: stopping after step" in slurm.output(job)
    assert "start it again to go on" in slurm.output(job)
    assert list((tmp_path / "run" / "checkpoints").glob("step-*/step.json"))
