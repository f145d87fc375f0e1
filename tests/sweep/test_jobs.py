"""Sweeps where the world misbehaves: Slurm fails or is told otherwise, lines are torn, locks are
missing, Ctrl-C comes twice. Slurm's commands are scripts: real ones do not fail when told to."""

import errno
import fcntl
import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from hpcgeo.cli.profile import app
from hpcgeo.errors import InputError
from hpcgeo.records import Record, append, read
from hpcgeo.sweep import jobs as submit
from hpcgeo.sweep import local as sweep
from hpcgeo.sweep import recorded as known
from hpcgeo.sweep.batch import SETTLED_S, Contents, JobBatch, Now
from hpcgeo.sweep.failures import Ending
from hpcgeo.sweep.jobs import Jobs
from hpcgeo.sweep.local import StoppedError, alone, run_sweep
from hpcgeo.sweep.points import Point, Sweep, cells, points
from hpcgeo.sweep.recorded import Known, failure, recorded
from hpcgeo.train import provenance

SMALL = {"launch.threads": 1, "data.chip": 32, "train.micro_batch": 4}


def sweep_of(**keys: object) -> Sweep:
    return Sweep.model_validate({"recipe": "mae_vit_tiny", "set": SMALL} | keys)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with commands of Slurm; `queue` is what squeue says, `words` what sbatch was told,
    `refusal` and `silent`, where they exist, what it answers instead."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "squeue": 'env > env; echo "$@" > asked\n'
        "[ -e broken ] && { rm broken; exit 1; }\ncat queue",
        "sbatch": 'printf "%s\\n" "$@" > words\n'
        "name=$(sed -n 's/--job-name=//p' words | tail -1)\n"
        '[ -e accepts ] && echo "$name|0|7_0|PENDING" >> queue\n'
        "[ -e refusal ] && { cat refusal >&2; exit 1; }\n"
        "[ -e silent ] || echo 7",
        "scontrol": "echo MaxArraySize = 1001",
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\ncd {folder}\n{text}\n")
        (folder / name).chmod(0o755)
    (folder / "queue").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for module in (submit, known, sweep):
        monkeypatch.setattr(module, "commit", lambda: ("abc", False))
    return folder


def batch_of(asked: Sweep, records: Path, name: str = "x-1n-1") -> JobBatch:
    contents = Contents(sweep=asked, retry=False, points=list(points(asked)))
    return JobBatch.write(records / "jobs" / name, contents, "")


# -- submitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "accepts", "broken", "kept"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out", True, False, True),
        ("sbatch: error: Batch job submission failed: Socket timed out", False, False, True),
        ("sbatch: error: Batch job submission failed: Invalid partition", False, True, True),
        ("sbatch: error: Batch job submission failed: Invalid partition", False, False, False),
    ],
)
def test_a_job_that_may_be_accepted_is_not_forgotten(
    commands: Path, tmp_path: Path, refusal: str, accepts: bool, broken: bool, kept: bool
) -> None:
    jobs = Jobs(sweep_of(nodes=[1]), tmp_path / "r", "x")
    (commands / "refusal").write_text(refusal)
    for name, there in (("accepts", accepts), ("broken", broken)):
        if there:
            (commands / name).touch()
    if accepts:
        jobs.submit(9)
    else:
        with pytest.raises(InputError, match="0 of 1 jobs are submitted"):
            jobs.submit(9)
    assert len(list(tmp_path.glob("r/jobs/*"))) == kept
    again = Jobs(sweep_of(nodes=[1]), tmp_path / "r", "x")
    assert len(again.queued) == accepts and len(again.planned) == 1 - accepts


def test_what_is_said_of_a_job_cannot_be_overridden(commands: Path, tmp_path: Path) -> None:
    asked = sweep_of(nodes=[1], grid={"seed": [1, 2]}, at_once=1, minutes=6)
    jobs = Jobs(asked, tmp_path / "a folder", "x")
    name = jobs.planned[0].job.name
    jobs.submit(9, "-A PROJECT --job-name=evil --time=99:00:00 --requeue")
    words = (commands / "words").read_text().splitlines()
    mine = words[words.index("--requeue") + 1 :]
    folder = tmp_path / "a folder" / "jobs" / name
    assert {*mine} >= {
        *(f"--job-name={name}", "--nodes=1", "--time=00:06:00", "--array=0-1%1"),
        *("--no-requeue", "--exclusive", f"--output={folder}/%a.out", "--ntasks-per-node=1"),
    }
    assert words[:2] == ["-A", "PROJECT"] and words[-1] == str(folder / "job.sbatch")
    script = (folder / "job.sbatch").read_text()
    assert "--requeue" not in script and " --time=6 " in script.partition("srun ")[2]


