"""Sweeps: points, what is recorded, searches, causes of failures; and one with real ranks, out of
memory, interrupted, resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hpcgeo.errors import InputError
from hpcgeo.launch.schedulers.slurm import Slurm
from hpcgeo.machines import machines
from hpcgeo.measured import Spread
from hpcgeo.records import Record, read
from hpcgeo.sweep import local
from hpcgeo.sweep import recorded as known_module
from hpcgeo.sweep.batch import SETTLED_S, Contents, JobBatch, Now
from hpcgeo.sweep.failures import Ending, ending
from hpcgeo.sweep.jobs import Jobs
from hpcgeo.sweep.local import alone, run_sweep
from hpcgeo.sweep.points import Sweep, UntilOom, cell_of, cells, labels, load_sweep, points
from hpcgeo.sweep.recorded import Known, answer, failure, pending, standing
from hpcgeo.train.record import stated

PROFILES = Path(__file__).parents[2] / "profiles"
SMALL = {"launch.threads": 1, "data.chip": 32, "train.micro_batch": 4}
HUGE = 10_000_000  #: a micro-batch of 30 GB
LIMIT = ["prlimit", f"--as={4_000_000_000}"]


def sweep_of(**keys: object) -> Sweep:
    return Sweep.model_validate({"recipe": "mae_vit_tiny", "set": SMALL} | keys)


def record_of(sweep: Sweep, **changes: object) -> Record:
    """The record that the first cell of a sweep would leave."""
    cell = cells(sweep)[0][0]
    fields = stated(cell.run, cell.point.ranks)
    fields["config"] = {key: value for key, value in fields["config"].items() if key != "run"}
    fields |= {"warmup_steps": sweep.warmup, "step_s": Spread.of([1.0] * sweep.steps)}
    fields |= {"device": "CPU", "nodes": cell.point.nodes or 1, "data": "synthetic"}
    return Record(**fields | {"images_per_s": 4.0} | changes)


# -- points ----------------------------------------------------------------------------------------


def test_points_are_a_function_of_the_file() -> None:
    group = [{"parallel.strategy": "DDP", "train.micro_batch": 8}, {"communication": False}]
    sweep = sweep_of(ranks=[1, 2], grid={"points": group, "seed": [1]}, overrides=["seed=7"])
    found = list(points(sweep))
    assert found == list(points(sweep))
    assert [(point.ranks, point.nodes) for point in found] == [(1, 1), (1, 1), (2, 1), (2, 1)]
    words = found[0].words(sweep, Path("r.jsonl"))
    assert words[:3] == ["profile", "run", "mae_vit_tiny"]
    assert [word for word in words if "=" in word] == [
        *("launch.threads=1", "data.chip=32", "train.micro_batch=8", "seed=1"),
        *("parallel.strategy=DDP", "seed=7"),
    ]
    assert "--communication" not in words
    off = found[1].words(sweep, Path("r.jsonl"))
    assert off[off.index("--communication") + 1] == "off"


def test_nodes_are_full_of_devices() -> None:
    there = {"launch.machine": "frontier"}
    assert sweep_of(set=there, nodes=[1, 4]).places() == [(8, 1), (32, 4)]
    assert sweep_of(nodes=[3]).places() == [(3, 3)]
    assert sweep_of(nodes=[3], ranks_per_node=2).places() == [(6, 3)]
    assert sweep_of(ranks=[3, 4], ranks_per_node=2).places() == [(3, 2), (4, 2)]
    assert sweep_of(ranks=[3], launch="mpirun -n {ranks}").places() == [(3, None)]


def test_cells_that_cannot_exist_are_left_out() -> None:
    layouts = [{"strategy": "DDP"}, {"strategy": "HYBRID_SHARD", "group_size": 2}, {"tensor": 5}]
    found, left_out = cells(sweep_of(ranks=[1, 2, 2], grid={"parallel": layouts}))
    assert labels(found) == [
        "1 rank, strategy=DDP",
        "2 ranks, strategy=DDP",
        "2 ranks, strategy=HYBRID_SHARD, group_size=2",
    ]
    assert "group_size 2 does not divide 1 data-parallel ranks" in left_out[0]
    assert any("parallel.tensor 5 " in reason for reason in left_out)
    with pytest.raises(InputError, match="no point of the sweep can exist: 1 rank"):
        cells(sweep_of(ranks=[1], grid={"parallel": layouts[1:]}))


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid(path: Path) -> None:
    every, left_out = cells(load_sweep(path))
    assert len(every) >= 6 and len(every) + len(left_out) == len(list(points(load_sweep(path))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: x", "ranks"),
        ("a: [", "sweep"),
        ("{recipe: x, ranks: [0], grid: {}}", "greater"),
        ("{recipe: x, ranks: [1], nodes: [1]}", "either"),
        ("{recipe: x, ranks: [1], grid: {train.micro_batch: [1]}, until_oom: {}}", "searched"),
        ("{recipe: x, ranks: [1], until_oom: {form: 3}}", "form"),
    ],
)
def test_bad_sweeps_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_sweep(file)
    with pytest.raises(InputError, match="No such file"):
        load_sweep(tmp_path / "missing.yaml")


def test_a_search_is_asked_for_in_the_file_or_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("{recipe: mae_vit_tiny, ranks: [1], until_oom: {from: 4, to: 6}}")
    assert load_sweep(file).until_oom == UntilOom(start=4, to=6)
    asked = load_sweep(file, ["seed=3"], "data.workers")
    assert asked.until_oom == UntilOom(option="data.workers", start=4, to=6)
    demo = load_sweep(PROFILES / "demo.yaml", (), "micro_batch")
    assert demo.until_oom == UntilOom()
    assert all(cell.run.train.micro_batch == 8 for cell in cells(demo)[0])
    with pytest.raises(InputError, match=r"unknown option 'train.micro_bach'"):
        cells(load_sweep(file, (), "micro_bach"))


@pytest.mark.parametrize("grid", [{"points": [1]}, {"communication": ["loud"]}])
def test_bad_cells_are_refused(grid: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"write on or off|list groups"):
        list(points(sweep_of(ranks=[1], grid=grid)))


# -- what is recorded ------------------------------------------------------------------------------


def test_only_what_this_very_code_measured_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_module, "commit", lambda: ("abc", False))
    sweep = sweep_of(ranks=[2], steps=4, warmup=2)
    record = record_of(sweep, commit="abc", dirty=False)

    def left(asked: Sweep = sweep, **changes: object) -> bool:
        known = Known(asked, [record.model_copy(update=changes)])
        [cell], _ = cells(asked)
        return pending(asked, cell, known.answers[cell.key]) is not None

    assert not left()
    config = record.config or {}
    more_steps = config | {"train": config["train"] | {"steps": 99}}
    assert not left(config=more_steps, warmup_steps=5)
    assert not left(sweep_of(ranks=[2], steps=3, warmup=1))
    for change in (
        *({"commit": "def"}, {"dirty": True}, {"versions": {"torch": "2.7"}}, {"world_size": 4}),
        *({"nodes": 2}, {"communication": "off"}, {"status": "failed"}, {"warmup_steps": 1}),
        {"config": config | {"seed": 1}},
    ):
        assert left(**change), change
    assert left(sweep_of(ranks=[2], steps=5, warmup=2))
    # A launcher of one's own puts ranks where the sweep does not see.
    assert not left(sweep_of(ranks=[2], steps=4, warmup=2, launch="mpirun"), nodes=2)


def test_communication_takes_part_in_what_was_asked() -> None:
    sweep = sweep_of(ranks=[1], grid={"communication": ["on", False]})
    on, off = cells(sweep)[0]
    known = Known(sweep, [record_of(sweep), record_of(sweep, communication="off")], any_code=True)
    assert [len(known.answers[cell.key]) for cell in (on, off)] == [1, 1]
    assert failure(sweep, off.point, Ending("failed", "x")).communication == "off"


def test_out_of_memory_is_an_answer_and_a_failure_is_none() -> None:
    sweep = sweep_of(ranks=[1])
    [cell], _ = cells(sweep)
    for status, state in (("out_of_memory", "recorded"), ("failed", "failed")):
        record = failure(sweep, cell.point, Ending(status, "why"))  # type: ignore[arg-type]
        assert (record.status, record.error, record.step_s) == (status, "why", None)
        known = Known(sweep, [record], any_code=True)
        assert standing(sweep, cell, known)[0] == state
        assert "why" in standing(sweep, cell, known)[1]
    known = Known(sweep, [record], any_code=True, retry=True)
    assert pending(sweep, cell, known.answers[cell.key]) == cell.point


# -- the largest that fits -------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 8, 100, 5000])
@pytest.mark.parametrize("capacity", [0, 1, 7, 8, 100, 1023, 1500, 9999])
def test_a_search_finds_the_largest_that_fits(start: int, capacity: int) -> None:
    search = UntilOom(start=start, to=5000)
    fits: set[int] = set()
    fails: set[int] = set()
    while value := search.next(fits, fails):
        assert value not in fits | fails and 1 <= value <= 5000
        (fits if value <= capacity else fails).add(value)
    assert len(fits | fails) <= search.tries
    best = max(fits, default=0)
    assert best <= capacity
    if capacity < 5000:
        assert min(fails) - best <= max(1, best // 8)
    else:
        assert best == 5000


def test_a_search_goes_on_from_what_is_recorded() -> None:
    sweep = sweep_of(ranks=[1], until_oom={"from": 8, "to": 64})
    [cell], _ = cells(sweep)
    answers = []

    def tried(value: int, status: str) -> None:
        point = pending(sweep, cell, answers)
        assert point and point.overrides[-1] == f"train.micro_batch={value}"
        tried = failure(sweep, point, Ending("out_of_memory", "x"))
        assert tried.micro_batch == value
        answers.extend(
            Known(sweep, [tried.model_copy(update={"status": status})], any_code=True).answers[
                cell.key
            ]
        )

    for value, status in ((8, "ok"), (16, "ok"), (32, "out_of_memory"), (24, "ok")):
        tried(value, status)
    tried(28, "out_of_memory")
    tried(26, "ok")
    assert pending(sweep, cell, answers) is None
    assert answer(sweep, answers) == ("measured", "largest train.micro_batch: 26 (28 does not)")


# -- how a point ended -----------------------------------------------------------------------------

HEAD = "hpcgeo: rank 1 of 2 on node2: "
LOST = "hpcgeo: rank 0 of 2 on node1: computing after step 3: lost the other ranks; probably"
STEP = "slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 ***"
JOB = "slurmstepd: error: *** JOB 7 ON node1 CANCELLED AT 2026-01-01T00:00:00"
KILLED = "srun: error: node2: task 1: Killed"


@pytest.mark.parametrize(
    ("said", "code", "status", "error"),
    [
        ([LOST, f"{HEAD}data.path: no such folder"], 2, "failed", "rank 1 of 2 on node2: data"),
        ([f"{HEAD}computing after step 0: out of memory (x); choose"], 1, "out_of_memory", "(x)"),
        (
            [f"{HEAD}a reader process ended: killed, out of memory (fewer data.workers), or"],
            *(1, "failed", "reader process"),
        ),
        ([f"{HEAD}RuntimeError: CUDA out of memory. Tried"], 1, "out_of_memory", "Tried"),
        ([f"{HEAD}ibv_reg_mr: Cannot allocate memory"], 1, "failed", "ibv_reg_mr"),
        ([LOST, KILLED], 137, "failed", "killed (SIGKILL)"),
        (
            [LOST, "Root Cause (first observed):", " exitcode  : -9 (pid: 3)"],
            1,
            "failed",
            "killed (SIGKILL)",
        ),
        ([f"{HEAD}x is wrong", "srun: error: node1: task 0: Killed"], 137, "failed", "x is wrong"),
        (["srun: error: n: task 1: Segmentation fault", KILLED], 139, "failed", "139"),
        (["slurmstepd: error: Detected 1 oom_kill event in Step 7.0"], 1, "out_of_memory", "oom"),
        (["srun: error: node2: task 1: Out Of Memory"], 137, "out_of_memory", "Out Of Memory"),
        (["OpenBLAS: Cannot allocate memory", f"{HEAD}x is wrong"], 1, "failed", "x is wrong"),
        (["[ 9.1] oom-kill:constraint=CONSTRAINT_MEMCG", KILLED], 137, "out_of_memory", "oom"),
        (["srun: error: fork: Cannot allocate memory"], 1, "failed", "fork"),
        (["libx.so: cannot allocate memory in static TLS block"], 1, "failed", "static TLS"),
        ([f"{JOB} DUE TO TIME LIMIT ***"], None, "failed", "time limit"),
        ([f"{JOB} DUE TO NODE FAILURE, SEE LOG ***"], None, "failed", "node failed"),
        ([f"{JOB} DUE TO PREEMPTION ***"], None, "cancelled", "PREEMPTION"),
        ([f"{STEP[:-4]} DUE TO PREEMPTION ***"], None, "cancelled", "PREEMPTION"),
        ([JOB.replace("JOB 7", "JOB 12_3")], None, "cancelled", "JOB 12_3"),
        ([f"{JOB} ***", f"{HEAD}stopped after 2 of 9 steps"], None, "cancelled", "JOB 7"),
        (["JobState=OUT_OF_MEMORY"], None, "out_of_memory", "OUT_OF_MEMORY"),
        (["JobState=TIMEOUT"], None, "failed", "time limit"),
        ([STEP, LOST], 1, "failed", "lost the other ranks"),
        ([STEP, f"{HEAD}x is wrong"], 1, "failed", "x is wrong"),
        (["Lmod has detected an error", ""], 1, "failed", "exit code 1: Lmod"),
        ([], None, "failed", "nothing was said"),
    ],
)
def test_the_cause_is_found(said: list[str], code: int | None, status: str, error: str) -> None:
    found = ending("\n".join(said), code)
    assert found.status == status and error in found.error
    assert "\n" not in found.error


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (f"{JOB} DUE TO TIME LIMIT ***", "failed"),
        ("slurmstepd: error: Detected 1 oom_kill event", "out_of_memory"),
        (f"{JOB} ***", None),
    ],
)
@pytest.mark.parametrize("began", [True, False])
def test_a_job_that_could_not_say_how_it_ended(
    tmp_path: Path, said: str, status: str | None, began: bool
) -> None:
    sweep = sweep_of(ranks=[1, 2])
    every = list(points(sweep))
    contents = Contents(sweep=sweep, retry=False, points=every)
    batch = JobBatch.write(tmp_path / "jobs" / "a", contents, "")
    earlier = "hpcgeo: rank 0: of an earlier start\n"
    batch.output(1).write_text(f"{earlier}{said}\n")
    if began:
        now = Now(point=every[1], value="", job="", output=len(earlier), records=0)
        (batch.folder / "1.now").write_text(now.model_dump_json())
    assert batch.unsettled([]) == [1] and batch.unsettled([1]) == []
    past = time.time() - 2 * SETTLED_S
    for path in batch.folder.iterdir():
        os.utime(path, (past, past))  # it was silent for long: that says nothing of its end
    batch.settle([])
    assert not batch.records()  # a shared file system may show more in a moment
    (batch.folder / "missing.json").write_text(json.dumps({"1": past}))
    batch.settle([1])
    assert not batch.records()  # it is in the queue again
    batch.settle([])
    assert not batch.records()
    (batch.folder / "missing.json").write_text(json.dumps({"1": past}))
    batch.settle([])
    assert not batch.own(1).exists()  # another host may be writing to it
    assert batch.unsettled([]) == []
    assert [(record.status, record.world_size) for record in batch.records()] == (
        [(status, 2)] if status else []
    )


def test_a_task_says_what_it_measures(tmp_path: Path) -> None:
    sweep = sweep_of(ranks=[1], until_oom={"from": 8})
    contents = Contents(sweep=sweep, retry=False, points=list(points(sweep)))
    batch = JobBatch.write(tmp_path / "jobs" / "a", contents, "")
    batch = JobBatch(batch.folder)
    words = batch.advance(0, None)
    assert "train.micro_batch=8" in words and str(batch.own(0)) in words
    batch.output(0).write_text("hpcgeo: rank 0 of 1 on a: x: out of memory (y)\n")
    assert "train.micro_batch=4" in batch.advance(0, 1)
    with batch.output(0).open("a") as output:
        output.write("hpcgeo: rank 0 of 1 on a: no such folder\n")
    assert batch.advance(0, 2) == []  # a failure ends the search until the next call
    assert [(record.status, record.micro_batch) for record in batch.records()] == [
        ("out_of_memory", 8),
        ("failed", 4),
    ]
    assert "train.micro_batch=4" in batch.advance(0, None)  # the job is started again
    with pytest.raises(InputError, match="no task 1"):
        batch.advance(1, None)
    with pytest.raises(InputError, match="no jobs of a sweep"):
        JobBatch(tmp_path)
    assert cell_of(sweep, contents.points[0]).key == cells(sweep)[0][0].key


def test_a_wrong_input_is_told_from_other_ends() -> None:
    said = f"{HEAD}no device\nRoot Cause (first observed):\n exitcode  : 2 (pid: 3)"
    assert ending(said, 1).wrong_input == ending(f"{HEAD}no device", 2).wrong_input == "no device"
    assert ending(f"{HEAD}no device", 1).wrong_input is None


@pytest.mark.parametrize("submitted", [False, True])
def test_what_is_wrong_with_every_point_ends_a_sweep_before_it_starts(
    tmp_path: Path, submitted: bool
) -> None:
    grid = {"train.micro_batch": [8, 16]}
    sweep = sweep_of(set={"data.path": str(tmp_path / "none")}, ranks=[1, 2], grid=grid)
    with pytest.raises(InputError, match=r"none: no index.json.*\n.*none of 4 points") as error:
        if submitted:
            Jobs(sweep, tmp_path / "records", "s").submit(100)
        else:
            run_sweep(sweep, tmp_path / "records.jsonl")
    assert len(str(error.value).splitlines()) == 2
    assert not (tmp_path / "records.jsonl").read_text() if not submitted else True


def test_a_wrong_input_of_two_points_in_a_row_ends_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the ranks see, such as a device that is not there."""
    ends = iter(["chip", None, "device", "device", "device"])

    def run(*_: object) -> Ending:
        wrong = next(ends)
        return Ending("failed", f"rank 0 of 1 on node1: {wrong}", wrong)

    monkeypatch.setattr(local, "_run", run)
    sweep = sweep_of(ranks=[1], grid={"train.micro_batch": [1, 2, 4, 8, 16]})
    with pytest.raises(InputError, match="device: on two points in a row; the sweep ends"):
        run_sweep(sweep, tmp_path / "records.jsonl")
    assert len(read([tmp_path / "records.jsonl"])) == 4


