"""Sweeps on a scheduler that another package adds: planned, submitted, watched, cancelled."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hpcgeo.records import read
from tests.desk import install


class Commands:
    """The command line with that package installed."""

    def __init__(self, copied: dict[str, str], folder: Path) -> None:
        site = install(folder / "site")
        self.machine, self.folder = site / "desk.yaml", folder
        (folder / "queue").mkdir()
        self.env = os.environ | {
            "PYTHONPATH": os.pathsep.join([copied["PYTHONPATH"], str(site)]),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "DESK_QUEUE": str(folder / "queue"),
        }

    def run(self, *words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "hpcgeo", *words]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout, done.stderr

    def sweep(self, steps: int, *words: str) -> tuple[int, str, str]:
        small = {"launch.threads": 1, "data.chip": 32, "train.micro_batch": 4}
        keys = {"recipe": "mae_vit_tiny", "steps": steps, "warmup": 1, "minutes": 6, "nodes": [1]}
        keys["set"] = small | {"launch.machine": str(self.machine)}
        file = self.folder / "tiny.yaml"
        file.write_text(yaml.safe_dump(keys))
        return self.run("profile", "sweep", str(file), "--records", "r", "--submit", *words)


@pytest.fixture
def commands(copied: dict[str, str], tmp_path: Path) -> Commands:
    return Commands(copied, tmp_path)


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_is_planned_submitted_watched(commands: Commands) -> None:
    code, said, log = commands.sweep(3, "--plan")
    assert code == 0, log
    assert re.search(r"^ +1 +2 +1 +00:06:00 +to 1 nodes, 1 h +0\.1$", said, re.M), said
    code, said, log = commands.sweep(
        3, "--budget", "1", "--submit-options", "-A 'me too'", "--watch"
    )
    assert code == 0 and "1 measured" in said, said + log
    assert (commands.folder / "queue" / "options").read_text() == "['-A', 'me too']"
    [record] = read([commands.folder / "r"])
    assert (record.status, record.machine, record.world_size) == ("ok", "desk", 2)
    [batch] = commands.folder.glob("r/jobs/*")
    assert (batch / "job.desk").exists()
    code, said, log = commands.sweep(3)
    assert code == 0 and "1 recorded" in said, said + log


@pytest.mark.long
@pytest.mark.slow
def test_a_sweep_is_cancelled(commands: Commands) -> None:
    assert commands.sweep(100_000, "--budget", "1")[0] == 0
    end = time.monotonic() + 120
    while not any((commands.folder / "r").rglob("*.now")):
        assert time.monotonic() < end
        time.sleep(0.1)
    code, said, log = commands.sweep(100_000, "--cancel")
    assert code == 0 and "1 tasks cancelled" in said, said + log
    commands.sweep(100_000)
    [missing] = (commands.folder / "r").rglob("missing.json")
    missing.write_text(json.dumps({"0": 0}))
    code, said, log = commands.sweep(100_000)
    assert "cancelled, to be measured another time" in log
    assert code == 2 and "allow them with --budget" in log
