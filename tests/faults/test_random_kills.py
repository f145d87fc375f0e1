"""Killed at any moment, a run loses no step but those since its last checkpoint and changes none;
a build changes no byte.
"""

import hashlib
import random
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.processes import EXEC
from tests.ranks import STEPS, metrics, start, train

RUNS, BUILDS = 40, 10
#: Seconds, at most, after which it is killed: a start, the steps of a run, a build.
START_S, STEPS_S, BUILD_S = 6.0, 3.0, 4.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    folder = tmp_path_factory.mktemp("whole")
    code, said = train(folder, 1)
    assert code == 0, said
    return metrics(folder)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_run(whole: list[dict[str, float]], tmp_path: Path, seed: int) -> None:
    """Killed twice, all of its ranks or one, and resumed on another number of them."""
    draw = random.Random(seed)
    folder = tmp_path / "run"
    lost = []
    for ranks in (draw.choice([1, 2]), draw.choice([1, 2])):
        processes = start(folder, ranks)
        if draw.random() < 0.25:
            time.sleep(draw.uniform(0, START_S))
        else:
            before = len(metrics(folder))
            while len(metrics(folder)) in (0, before) and processes[0].poll() is None:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, STEPS_S))
        for process in draw.choice([processes, processes[-1:]]):
            process.kill()
        said = [process.communicate(timeout=60)[1] for process in processes]
        assert all("Traceback" not in each for each in said), said
        done = int(metrics(folder)[-1]["step"]) if metrics(folder) else 0
        saved = [int(path.name[5:]) for path in (folder / "checkpoints").glob("step-????????")]
        lost.append(done - max(saved, default=0))
    code, said_0 = train(folder, draw.choice([1, 2]))
    assert code == 0, said_0
    assert not list((folder / "checkpoints").glob("*.damaged"))
    rows = metrics(folder)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == pytest.approx([r["loss"] for r in whole], abs=1e-6)
    print(f"\nseed {seed}: steps done anew {lost}")
    assert max(lost) < 12, "checkpoint.every = 4, one may be under way, and rows are written first"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("scenes")
    make = [*EXEC, "data", "synthesize", folder / "scenes", "--scenes", "6", "--size", "768"]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(build(folder, folder / "set"), check=True, capture_output=True)
    return folder, sums(folder / "set")


def build(folder: Path, out: Path) -> list[str]:
    options = ["--chip", "64", "--shard-mib", "1", "--workers", "2"]
    return [*EXEC, "data", "build", str(folder / "scenes"), "--out", str(out), *options]


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(BUILDS))
def test_a_build(built: tuple[Path, dict[str, str]], tmp_path: Path, seed: int) -> None:
    folder, expected = built
    draw = random.Random(seed)
    for _ in range(2):
        process = subprocess.Popen(build(folder, tmp_path / "set"), stderr=subprocess.PIPE)
        time.sleep(draw.uniform(0, BUILD_S))
        process.kill()
        process.communicate(timeout=60)
    time.sleep(0.5)  # its workers notice
    done = subprocess.run(build(folder, tmp_path / "set"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("Traceback", done.stderr)
    assert sums(tmp_path / "set") == expected
