"""Faults of the shipped job on a real Slurm: it fails within a minute and resumes."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm import Slurm

JOB = Path(__file__).parents[2] / "jobs" / "local_vit_tiny.sbatch"
OPTIONS = ["checkpoint.every=4", "train.log_every=1", "train.micro_batch=8", "data.chip=32"]
OPTIONS += ["train.steps=4000", "train.hang_timeout_s=5"]


def processes(run: Path) -> list[str]:
    """Return the ranks of a run, whatever node they are on."""
    words = ["pgrep", "-f", f"/hpcgeo train .*run.dir={run} "]
    return subprocess.run(words, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
@pytest.mark.parametrize("signal", [pytest.param("KILL", marks=pytest.mark.long), "STOP"])
def test_a_rank_is_lost(slurm: Slurm, tmp_path: Path, free_port: int, signal: str) -> None:
    run = tmp_path / "run"
    # Jobs of another cluster on this host, another test's, have the same numbers and so ports.
    env = {"RUN": str(run), "MASTER_PORT": str(free_port)}
    job = slurm.submit(JOB, *OPTIONS, env=env)
    slurm.wait_for(job, "step 6/", 120)
    ranks = [number for number in processes(run) if _is_rank_1(number)]
    subprocess.run(["kill", f"-{signal}", *ranks], check=True)
    began = time.monotonic()
    state = slurm.wait(job, timeout_s=60)
    said = slurm.output(job)
    lines = [line for line in said.splitlines() if "hpcgeo: rank" in line]
    print(f"\nSIG{signal} on Slurm | {lines[:1]} | {time.monotonic() - began:.1f} s | {state}")
    assert state[0] == "FAILED" and state[1] != 0
    assert lines, said
    if signal == "STOP":
        assert re.search(r"rank 1 on \S+ \(process \d+, last seen .*no sign of life", said)
    deadline = time.monotonic() + 15
    while processes(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes(run)
    last = len((run / "metrics.jsonl").read_text().splitlines())
    job = slurm.submit(JOB, *OPTIONS, "launch.time_limit=0.001", "launch.requeue=null", env=env)
    assert slurm.wait(job) == ("COMPLETED", 0), slurm.output(job)
    resumed = re.search(r"from step (\d+) of", slurm.output(job))
    assert resumed and last - int(resumed[1]) < 5
    print("steps done anew:", last - int(resumed[1]))


def _is_rank_1(process: str) -> bool:
    try:
        return b"SLURM_PROCID=1\0" in Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


UNREACHABLE = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1
MASTER_ADDR=192.0.2.1 srun --kill-on-bad-exit=1 hpcgeo train mae_vit_tiny run.dir={run} \\
  launch.rendezvous_timeout_s=5
"""


@pytest.mark.slow
@pytest.mark.long
def test_an_unreachable_master(slurm: Slurm, tmp_path: Path, free_port: int) -> None:
    # An address for documentation (RFC 5737): no host has it.
    job = slurm.submit(
        UNREACHABLE.format(run=tmp_path / "run"), env={"MASTER_PORT": str(free_port)}
    )
    began = time.monotonic()
    state = slurm.wait(job, timeout_s=60)
    lines = [line for line in slurm.output(job).splitlines() if "hpcgeo: rank" in line]
    print(f"\nno master on Slurm | {lines} | {time.monotonic() - began:.1f} s | {state}")
    assert state[0] == "FAILED"
    assert lines and "launch.rendezvous_timeout_s" in lines[0]
    assert not (tmp_path / "run").exists()
