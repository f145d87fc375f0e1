"""The shipped job on a real Slurm: two nodes, killed half way, submitted again, the same losses."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.processes import hpcgeo
from tests.slurm import Slurm

JOB = Path(__file__).parents[2] / "jobs" / "local_vit_tiny.sbatch"
STEPS = 60
OPTIONS = [f"train.steps={STEPS}", "checkpoint.every=10", "train.micro_batch=8", "data.chip=32"]
OPTIONS += ["parallel.strategy=FULL_SHARD", "train.log_every=5"]


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make = ["synthesize", folder / "scenes", "--scenes", 2, "--size", 256]
    build = ["build", folder / "scenes", "--out", folder / "shards", "--chip", 64]
    for words in (make, build):
        hpcgeo("data", *words).check_returncode()
    return folder / "shards"


@pytest.mark.long
def test_killed_half_way_and_submitted_again(slurm: Slurm, shards: Path, tmp_path: Path) -> None:
    env = {"RUN": str(tmp_path / "whole"), "DATA": str(shards)}
    job = slurm.submit(JOB, *OPTIONS, env=env)
    assert slurm.wait(job) == ("COMPLETED", 0), slurm.output(job)
    assert "FULL_SHARD: 2 cpu ranks" in slurm.output(job)

    env["RUN"] = str(tmp_path / "killed")
    job = slurm.submit(JOB, *OPTIONS, env=env)
    slurm.wait_for(job, "step 25/", timeout_s=120)
    # No warning: the ranks themselves, with -9.
    subprocess.run(["pkill", "-KILL", "-f", f"run.dir={env['RUN']} "], check=True)
    assert slurm.wait(job)[0] == "FAILED"
    job = slurm.submit(JOB, *OPTIONS, env=env)
    assert slurm.wait(job) == ("COMPLETED", 0), slurm.output(job)
    resumed = re.search(rf"from step (\d+) of {STEPS}", slurm.output(job))
    assert resumed and int(resumed[1]) in range(20, STEPS, 10)
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)

    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    assert record["world_size"] == 2
    if slurm.named:
        assert record["hosts"] == ["node1", "node2"] and record["nodes"] == 2