def test_an_sbatch_that_submits_nothing_is_no_success(commands: Path, tmp_path: Path) -> None:
    (commands / "silent").touch()
    with pytest.raises(InputError, match="sbatch gave no job"):
        Jobs(sweep_of(nodes=[1]), tmp_path / "r", "x").submit(9, "--test-only")


def test_no_budget_and_no_commit_submit_nothing(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(sweep_of(nodes=[1]), tmp_path / "r", "x")
    with pytest.raises(InputError, match="more than the budget of nan"):
        jobs.submit(float("nan"))
    monkeypatch.setattr(submit, "commit", lambda: ("abc", True))
    with pytest.raises(InputError, match=r"uncommitted changes.*git commit"):
        jobs.submit(9)
    assert not (commands / "words").exists()
    monkeypatch.setattr("hpcgeo.cli.profile.set_up", lambda: None)  # of a log that is closed here
    file = tmp_path / "s.yaml"
    file.write_text("{recipe: mae_vit_tiny, nodes: [1]}")
    words = ["sweep", str(file), "--submit", "--plan", "--records", str(tmp_path / "r")]
    planned = CliRunner().invoke(app, [*words, "--budget", "0.01"])
    assert "more than the budget of 0.01" in str(planned.exception)
    assert CliRunner().invoke(app, words).exit_code == 0


# -- the queue -------------------------------------------------------------------------------------


def test_variables_hide_no_jobs(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("LOGNAME", "somebody")
    batch_of(sweep_of(nodes=[1]), tmp_path / "r")
    (commands / "queue").write_text("x-1n-1|0|7_0|PENDING\nother|N/A|8|RUNNING\n")
    assert len(Jobs(sweep_of(nodes=[1]), tmp_path / "r", "x").queued) == 1
    assert f" -u {os.getuid()} " in (commands / "asked").read_text()
    assert "SQUEUE" not in (commands / "env").read_text()


def test_what_has_just_ended_is_not_planned_again(commands: Path, tmp_path: Path) -> None:
    asked = sweep_of(nodes=[1], grid={"seed": [1, 2]})
    batch = batch_of(asked, tmp_path / "r")
    now = Now(point=batch.contents.points[0], value="", job="", output=0, records=0)
    (batch.folder / "0.now").write_text(now.model_dump_json())
    jobs = Jobs(asked, tmp_path / "r", "x")
    jobs.settle()
    assert [len(planned.cells) for planned in jobs.planned] == [1]
    assert "still ending: call again" in str(jobs.board())
    (batch.folder / "missing.json").write_text(json.dumps({"0": time.time() - 2 * SETTLED_S}))
    jobs.settle()
    assert [len(planned.cells) for planned in jobs.planned] == [2]
    assert batch.lost(0).exists() and not jobs.ending


def test_the_watch_outlives_an_error_and_settles_alone(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sweep_of(nodes=[1])
    batch = batch_of(asked, tmp_path / "r")
    batch.output(0).write_text("hpcgeo: rank 0 of 1 on a: x is wrong\n")
    (commands / "queue").write_text("x-1n-1|0|7_0|RUNNING\n")
    jobs = Jobs(asked, tmp_path / "r", "x")
    (commands / "queue").write_text("")
    (commands / "broken").touch()
    naps = []

    def slept(seconds: float) -> None:
        naps.append(seconds)
        past = json.dumps({"0": 0})
        if len(naps) == 1:
            (batch.folder / "missing.json").write_text(past)
            held.__enter__()
        elif len(naps) == 2:
            assert batch.unsettled([]) == [0]  # another call settles
            held.__exit__(None, None, None)

    held = alone(tmp_path / "r" / "lock")
    # Of this module alone: subprocess sleeps too.
    monkeypatch.setattr(submit, "time", SimpleNamespace(sleep=slept, monotonic=time.monotonic))
    assert jobs.watch().counts() == {"failed": 1}
    assert len(naps) == 2 and batch.unsettled([]) == []


# -- what is recorded ------------------------------------------------------------------------------


def test_a_job_without_git_knows_its_commit(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [planned] = Jobs(sweep_of(nodes=[1]), tmp_path / "r", "x").planned
    [word] = re.findall("^export (HPCGEO_COMMIT=abc)$", planned.script, re.MULTILINE)
    monkeypatch.setattr(provenance.hpcgeo, "__file__", str(tmp_path / "hpcgeo" / "__init__.py"))
    monkeypatch.setenv(*word.split("="))
    assert provenance.commit.__wrapped__() == ("abc", False)
    (tmp_path / ".git").mkdir()  # which git refuses
    assert provenance.commit.__wrapped__() == ("abc", False)
    monkeypatch.delenv("HPCGEO_COMMIT")
    assert provenance.commit.__wrapped__() == (None, None)


def test_nothing_is_measured_again_without_a_word(
    commands: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = sweep_of(nodes=[1])
    [cell], _ = cells(asked)
    record = failure(asked, cell.point, Ending("failed", "x")).model_copy(
        update={"status": "ok", "commit": "def", "dirty": False}
    )
    append(tmp_path / "r" / "records-0.jsonl", record)
    assert Jobs(asked, tmp_path / "r", "x").planned
    assert "measured by other code, to be measured again: 1 points (commit def, here abc" in (
        caplog.text
    )


def test_a_torn_line_stops_no_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = sweep_of(ranks=[1])
    record = failure(asked, cells(asked)[0][0].point, Ending("failed", "x"))
    file = tmp_path / "records.jsonl"
    file.write_text(record.model_dump_json()[:100])
    append(file, record)
    with pytest.raises(InputError, match=r"records\.jsonl:1: not JSON"):
        read([file])
    assert recorded(file) == recorded(file) == [record]
    assert caplog.text.count("records.jsonl:1: not JSON") == 1
    file.write_text('{"kind": 3}\n')
    with pytest.raises(InputError, match="not a record"):
        recorded(file)


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with alone(tmp_path / "lock"):
        pass
    assert "make sure that no other sweep runs" in caplog.text


# -- sweeps here -----------------------------------------------------------------------------------


def test_a_second_ctrl_c_leaves_no_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One rank in a session of its own, as torchrun starts them, takes a while to be ended; another
    # one is forgotten by the launcher.
    script, children = tmp_path / "launcher.sh", tmp_path / "children"
    script.write_text(
        "exec 2>/dev/null\nsetsid sleep 600 &\nfirst=$!\ntrap 'sleep 1; kill $first; exit' TERM\n"
        "sleep 600 &\n"
        f"echo $first $! > {children}\nwait\nwait\n"
    )
    monkeypatch.setattr(sweep, "GRACE_S", 20)

    def interrupt() -> None:
        while not children.exists() or not children.read_text():
            time.sleep(0.02)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # subprocess itself waits a little after the first

    asked = sweep_of(ranks=[1], launch=f"bash {script}")
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(StoppedError):
        run_sweep(asked, tmp_path / "r.jsonl")
    thread.join()
    deadline = time.monotonic() + 10
    while left := [pid for pid in children.read_text().split() if _lives(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def _lives(pid: str) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_an_interrupted_table_shows_no_record_of_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sweep_of(ranks=[1])
    record = failure(asked, cells(asked)[0][0].point, Ending("out_of_memory", "x"))
    append(tmp_path / "r.jsonl", record.model_copy(update={"commit": "def"}))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "_run", interrupted)
    with pytest.raises(StoppedError) as stopped:
        run_sweep(asked, tmp_path / "r.jsonl")
    assert stopped.value.board.counts() == {"waiting": 1}


def test_a_search_that_records_something_else_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = sweep_of(ranks=[1], until_oom={})
    calls = []

    def other(_: Sweep, point: Point, file: Path) -> None:
        calls.append(point)
        assert len(calls) < 3
        record = failure(asked, cells(asked)[0][0].point, Ending("failed", "x"))
        changes = {"status": "ok", "config": _with(record, 0)}
        append(file, record.model_copy(update=changes))

    monkeypatch.setattr(sweep, "_run", other)
    board = run_sweep(asked, tmp_path / "r.jsonl")
    assert board.counts() == {"failed": 1} and "not as asked" in str(board)
    known = Known(asked, recorded(tmp_path / "r.jsonl"), any_code=True)
    assert len(known.answers) == 1


def _with(record: Record, micro_batch: int) -> dict[str, object]:
    config = record.config or {}
    return config | {"train": config["train"] | {"micro_batch": micro_batch}}


def test_values_of_several_lines_are_one_word() -> None:
    text = "a\nb\u00e9: 'c'"
    [point] = points(sweep_of(ranks=[1], set={"run.name": text, "run.tags": [text]}))
    assert point.overrides == (
        "run.name=\"a\\nb\u00e9: 'c'\"",
        "run.tags=[\"a\\nb\u00e9: 'c'\"]",
    )


def test_at_once_is_for_jobs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`at_once` has no effect without --submit"):
        run_sweep(sweep_of(ranks=[1], at_once=2), tmp_path / "r.jsonl")
