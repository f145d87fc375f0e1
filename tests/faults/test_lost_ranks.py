"""A rank that is killed, stopped, or does not arrive takes the job down; the next start resumes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from hpcgeo.launch.environment import discover
from hpcgeo.parallel.group import join
from hpcgeo.train import watchdog as watchdog_module
from hpcgeo.train.watchdog import Watchdog
from tests.ranks import STEPS, end, launch, metrics, start, tell, train, wait_for_step

#: Far from the end, so that no rank gets there first.
LONG = ["train.steps=4000", "optim.warmup_steps=0"]


def lost(folder: Path) -> int:
    """Start the run again; return how many steps are done anew."""
    done = metrics(folder)[-1]["step"]
    code, said = train(folder, 2, *LONG, "launch.time_limit=0.001")
    assert code == 0, said
    resumed = re.search(r"from step (\d+) of", said)
    assert resumed and metrics(folder)[-1]["step"] == int(resumed[1]) + 1
    print("steps done anew:", int(done) - int(resumed[1]))
    return int(done) - int(resumed[1])


def test_a_killed_rank(tmp_path: Path) -> None:
    ranks = start(tmp_path / "run", 2, *LONG)
    wait_for_step(ranks[0], tmp_path / "run", 6)
    began = time.monotonic()
    ranks[1].kill()
    said, _ = end(ranks)
    assert ranks[0].returncode == 1
    assert re.search(r"rank 0 of 2 on \S+: \w.* after step \d+: lost the other ranks", said)
    assert "Traceback" not in said
    tell("kill -9", said, began, ranks[0].returncode)
    assert lost(tmp_path / "run") < 8, "checkpoint.every = 4, and one may be under way"


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_stopped_rank_is_named_with_stacks(tmp_path: Path, which: int) -> None:
    ranks = start(tmp_path / "run", 2, *LONG, "train.hang_timeout_s=4")
    wait_for_step(ranks[0], tmp_path / "run", 6)
    began = time.monotonic()
    ranks[which].send_signal(signal.SIGSTOP)
    other = ranks[1 - which]
    (said,) = end([other])
    tell(f"SIGSTOP of rank {which}, patience 4 s", said, began, other.returncode)
    assert other.returncode == 1
    line = said.splitlines()[-1]
    assert re.search(rf"rank {1 - which} of 2 on \S+: rank {which} on \S+ \(process", line), said
    assert f"process {ranks[which].pid}, last seen " in line and "no sign of life" in line
    assert "most recent call first" in said
    # Continued after all, it ends as well.
    ranks[which].send_signal(signal.SIGCONT)
    end([ranks[which]])
    assert ranks[which].returncode == 1
    assert lost(tmp_path / "run") < 8


@pytest.mark.long
def test_ranks_that_are_suspended_together_go_on(tmp_path: Path) -> None:
    """For longer than the patience, as a scheduler does; one alone for less than it."""
    ranks = start(tmp_path / "run", 2, *LONG, "train.hang_timeout_s=4")
    wait_for_step(ranks[0], tmp_path / "run", 6)
    for paused, seconds in ((ranks, 6.0), (ranks[1:], 2.0)):
        for rank in paused:
            rank.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        for rank in paused:
            rank.send_signal(signal.SIGCONT)
        wait_for_step(ranks[0], tmp_path / "run", int(metrics(tmp_path / "run")[-1]["step"]) + 5)
    for rank in ranks:
        rank.send_signal(signal.SIGUSR2)
    said = end(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], said


def forgotten() -> None:
    time.sleep(600)


def hang() -> None:
    """Rank 1 of 2 lives, but does not arrive; one alone does not go on reading."""
    watchdog_module.SLOW_S = 2.0
    environment = discover()
    rank, size, port = environment.rank, environment.world_size, int(os.environ["MASTER_PORT"])
    meeting = ("127.0.0.1", port, "") if size > 1 else None
    join(rank, size, rank, size, meeting, run="run", host=environment.host, rendezvous_timeout_s=30)
    with Watchdog(environment, 2.0) as watchdog:
        watchdog.begin()
        for step in range(3):
            watchdog.at("computing")
            dist.barrier()
            watchdog.at("writing metrics")
            watchdog.step = step + 1
        watchdog.at("computing" if size > 1 else "reading data")
        if rank == size - 1:
            forgotten()
        watchdog.at("writing metrics")
        dist.barrier()


def test_a_rank_that_lives_but_does_not_arrive_is_named() -> None:
    ranks = launch(2, before=hang)
    said = end(ranks)
    assert [rank.returncode for rank in ranks] == [1, 1]
    named = r"rank 1 on \S+ \(process \d+, last seen computing after step 3\) made no progress"
    assert re.search(named, said[0]), said[0]
    assert "1 others wait, writing metrics after step 3" in said[0]
    assert "in forgotten" in said[1]


def test_a_single_rank_does_not_wait_for_ever() -> None:
    """Its storage does not answer, or a reader died without a word."""
    (rank,) = launch(1, before=hang)
    (said,) = end([rank])
    assert rank.returncode == 1
    assert "last seen reading data after step 3) made no progress" in said
    assert "the storage does not answer, or a reader process has died" in said
    assert "in forgotten" in said


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"]
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"]


@pytest.mark.long
@pytest.mark.parametrize("launcher", [TORCHRUN, MPIRUN], ids=["torchrun", "mpirun"])
def test_a_launcher_takes_a_stopped_rank_down(tmp_path: Path, launcher: list[str]) -> None:
    """With the patience that everybody has; torchrun waits 30 s more for a stopped process."""
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "hpcgeo", "train", "mae_vit_tiny", f"run.dir={folder}"]
    words += ["data.chip=32", "train.micro_batch=8", "checkpoint.every=4", *LONG]
    job = subprocess.Popen([*launcher, *words], stderr=subprocess.PIPE, text=True)
    wait_for_step(job, folder, 6)
    ours = subprocess.run(
        ["pgrep", "-f", f"^{sys.executable} .*run.dir={folder} "], capture_output=True, text=True
    ).stdout.split()
    processes = [int(number) for number in ours if int(number) != job.pid]
    began = time.monotonic()
    subprocess.run(["kill", "-STOP", str(max(processes))], check=True)
    _, said = job.communicate(timeout=60 + 30 * (launcher is TORCHRUN))
    tell(f"SIGSTOP under {launcher[0]}", said, began, job.returncode)
    assert job.returncode != 0
    assert "no sign of life" in said
    left = subprocess.run(["pgrep", "-f", f"run.dir={folder} "], capture_output=True, text=True)
    assert not left.stdout


def test_ranks_pass_through(tmp_path: Path) -> None:
    """The watchdog is silent in a run that is well."""
    code, said = train(tmp_path / "run", 2, "train.hang_timeout_s=4")
    assert code == 0, said
    assert metrics(tmp_path / "run")[-1]["step"] == STEPS
