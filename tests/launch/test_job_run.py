"""The shipped job with the real training: two nodes, stopped by the signal, submitted again."""

import json
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "jobs" / "local_vit_tiny.sbatch"


@pytest.mark.slow
def test_a_stopped_job_goes_on_when_submitted_again(slurm, tmp_path):
    environ = {"RUN": str(tmp_path / "run")}
    # With a worker, which the signal reaches too.
    words = ["train.steps=40", "train.log_every=1", "checkpoint.every=40", "data.workers=1"]

    def steps() -> list[int]:
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    first = slurm.submit(JOB, *words, env=environ)
    slurm.wait_for(first, "step 5", 120)
    slurm.run("scancel", "--batch", "--signal=USR2", first)
    assert slurm.wait(first) == ("COMPLETED", 0), slurm.output(first)
    assert "received SIGUSR2: stopping after step" in slurm.output(first)
    stopped = steps()[-1]
    assert 5 <= stopped < 40

    second = slurm.submit(JOB, *words, env=environ)
    assert slurm.wait(second) == ("COMPLETED", 0), slurm.output(second)
    assert f"from step {stopped} of 40" in slurm.output(second)
    assert steps() == list(range(1, 41))
