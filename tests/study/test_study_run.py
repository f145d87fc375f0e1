"""A whole study: here, with the scores it leaves; as jobs of a real Slurm, one stopped in time."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpcgeo.evaluate.pretraining import pretraining
from hpcgeo.scores import Score, read
from tests import processes
from tests.evaluate.coloured import SIDE, scenes
from tests.slurm import Slurm

pytestmark = pytest.mark.timeout(900)

TASK = {"reader": "scenes", "path": "{scenes}", "size": SIDE, "head": "linear"}
FEW = {"checkpoint.every": 4, "optim.warmup_steps": 1, "train.micro_batch": 4}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Labelled photographs, and a data set of their chips."""
    folder = tmp_path_factory.mktemp("data")
    data = scenes(folder / "scenes")
    done = processes.hpcgeo("data", "build", data, "--out", folder / "set", "--chip", SIDE)
    assert done.returncode == 0, done.stderr
    return {"scenes": str(data), "images": str(folder / "set")}


def study(folder: Path, places: Mapping[str, str], steps: int = 8, **keys: object) -> Path:
    fixed: dict[str, Any] = {
        "title": "tiny",
        "ranks": 1,
        "hours": 0.5,
        "places": places,
        "pretrain": {
            "mae": {
                "recipe": "mae_vit_tiny",
                "set": FEW
                | {"model.name": "vit_nano", "data": {"path": "{images}", "chip": SIDE}}
                | {"train.steps": steps},
            }
        },
        "probe": {"knn": {"data": ["scenes:{scenes}"], "options": {"model": "knn"}}},
    }
    file = folder / "tiny.yaml"
    file.write_text(json.dumps(fixed | keys))
    return file


@pytest.mark.slow
def test_a_study_here(tmp_path: Path, places: dict[str, str]) -> None:
    tuning = {"recipe": "finetune_vit_tiny", "set": FEW | {"data.tasks.scenes": TASK}}
    tuning["set"] |= {"train.steps": 4, "objective.mixup": 0, "objective.cutmix": 0}
    out, file = tmp_path / "out", study(tmp_path, places, finetune={"tuned": tuning})
    planned = processes.hpcgeo("study", file, "--out", out, "--plan")
    assert "members: 1 x 0.5 = at most 0.5 node-hours on local" in planned.stdout
    assert not out.exists()
    done = processes.hpcgeo("study", file, "--out", out)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "5 done, 0 failed" in done.stdout and f"hpcgeo report {out}/scores" in done.stdout
    assert "bands:" not in (out / "steps" / "mae" / "finetune-tuned.out").read_text()
    # Frozen and fine-tuned features of the same weights stand in one row, and so do random ones.
    scores = [one for file in sorted((out / "scores").rglob("*.jsonl")) for one in read(file)]
    rows: dict[tuple[str, str | None], list[Score]] = {}
    for score in scores:
        rows.setdefault((score.whose, score.fingerprint), []).append(score)
    assert {whose: len(found) for (whose, _), found in rows.items()} == {
        "encoder": 2,
        "random": 2,
        "samples": 1,
    }
    took = pretraining(out / "pretrained" / "mae")
    assert took is not None and (took.steps, took.samples, took.objective) == (8, 32, "mae")
    assert [s.pretraining for s in scores if s.whose == "encoder"] == [took] * 2
    lines = (out / "pretrained" / "mae" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    seconds = sum(step["step_s"] + step["checkpoint_s"] for step in steps)
    assert took.node_hours == pytest.approx(seconds / 3600)
    tuned = next(s for s in scores if (s.whose, s.protocol) == ("encoder", "fine-tuned"))
    of_random = next(s for s in scores if (s.whose, s.protocol) == ("random", "fine-tuned"))
    assert tuned.features == "all weights, 4 steps of 4 samples"
    assert tuned.leads["random"][0] == pytest.approx((tuned.value or 0) - (of_random.value or 0))
    assert tuned.protocol_key == of_random.protocol_key
    # Nothing is done twice.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jsonl")}
    assert processes.hpcgeo("study", file, "--out", out).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.jsonl")} == before


@pytest.mark.long
def test_jobs_that_stop_in_time_go_on(
    tmp_path: Path, places: dict[str, str], slurm: Slurm, copied: dict[str, str]
) -> None:
    out, file = tmp_path / "out", study(tmp_path, places, steps=600, starts=2)
    command = [sys.executable, "-m", "hpcgeo", "study", file, "--out", out, "--submit"]
    env = slurm.environ | copied

    def call(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*map(str, command), *words],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        return done.returncode, done.stdout + done.stderr

    code, said = call()
    assert code == 2 and "allow them with --budget" in said
    code, said = call("--budget", "0.1")
    assert code == 2 and "more than the budget of 0.1" in said and not list(out.glob("jobs/*"))
    code, said = call("--budget", "1")
    assert code == 0 and "2 starts = at most 1 node-hours: mae" in said and "queued" in said
    [place] = out.glob("jobs/*")
    metrics = out / "pretrained" / "mae" / "metrics.jsonl"
    end = time.monotonic() + 120
    while "running" not in call("--plan")[1]:
        assert time.monotonic() < end, [file.read_text() for file in place.glob("*.out")]
    while not metrics.exists() or not metrics.read_text():
        assert time.monotonic() < end, [file.read_text() for file in place.glob("*.out")]
        time.sleep(0.02)
    # To the ranks alone, as before the end of the time.
    queue = slurm.run("squeue", "-h", "-n", place.name, "-o", "%A").stdout.split()
    slurm.run("scancel", "--signal=USR2", *queue)
    code, said = call("--watch")
    told = (place / "0.out").read_text()
    assert code == 0 and "2 done, 0 failed" in said, said + told
    assert "stopped at step" in told and len(metrics.read_text().splitlines()) == 600
    assert told.count("at step 0 of 600") == 1 and "from step" in told
    assert {score.whose for score in read(out / "scores" / "probe-knn" / "scores-mae.jsonl")} == {
        *("encoder", "random", "samples")
    }