# -- jobs, without a Slurm -------------------------------------------------------------------------


def test_jobs_are_planned_and_kept_within_a_budget(tmp_path: Path) -> None:
    layouts = [{"strategy": "DDP"}, {"strategy": "HYBRID_SHARD", "group_size": 2}]
    records = tmp_path / "records"
    sweep = sweep_of(nodes=[1, 2], minutes=6, grid={"parallel": layouts, "seed": [1, 2]})
    jobs = Jobs(sweep, records, "a sweep")
    rows = [line.split() for line in jobs.plan().splitlines()]
    assert [(row[0], row[-1]) for row in rows[1:]] == [("1", "0.2"), ("2", "0.8"), ("total", "1")]
    assert jobs.board().total == "0 measured, 0 failed, 6 waiting"
    with pytest.raises(InputError, match=r"1 node-hours, more than the budget of 0.5: nothing is"):
        jobs.submit(0.5)
    assert not records.exists()
    assert all(re.fullmatch(r"a_sweep-[12]n-\w{6}", planned.job.name) for planned in jobs.planned)


def test_jobs_respect_arrays_and_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slurm, "max_tasks", lambda self: 3)
    there = {"launch.machine": "frontier", "parallel.strategy": "FULL_SHARD"}
    grid: dict[str, list[object]] = {"seed": list(range(7))}
    jobs = Jobs(sweep_of(set=there, nodes=[4, 100], grid=grid), tmp_path, "x")
    sizes = [(planned.job.nodes, len(planned.cells)) for planned in jobs.planned]
    assert sizes == [(4, 3), (4, 3), (4, 1), (100, 3), (100, 3), (100, 1)]
    assert [planned.queue for planned in jobs.planned][::3] == [
        *("to 91 nodes, 2 h", "to 183 nodes, 6 h"),
    ]
    # A search takes what the queue gives, and goes on in another job.
    search = sweep_of(set=there, nodes=[4], minutes=30, until_oom={})
    assert [planned.job.time for planned in Jobs(search, tmp_path, "x").planned] == ["02:00:00"]
    [long] = Jobs(sweep_of(set=there, nodes=[4], at_once=2, minutes=121), tmp_path, "x").planned
    assert long.queue == "to 64 nodes, 24 h" and "#SBATCH --partition=extended" in long.script
    with pytest.raises(InputError, match="longer than the 24 h"):
        Jobs(sweep_of(set=there, nodes=[4], at_once=2, minutes=1441), tmp_path, "x")


