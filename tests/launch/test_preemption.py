"""Stopping in time: by signal, by clock, by the end of a real job."""

import os
import signal
import sys
import time

import pytest

from hpcgeo.launch import preemption
from hpcgeo.launch.environment import Environment
from hpcgeo.launch.preemption import Stop, job_end

ALONE = Environment(0, 1, 0, 1, "host", "single")


@pytest.mark.parametrize("number", preemption.SIGNALS)
def test_a_signal_sets_the_flag_and_the_handler_goes_again(number):
    before = signal.getsignal(number)
    with Stop(ALONE) as stop:
        assert stop.requested() is None
        os.kill(os.getpid(), number)
        assert stop.requested() == f"received {number.name}"
        assert stop.requested()
    assert signal.getsignal(number) == before


def test_handlers_go_when_the_loop_fails():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), Stop(ALONE):
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_time_limit(monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    stop = Stop(ALONE, 60)
    assert stop.requested() is None
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert stop.requested() is None
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert stop.requested() == "time limit of 60 s reached"


@pytest.mark.parametrize(("length", "margin"), [(7200, 300), (600, 60)])
def test_the_end_of_the_job_less_a_margin(monkeypatch, length, margin):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    stop = Stop(Environment(0, 1, 0, 1, "host", "slurm", "7", now + length))
    monkeypatch.setattr(time, "time", lambda: now + length - margin - 1)
    assert stop.requested() is None
    monkeypatch.setattr(time, "time", lambda: now + length - margin)
    assert stop.requested() == "job 7 ends soon"


def test_only_rank_0_watches_the_clock():
    stop = Stop(Environment(1, 2, 1, 2, "host", "slurm", "7", time.time() - 1), 0.0001)
    time.sleep(0.01)
    assert stop.requested() is None


def test_an_unknown_end_is_a_warning_and_no_deadline(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(preemption.log, "propagate", True)
    assert job_end(Environment(0, 1, 0, 1, "host", "slurm", "7")) is None
    assert "the end of job 7 is unknown" in caplog.text


def test_no_job_no_end():
    assert job_end(ALONE) is None


def test_the_end_of_a_real_job(slurm):
    program = (
        "import time; from hpcgeo.launch.environment import discover; "
        "from hpcgeo.launch.preemption import job_end; print(job_end(discover()) - time.time())"
    )
    job = slurm.submit(f"#SBATCH -n1 -t 10\nsrun {sys.executable} -c '{program}'")
    assert slurm.wait(job) == ("COMPLETED", 0)
    assert 590 < float(slurm.output(job)) <= 600
