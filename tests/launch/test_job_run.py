"""The shipped job with the real training: stopped, requeued, chained, bereft of a node; the same
losses as in one go."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from hpcgeo.launch import scripts
from hpcgeo.machines import Rule, machine
from tests.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

JOB = Path(__file__).parents[2] / "jobs" / "local_vit_tiny.sbatch"
STEPS = 60
PATIENCE_S = 400
#: With a worker, which signals reach too.
WORDS = [f"train.steps={STEPS}", "train.log_every=1", "checkpoint.every=20", "data.workers=1"]
WORDS += ["train.micro_batch=4", "data.chip=32"]


def losses(run: Path) -> dict[int, float]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    found = {row["step"]: row["loss"] for row in rows}
    assert list(found) == list(range(1, len(rows) + 1)), "a step is missing, or there twice"
    return found


def until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of the run in one go."""
    run = tmp_path_factory.mktemp("whole") / "run"
    job = slurm.submit(JOB, *WORDS, env={"RUN": str(run)})
    assert slurm.wait(job, PATIENCE_S) == ("COMPLETED", 0), slurm.output(job)
    assert len(losses(run)) == STEPS
    return losses(run)


def test_three_jobs_by_signal_and_requeue_then_a_lost_node(
    slurm: Slurm, whole: dict[int, float], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = slurm.submit(JOB, *WORDS, env={"RUN": str(run)})

    def trained(start: int, steps: int) -> int:
        """Wait until start number `start` has done so many steps; return the step it began at."""
        said = "at step 0 of" if start == 0 else "from step "
        until(lambda: slurm.output(job).count(said) == max(start, 1), lambda: slurm.output(job))
        began = 0 if start == 0 else int(slurm.output(job).split(said)[-1].split()[0])
        until(lambda: len(losses(run)) >= began + steps, lambda: slurm.output(job))
        return began

    trained(0, 3)
    slurm.run("scancel", "--batch", "--signal=USR2", job)  # as before the end of a job
    first = trained(1, 3)
    assert slurm.show(job)["Restarts"] == "1"
    slurm.run("scancel", "--signal=TERM", job)  # as in a preemption: the steps alone
    second = trained(2, 3)
    assert slurm.show(job)["Restarts"] == "2"
    slurm.run("scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=lost")
    third = trained(3, 1)
    assert slurm.wait(job, PATIENCE_S) == ("COMPLETED", 0), slurm.output(job)
    said = slurm.output(job)
    assert slurm.show(job)["Restarts"] == "3"
    assert 3 <= first < second <= third < STEPS
    # Slurm ends the other ranks with TERM; if that comes through, they have saved what they could.
    saved = third % 20 == 0 or f"received SIGTERM: stopping after step {third}" in said
    assert saved or third == second
    assert f"stopped after step {first}: received SIGUSR2" in said
    assert f"stopped after step {second}: received SIGTERM" in said
    assert "Traceback" not in said, "also the readers take the signals well"
    assert losses(run) == pytest.approx(whole, abs=1e-6)


@pytest.mark.long
def test_stopped_by_the_clock_and_requeued(slurm: Slurm, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [*WORDS, "train.steps=100000", "launch.time_limit=4", "checkpoint.every=5"]
    job = slurm.submit(JOB, *words, env={"RUN": str(run)})
    until(lambda: slurm.show(job)["Restarts"] == "1", lambda: slurm.output(job))
    slurm.run("scancel", job)
    said = slurm.output(job)
    reached = len(losses(run))
    assert "s left of launch.time_limit 4 s, a save " in said
    assert f"stopped after step {reached}: " in said and f"job {job}: requeued" in said
    assert (run / "checkpoints" / f"step-{reached:08d}" / "step.json").exists()


@pytest.mark.long
def test_a_chain_where_requeue_is_forbidden(
    slurm: Slurm, whole: dict[int, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No machine is known to forbid it."""
    where = machine("local").model_copy(update={"requeue": Rule(allowed=False, source="none")})
    monkeypatch.setattr(scripts, "machine", lambda name: where)
    script = scripts.render(scripts.job("local_vit_tiny"))
    run = tmp_path / "run"
    job = slurm.submit(script, *WORDS, env={"RUN": str(run)}, options=["--array=1-4%1"])
    until(lambda: len(losses(run)) >= 3, lambda: slurm.output(job))
    running = next(link for link in slurm.links(job) if link["JobState"] == "RUNNING")
    with suppress(RuntimeError):  # signals the link, tries again until it has ended, complains
        slurm.run("scancel", "--batch", "--signal=USR2", running["JobId"])
    shown = slurm.chain(job, PATIENCE_S)
    assert "received SIGUSR2" in slurm.output(int(running["JobId"]))
    assert [link["JobState"] for link in shown] == ["COMPLETED", "COMPLETED", "CANCELLED"]
    assert losses(run) == pytest.approx(whole, abs=1e-6)