@pytest.mark.parametrize(
    "machine", [name for name in machines() if machines()[name].scheduler == "slurm"]
)
def test_every_machine_gets_good_bash(tmp_path: Path, machine: str) -> None:
    sweep = sweep_of(set={"launch.machine": machine}, nodes=[2], at_once=4)
    [planned] = Jobs(sweep, tmp_path / "a folder", "x").planned
    text = planned.script
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "#SBATCH --array=0-0%4\n" in text and "#SBATCH --exclusive\n" in text
    assert "None" not in text and "{{" not in text and "\n\n\n" not in text
    assert "#SBATCH" not in text.partition("\nset -euo")[2]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ranks": [3], "ranks_per_node": 2}, "3 ranks do not fill 2 nodes alike"),
        ({"ranks": [16]}, "16 ranks on 1 nodes of frontier, which have 8 devices"),
        ({"ranks": [8], "launch": "srun"}, "`launch` has no effect"),
        ({"nodes": [10**4]}, "more than a job on frontier may have"),
    ],
)
def test_impossible_jobs_are_refused(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Jobs(sweep_of(set={"launch.machine": "frontier"}, **keys), tmp_path, "x")
    with pytest.raises(InputError, match="name a folder"):
        Jobs(sweep_of(nodes=[1]), tmp_path / "r.jsonl", "x")
    with pytest.raises(InputError, match="--submit makes them jobs"):
        run_sweep(sweep_of(nodes=[2]), tmp_path / "r.jsonl")


# -- with real ranks -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
def test_out_of_memory_interrupted_and_resumed(copied: dict[str, str], tmp_path: Path) -> None:
    file, records = tmp_path / "sweep.yaml", tmp_path / "records.jsonl"
    keys = {"recipe": "mae_vit_tiny", "steps": 3, "warmup": 1, "ranks": [1], "set": SMALL}
    file.write_text(yaml.safe_dump(keys | {"grid": {"train.micro_batch": [HUGE, 4, 8]}}))
    command = [*LIMIT, sys.executable, "-m", "hpcgeo", "profile", "sweep", str(file)]
    command += ["--records", str(records)]
    env = os.environ | copied

    def recorded() -> list[Record]:
        return read([records]) if records.exists() else []

    first = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env
    )
    deadline = time.monotonic() + 200
    while len(recorded()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(InputError, match="another sweep writes to"), alone(records):
        pass
    first.send_signal(signal.SIGINT)
    said, log = first.communicate(timeout=100)
    if len(recorded()) == 2:
        assert first.returncode == 130, log
        assert "the same command goes on" in log
        assert "1 measured, 0 failed, 1 out of memory, 1 waiting" in said
    before, known = records.read_bytes(), len(recorded())
    assert [record.status for record in recorded()][:2] == ["out_of_memory", "ok"]
    assert ": out of memory (" in (recorded()[0].error or "")
    assert subprocess.run(["pgrep", "-f", f"profile run .*{records}"]).returncode != 0

    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stderr
    assert f"{known} recorded" in done.stdout and "out of memory" in done.stdout
    assert records.read_bytes().startswith(before)
    assert [record.status for record in recorded()] == ["out_of_memory", "ok", "ok"]
    assert [json.loads(line) for line in records.read_text().splitlines()]
