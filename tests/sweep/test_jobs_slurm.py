"""Sweeps as jobs of a real Slurm: planned, within a budget, one point out of memory, the watcher
interrupted, a job cancelled, resumed; nothing measured twice."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from hpcgeo.records import Record, read
from tests.slurm import Slurm

pytestmark = pytest.mark.timeout(1500)

HUGE = 10_000_000  #: a micro-batch of 30 GB
LIMIT = 4_000_000_000  #: bytes of address space; Slurm hands limits on to the job
SMALL = {"launch.threads": 1, "data.chip": 32, "train.micro_batch": 4}
HYBRID = {"parallel.strategy": "HYBRID_SHARD", "parallel.group_size": 2}
KEYS = {"recipe": "mae_vit_tiny", "steps": 3, "warmup": 1, "set": SMALL}


class Commands:
    """The command line on one sweep."""

    def __init__(self, slurm: Slurm, folder: Path, code: Mapping[str, str], keys: object) -> None:
        self.slurm = slurm
        self.file, self.records = folder / "tiny.yaml", folder / "my records"
        self.file.write_text(yaml.safe_dump(keys))
        self.env = slurm.environ | dict(code)
        self.cwd = folder
        self.limit = LIMIT

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [
            "prlimit",
            f"--as={self.limit}",
            sys.executable,
            "-m",
            "hpcgeo",
            "profile",
            "sweep",
            str(self.file),
        ]
        command += ["--records", str(self.records), "--submit", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            cwd=self.cwd,
            env=self.env,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        said, log = process.communicate(timeout=900)
        return process.returncode, said, log

    def jobs(self) -> list[str]:
        """The numbers of all jobs that were submitted and that the controller remembers."""
        names = [path.name for path in (self.records / "jobs").iterdir()]
        shown = self.slurm.run("scontrol", "-o", "show", "job").stdout.splitlines()
        return [line for line in shown if any(f"JobName={name} " in line for name in names)]

    def recorded(self) -> list[Record]:
        return read([self.records]) if any(self.records.rglob("records*.jsonl")) else []

    def until(
        self,
        condition: Callable[[], bool],
        what: str,
        watcher: subprocess.Popen[str] | None = None,
    ) -> None:
        end = time.monotonic() + 600
        while not condition():
            assert time.monotonic() < end, what
            if watcher and watcher.poll() is not None:
                raise AssertionError(watcher.communicate())
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.long
def test_three_points_out_of_memory_interrupted_resumed(
    slurm: Slurm, copied: dict[str, str], tmp_path: Path
) -> None:
    points = [{"parallel.strategy": "DDP"}, HYBRID | {"train.micro_batch": HUGE}]
    sweep = Commands(
        *(slurm, tmp_path, copied),
        KEYS | {"minutes": 6, "nodes": [1, 2], "grid": {"points": points}},
    )
    watcher = sweep.start("--budget", "0.5", "--watch")
    sweep.until(lambda: len(sweep.recorded()) >= 1, "a record", watcher)
    watcher.send_signal(signal.SIGINT)
    said, log = watcher.communicate(timeout=60)
    if len(sweep.recorded()) < 3:
        assert watcher.returncode == 130 and "the jobs go on" in log, log
    submitted = sweep.jobs()
    assert len(list(sweep.records.glob("jobs/*"))) == 2
    code, said, log = sweep.run("--watch")
    assert code == 0, log
    assert len(sweep.jobs()) >= len(submitted) and len(list(sweep.records.glob("jobs/*"))) == 2

    found = sweep.recorded()
    assert sorted((record.status, record.nodes, record.strategy) for record in found) == [
        ("ok", 1, "DDP"),
        ("ok", 2, "DDP"),
        ("out_of_memory", 2, "HYBRID_SHARD"),
    ]
    [no_memory] = [record for record in found if record.status == "out_of_memory"]
    assert ": out of memory (" in (no_memory.error or "")
    code, said, log = sweep.run()  # without a budget: there is nothing to submit
    assert code == 0 and "3 recorded" in said and "out of memory" in said
    assert len(sweep.recorded()) == 3


@pytest.mark.long
def test_cancelled_jobs_are_no_data_points(
    slurm: Slurm, copied: dict[str, str], tmp_path: Path
) -> None:
    keys = KEYS | {"steps": 4000, "nodes": [2], "grid": {"seed": [1, 2, 3]}, "at_once": 1}
    sweep = Commands(slurm, tmp_path, copied, keys)
    assert sweep.run("--budget", "9")[0] == 0
    sweep.until(lambda: any(sweep.records.rglob("*.now")), "a measurement")
    code, said, log = sweep.run("--cancel")
    assert code == 0 and "3 tasks cancelled" in said, said + log
    sweep.until(lambda: "RUNNING" not in "".join(sweep.jobs()), "the end")
    code, said, log = sweep.run()
    assert code == 2 and any(sweep.records.rglob("*.now"))
    [missing] = sweep.records.rglob("missing.json")
    missing.write_text(json.dumps(dict.fromkeys(json.loads(missing.read_text()), 0)))
    code, said, log = sweep.run()
    assert code == 2 and "cancelled, to be measured another time" in log
    assert sweep.recorded() == [] and not any(sweep.records.rglob("*.now"))


@pytest.mark.slow
def test_slurm_refuses(slurm: Slurm, copied: dict[str, str], tmp_path: Path) -> None:
    sweep = Commands(slurm, tmp_path, copied, KEYS | {"nodes": [2], "grid": {}})
    code, _, log = sweep.run("--budget", "9", "--submit-options", "-p nowhere")
    assert code == 2 and "hpcgeo: sbatch: error: Batch job submission failed: Invalid part" in log
    assert "0 of 1 jobs are submitted" in log
    assert not list(sweep.records.glob("jobs/*"))


@pytest.mark.long
def test_twelve_points(slurm: Slurm, copied: dict[str, str], tmp_path: Path) -> None:
    """Two node counts, one point out of memory, the watcher interrupted, one job cancelled."""
    names = ("DDP", "NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD")
    points = [{"parallel.strategy": name} for name in names]
    points += [{"parallel.strategy": "FULL_SHARD", "parallel.recompute": "full"}]
    points += [HYBRID, HYBRID | {"train.micro_batch": HUGE}]
    keys = KEYS | {"minutes": 3, "at_once": 2, "nodes": [1, 2], "grid": {"points": points}}
    sweep = Commands(slurm, tmp_path, copied, keys)
    watcher = sweep.start("--budget", "0.95", "--watch")
    sweep.until(lambda: len(sweep.recorded()) >= 3, "three records", watcher)
    watcher.send_signal(signal.SIGINT)
    said, log = watcher.communicate(timeout=60)
    assert watcher.returncode == 130, log
    print("\n" + said, log, sep="\n")
    waiting = slurm.run("squeue", "-r", "-h", "-t", "PD", "-o", "%i").stdout.split()
    slurm.run("scancel", waiting[-1])
    code, said, log = sweep.run("--budget", "0.95", "--watch")
    print(said, log, sep="\n")
    assert code == 0, log
    found = sweep.recorded()
    assert len(found) == 12 == len({record.model_dump_json(exclude={"step_s"}) for record in found})
    assert [record.nodes for record in found].count(1) == 5
    bad = [record for record in found if record.status != "ok"]
    assert [(record.status, record.micro_batch) for record in bad] == [("out_of_memory", HUGE)]
    assert len(list(sweep.records.glob("jobs/*"))) == 3
    code, said, _ = sweep.run()
    assert code == 0 and "12 recorded" in said


@pytest.mark.long
def test_the_largest_that_fits(slurm: Slurm, copied: dict[str, str], tmp_path: Path) -> None:
    search = {"from": 256, "to": 65536}
    keys = KEYS | {"minutes": 6, "nodes": [1], "until_oom": search}
    sweep = Commands(slurm, tmp_path, copied, keys)
    sweep.limit = 3_200_000_000
    code, said, log = sweep.run("--budget", "9", "--watch")
    print("\n" + said, log, sep="\n")
    assert code == 0, log
    tried = sweep.recorded()
    best = max(record.micro_batch for record in tried if record.status == "ok")
    least = min(record.micro_batch for record in tried if record.status == "out_of_memory")
    assert 0 < least - best <= best // 8
    assert f"largest train.micro_batch: {best} ({least} does not)" in said
    code, said, log = sweep.run()
    assert code == 0 and "1 recorded" in said and len(sweep.recorded()) == len(tried)
