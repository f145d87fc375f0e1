"""Going on in another job: when rank 0 asks, and what job script and Slurm make of it."""

import os
import time
from pathlib import Path

import pytest

from hpcgeo.launch import scripts
from hpcgeo.launch.requeue import request
from hpcgeo.machines import Debug, Rule, machine
from tests.slurm import Slurm

JOB = Path(__file__).parents[2] / "jobs" / "local_vit_tiny.sbatch"

#: Stands in for `hpcgeo`: start n does the n-th word of PLAN.
STAND_IN = """#!/bin/bash
for word; do [[ $word == launch.requeue=* ]] && REQUEUE=${word#*=}; done
plan=($PLAN)
do=${plan[$((${SLURM_ARRAY_TASK_ID:-1} - 1 + ${SLURM_RESTART_COUNT:-0}))]}
ask() { if ((SLURM_PROCID == 0)); then echo "stopped in time" > "$REQUEUE"; fi; }
echo "$SLURM_PROCID does $do"
case $do in
  again) ask ;;
  fail) ask; exit 1 ;;
  linger) trap 'ask; sleep 1; exit 0' TERM
    echo "$SLURM_PROCID ready"; while :; do sleep 0.1; done ;;
esac
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "hpcgeo"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DATA": "synthetic"}


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of a job where requeue is forbidden; no machine is known to forbid it."""
    rule = Rule(allowed=False, source="none")
    where = machine("local").model_copy(update={"requeue": rule})
    monkeypatch.setattr(scripts, "machine", lambda name: where)
    return scripts.render(scripts.one_off("local", "mae_vit_tiny", 2, "00:30:00"))


def ask(folder: Path, began: int, saved: list[int]) -> bool:
    path = folder / "request"
    left = request(path, reason="received SIGUSR2", began=began, step=9, saved=saved)
    assert path.exists() == left
    return left


def test_a_request_says_why(tmp_path: Path) -> None:
    assert ask(tmp_path, began=5, saved=[5, 9])
    assert (tmp_path / "request").read_text() == "stopped after step 9: received SIGUSR2\n"


@pytest.mark.parametrize("saved", [[], [5]])
def test_no_request_without_progress_on_disk(
    tmp_path: Path, saved: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the job would be requeued for ever, and each time do the same steps."""
    assert not ask(tmp_path, began=5, saved=saved)


def test_a_request_that_cannot_be_left_is_no_failure(tmp_path: Path) -> None:
    assert not ask(tmp_path / "missing", began=0, saved=[9])


def test_a_chain_where_requeue_is_forbidden(
    slurm: Slurm, stand_in: dict[str, str], forbidden: str
) -> None:
    """A link that stopped or failed hands on; the one that ends the run cancels the rest."""
    plan = {"PLAN": "again fail done never never"}
    job = slurm.submit(forbidden, env=stand_in | plan, options=["--array=1-5%1"])
    shown = slurm.chain(job)
    states = [link["JobState"] for link in shown]
    assert states == ["COMPLETED", "FAILED", "COMPLETED", "CANCELLED"]  # 4 and 5 are one
    said = [slurm.output(int(link["JobId"])) for link in shown[:3]]
    assert "the next link of the chain goes on" in said[0]
    assert not any("requeue" in text or "submit it again" in text for text in said)
    assert {link["Restarts"] for link in shown} == {"0"}


def test_alone_where_requeue_is_forbidden(
    slurm: Slurm, stand_in: dict[str, str], forbidden: str
) -> None:
    job = slurm.submit(forbidden, env=stand_in | {"PLAN": "again"})
    assert slurm.wait(job) == ("COMPLETED", 0)
    assert "not requeued; submit it again to go on" in slurm.output(job)


def test_no_requeue_once_its_user_forbids_it(slurm: Slurm, stand_in: dict[str, str]) -> None:
    """The way to stop and save a job for good; Slurm then refuses, the job ends well."""
    job = slurm.submit(JOB, env=stand_in | {"PLAN": "linger"})
    for rank in range(2):
        slurm.wait_for(job, f"{rank} ready")
    slurm.run("scontrol", "update", f"JobId={job}", "Requeue=0")
    slurm.run("scancel", "--signal=TERM", job)
    assert slurm.wait(job) == ("COMPLETED", 0)
    assert "not requeued; submit it again to go on" in slurm.output(job)


def test_no_job_follows_another_where_that_is_forbidden(
    slurm: Slurm, stand_in: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under Frontier's debug QOS."""
    debug = Debug(text="--partition=batch", reason="starts soon", alone="$JOB_PARTITION=batch")
    where = machine("local").model_copy(update={"debug": debug})
    monkeypatch.setattr(scripts, "machine", lambda name: where)
    script = scripts.render(scripts.one_off("local", "mae_vit_tiny", 2, "00:30:00"))
    job = slurm.submit(script, env=stand_in | {"PLAN": "again done"})
    assert slurm.wait(job) == ("COMPLETED", 0)
    assert "not requeued under --partition=batch; submit it again" in slurm.output(job)
    assert slurm.show(job)["Restarts"] == "0"


def test_a_failure_is_not_requeued(slurm: Slurm, stand_in: dict[str, str]) -> None:
    """Not even where rank 0 had asked before another rank failed."""
    job = slurm.submit(JOB, env=stand_in | {"PLAN": "fail"})
    assert slurm.wait(job)[0] == "FAILED"
    assert slurm.show(job)["Restarts"] == "0"
    assert not (slurm.folder / f".requeue-{job}").exists()


def test_a_cancelled_job_stays_cancelled(slurm: Slurm, stand_in: dict[str, str]) -> None:
    """Its ranks receive TERM, as in a preemption, but its script is gone."""
    job = slurm.submit(JOB, env=stand_in | {"PLAN": "linger"})
    for rank in range(2):
        slurm.wait_for(job, f"{rank} ready")
    slurm.run("scancel", job)
    assert slurm.wait(job)[0] == "CANCELLED"
    while slurm.run("squeue", "-h", "-j", job).stdout:
        time.sleep(0.1)
    shown = slurm.show(job)
    assert (shown["JobState"], shown["Restarts"]) == ("CANCELLED", "0")
