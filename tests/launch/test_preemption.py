"""Stopping in time: by signal, by clock, by the end of a real job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcgeo.launch import preemption
from hpcgeo.launch.environment import Environment
from hpcgeo.launch.preemption import Stop, job_times
from hpcgeo.options import Launch

ALONE = Environment(0, 1, 0, 1, "host", "single")
LOCAL = Launch()


def in_job(begin: float, end: float, ranks: int = 1) -> Environment:
    return Environment(0, ranks, 0, min(ranks, 8), "host", "slurm", "7", begin, end)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = time.time()

    class Clock:
        start = now

        def move(self, seconds: float) -> None:
            monkeypatch.setattr(time, "time", lambda: now + seconds)

    Clock().move(0)
    return Clock()


@pytest.fixture
def heard(caplog):
    return caplog


@pytest.mark.parametrize("number", preemption.SIGNALS)
def test_a_signal_sets_the_flag_and_the_handler_goes_again(number):
    before = signal.getsignal(number)
    with Stop(ALONE, LOCAL) as stop:
        assert stop.requested(0, 0) is None
        os.kill(os.getpid(), number)
        assert stop.requested(0, 0) == stop.reason == f"received {number.name}"
    try:
        if number != signal.SIGINT:  # asked again while it ends, it ends as it does
            os.kill(os.getpid(), number)
        else:
            assert signal.getsignal(number) == before
    finally:
        signal.signal(number, before)


def test_a_run_that_was_not_asked_can_be_ended():
    before = signal.getsignal(signal.SIGTERM)
    with Stop(ALONE, LOCAL):
        pass
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_before_the_loop_waits_for_it_and_one_after_it_does_not_kill():
    program = """
import os, signal
from hpcgeo.options import Launch
from hpcgeo.launch.environment import Environment
from hpcgeo.launch.preemption import Stop, hold
hold()
os.kill(os.getpid(), signal.SIGUSR2)
with Stop(Environment(0, 1, 0, 1, "host", "single"), Launch()) as stop:
    print(stop.requested(0, 0))
os.kill(os.getpid(), signal.SIGUSR2)
print("written")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "received SIGUSR2\nwritten\n"), done.stderr


def test_the_second_ctrl_c_does_not_wait():
    with pytest.raises(KeyboardInterrupt), Stop(ALONE, LOCAL):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_background_job_of_a_shell_does_not_hear_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop(ALONE, LOCAL) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.requested(0, 0) is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_saves(tmp_path):
    """As a terminal does it: the readers of the run get the signal too."""
    options = ["data.path=synthetic", "train.micro_batch=2", "train.steps=100000", "run.dir=run"]
    run = subprocess.Popen(
        [sys.executable, "-m", "hpcgeo", "train", "mae_vit_tiny", *options],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    rows = tmp_path / "run/metrics.jsonl"
    while not (rows.exists() and rows.read_text().count("\n") > 2):
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=120)[1]
    assert run.returncode == 0 and "Traceback" not in said, said
    assert "received SIGINT: stopping after step" in said
    assert list((tmp_path / "run/checkpoints").glob("step-*"))


def test_ctrl_c_elsewhere_is_a_line():
    program = """
import signal
from hpcgeo.cli.ranks import ranked
ranked(lambda: signal.raise_signal(signal.SIGINT))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.startswith("hpcgeo: rank 0 of 1 on ")
    assert done.stderr.endswith(": stopped by Ctrl-C\n") and done.stderr.count("\n") == 1


def test_handlers_go_when_the_loop_fails():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), Stop(ALONE, LOCAL):
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("length", "careful"), [(7200, 300), (600, 60)])
def test_before_the_first_save_a_careful_part_of_the_job_is_kept(clock, length, careful):
    stop = Stop(in_job(clock.start, clock.start + length), LOCAL)
    clock.move(length - careful - 1)
    assert stop.requested(0, 5) is None
    clock.move(length - careful)
    assert stop.requested(0, 5) == f"{careful} s left of job 7, a save was not measured yet"


@pytest.mark.parametrize(("save_s", "step_s", "kept"), [(20, 5, 80), (600, 30, 1290)])
def test_then_twice_what_a_save_and_a_step_take(clock, save_s, step_s, kept):
    """And half a minute for the last picture and the record."""
    stop = Stop(in_job(clock.start, clock.start + 7200), LOCAL)
    clock.move(7200 - kept - 1)
    assert stop.requested(save_s, step_s) is None
    clock.move(7200 - kept)
    assert stop.requested(save_s, step_s) == f"{kept} s left of job 7, a save takes {save_s} s"


def test_the_time_limit_or_the_job_whichever_ends_first(clock):
    early = Stop(in_job(clock.start, clock.start + 7200), Launch(time_limit=60))
    late = Stop(in_job(clock.start, clock.start + 7200), Launch(time_limit=8000))
    clock.move(53)
    assert early.requested(0, 0) is None
    clock.move(54)
    assert early.requested(0, 0).startswith("6 s left of launch.time_limit 60 s")
    clock.move(6900)
    assert late.requested(0, 0).startswith("300 s left of job 7")


def test_only_rank_0_watches_the_clock(clock):
    behind = Environment(1, 2, 1, 2, "host", "slurm", "7", clock.start, clock.start + 1)
    stop = Stop(behind, Launch(time_limit=0.0001))
    clock.move(10)
    assert stop.requested(1, 1) is None
    stop.saved(100)


def test_an_overhead_of_more_than_a_tenth_is_said_once(clock, heard):
    """Start-up counts from the begin of the job; the machine's bin tells of a longer one."""
    frontier = Launch(machine="frontier", requeue=Path("request"))
    stop = Stop(in_job(clock.start - 100, clock.start + 1900, ranks=64), frontier)
    stop.saved(0)
    stop.saved(100)
    assert not heard.text, "exactly a tenth"
    stop = Stop(in_job(clock.start - 100, clock.start + 1900, ranks=64), frontier)
    stop.saved(300)
    stop.saved(300)
    (record,) = heard.records
    assert "start-up 100 s and a save 300 s eat 20 % of a job of 2000 s" in record.message
    assert "ask for a longer job (frontier: 2 h on 8 nodes)" in record.message


def test_where_no_end_is_known_the_bin_of_the_machine_is(clock, heard):
    stop = Stop(ALONE, Launch(machine="frontier"))
    stop.saved(719 - stop.startup_s)
    assert not heard.text
    stop = Stop(ALONE, Launch(machine="frontier"))
    stop.saved(721 - stop.startup_s)
    assert "of a job of 7200 s: put the" in heard.text
    heard.clear()
    Stop(ALONE, LOCAL).saved(1e9)
    assert not heard.text


def test_an_unknown_end_is_a_warning_and_no_deadline(monkeypatch, heard):
    monkeypatch.setenv("PATH", "")
    environment = Environment(0, 1, 0, 1, "host", "slurm", "7", scheduler="slurm")
    assert job_times(environment) == (None, None)
    assert "the end of job 7 is unknown" in heard.text


def test_no_job_no_end():
    assert job_times(ALONE) == (None, None)


def test_the_times_of_a_real_job(slurm):
    program = (
        "import time; from hpcgeo.launch.environment import discover; "
        "from hpcgeo.launch.preemption import job_times; "
        "print(*(moment - time.time() for moment in job_times(discover())))"
    )
    job = slurm.submit(f"#SBATCH -n1 -t 10\nsrun {sys.executable} -c '{program}'")
    assert slurm.wait(job) == ("COMPLETED", 0)
    begin, end = map(float, slurm.output(job).split())
    assert begin < 0 and end - begin == pytest.approx(600) and 500 < end < 600
