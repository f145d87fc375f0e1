"""What is added by a file of the user's own, under any path."""

import json
from pathlib import Path

import yaml

MACHINE = """\
title: A cluster of friends
sources: {handbook: of the friends}
devices_per_node: [2, handbook]
scheduler: slurm
bins: [{nodes: 4, hours: 0.5, source: handbook}]
directives:
  - {text: "--partition=friends", reason: the only partition of this cluster}
"""


def test_a_machine(install, tmp_path: Path) -> None:
    """A job is rendered for it and names it; a run that is planned there knows its queue."""
    hpcgeo = install("", {})
    (tmp_path / "friends.yaml").write_text(MACHINE)
    job = ("--recipe", "mae_vit_tiny", "--nodes", 2, "--time")
    code, said = hpcgeo("jobs", "render", "--machine", "friends.yaml", *job, "00:20:00")
    assert code == 0 and "#SBATCH --partition=friends" in said, said
    assert "--ntasks-per-node=2" in said and "launch.machine=friends.yaml" in said
    code, said = hpcgeo("jobs", "render", "--machine", "friends.yaml", *job, "00:40:00")
    assert code == 2 and "longer than the 0.5 h that 2 nodes may have on friends" in said, said
    there = ("mae_vit_tiny", "launch.machine=friends.yaml", "--dry")
    code, said = hpcgeo("train", *there, "--ranks", 4)
    assert code == 0 and "a job of 2 nodes on friends may last 0.5 h" in said, said
    code, said = hpcgeo("jobs", "render", "--machine", "friends", *job, "00:20:00")
    assert code == 2 and "unknown machine 'friends'" in said and "known: cuda-node, " in said, said


MODEL = """\
family: vit
encoder: {width: 48, depth: 2, heads: 3, hidden: 192}
decoder: {width: 32, depth: 1, heads: 2, hidden: 128}
patch: 8
source: made for a test
"""


def test_a_model(install, tmp_path: Path) -> None:
    """It trains, and its record is that of a model of the name of the file."""
    hpcgeo = install("", {})
    (tmp_path / "mini.yaml").write_text(MODEL)
    options = ("mae_vit_tiny", "model.name=mini.yaml", "data.chip=32", "train.steps=7")
    words = ("train.micro_batch=4", "optim.warmup_steps=1", "checkpoint.every=0", "run.dir=run")
    code, said = hpcgeo("train", *options, *words)
    assert code == 0, said
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["model"] == "mini" and record["parameters"] > 0


def test_a_recipe(install, tmp_path: Path) -> None:
    hpcgeo = install("", {})
    mine = {
        "run": {"dir": "run"},
        "model": {"name": "vit_tiny"},
        "data": {"chip": 32},
        "train": {"steps": 2, "micro_batch": 4},
        "optim": {"warmup_steps": 1},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    code, said = hpcgeo("train", "./mine.yaml", "seed=1")
    assert code == 0, said
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    code, said = hpcgeo("train", "mine")
    assert code == 2 and "unknown recipe 'mine'; give a YAML file (*.yaml) or one of: " in said
