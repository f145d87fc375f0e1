"""What an installed package adds beside objectives and backbones: rows and functions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpcgeo.measured import Phases, Spread
from hpcgeo.records import append
from tests.test_records import RECORD

HERE = Path(__file__).parent
SMALL = ("data.chip=32", "optim.warmup_steps=1", "train.eval_every=null")


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.slow
def test_a_reader(install, tmp_path: Path) -> None:
    """Listed by its docstring; a run learns from what it reads."""
    hpcgeo = install((HERE / "npz.py").read_text(), {"hpcgeo.readers": "npz = outside:collect"})
    classes = np.arange(36) % 2
    np.savez(
        tmp_path / "fields.npz",
        images=np.broadcast_to(80 + 90 * classes[:, None, None, None], (36, 16, 16, 3)),
        classes=np.array(["maize", "rice"])[classes],
        splits=np.array(["train", "train", "test"])[np.arange(36) // 2 % 3],
    )
    code, said = hpcgeo("list", "readers", "npz")
    assert code == 0 and "Photographs and their classes in one .npz file. " in said, said
    assert "Its arrays" not in said
    tasks = "data={tasks: {fields: {reader: npz, path: fields.npz, patch: 4}}}"
    options = ("gpna_tiny", tasks, "run.dir=run", "train.steps=12", "optim.warmup_steps=2")
    code, said = hpcgeo("train", *options, "train.micro_batch=8")
    assert code == 0 and "fields: accuracy 1.0" in said, said
    code, said = hpcgeo("train", "gpna_tiny", tasks.replace("reader: npz", "reader: npy"))
    assert code == 2 and "unknown reader 'npy' (did you mean 'npz'?)" in said, said
    assert "entry point of the group hpcgeo.readers" in said


@pytest.mark.slow
def test_an_optimizer(install, tmp_path: Path) -> None:
    """Lion: one process = FULL_SHARD on two ranks, resumed on one in the middle, and listed."""
    hpcgeo = install((HERE / "lion.py").read_text(), {"hpcgeo.optimizers": "Lion = outside:LION"})
    code, said = hpcgeo("list", "optimizers", "Lion", "--json")
    assert code == 0 and json.loads(said)[0]["block_bytes"] == 4, said
    options = ("mae_vit_tiny", "optim.name=Lion", "optim.base_lr=1e-2", *SMALL, "train.steps=4")
    options += ("checkpoint.every=2",)
    one = (*options, "train.micro_batch=8")
    code, said = hpcgeo("train", *one, "run.dir=one")
    assert code == 0, said
    sharded = ("train.micro_batch=4", "parallel.strategy=FULL_SHARD", "run.dir=sharded")
    code, said = hpcgeo("train", *options, *sharded, ranks=2)
    assert code == 0, said
    found = losses(tmp_path / "one")
    assert found[-1] < found[0]
    assert losses(tmp_path / "sharded") == pytest.approx(found, abs=1e-5)
    shutil.rmtree(tmp_path / "sharded" / "checkpoints" / "step-00000004")
    code, said = hpcgeo("train", *one, "run.dir=sharded")
    assert code == 0 and "from step 2 of 4" in said, said
    assert losses(tmp_path / "sharded") == pytest.approx(found, abs=1e-5)


@pytest.mark.slow
def test_a_model(install, tmp_path: Path) -> None:
    """A ViT of another size is a row: trained, planned in closed form, swept, exported."""
    hpcgeo = install((HERE / "vit.py").read_text(), {"hpcgeo.models": "vit_mini = outside:ROW"})
    options = ("mae_vit_tiny", "model.name=vit_mini", *SMALL, "train.steps=2")
    code, said = hpcgeo("train", *options, "train.micro_batch=4", "run.dir=run")
    assert code == 0, said
    code, said = hpcgeo("list", "models")
    assert code == 0 and " vit_mini " in said, said
    code, said = hpcgeo("train", *options, "--dry")
    assert (
        code == 0 and "GiB a rank predicted" in said and "not known in closed form" not in said
    ), said
    code, said = hpcgeo("export", "run", "--to", "timm", "--out", "out")
    assert code == 0, said
    (tmp_path / "sweep.yaml").write_text(
        "{recipe: mae_vit_tiny, set: {model.name: vit_mini, parallel.strategy: FULL_SHARD}, "
        "ranks: [6], grid: {parallel.tensor: [1, 3, 2]}}"
    )
    code, said = hpcgeo("profile", "sweep", "sweep.yaml", "--plan")
    assert code == 0 and "tensor=3: waiting" in said, said
    assert "hidden widths of vit_mini and its decoder: choose one of 1, 3" in said


def test_a_section_of_the_report(install, tmp_path: Path) -> None:
    """It stands before what says how numbers were made."""
    hpcgeo = install(
        (HERE / "waits.py").read_text(), {"hpcgeo.sections": "waits = outside:section"}
    )
    phases = Phases(
        step_s=1.0,
        data_wait_s=0.25,
        host_to_device_s=0,
        forward_s=0.75,
        backward_s=0,
        optimizer_s=0,
        other_s=0,
    )
    measured = {"phases": phases, "step_s": Spread.of([1.0]), "images_per_s": 64.0}
    append(tmp_path / "records.jsonl", RECORD.model_copy(update=measured))
    code, said = hpcgeo("report", "records.jsonl", "--out", "report")
    assert code == 0, said
    text = (tmp_path / "report" / "report.md").read_text()
    before, after = text.split("## Waiting for data")
    assert "## Every point" in before and "## How each number was made" in after
    assert "on 2 devices: 25 %" in after
    assert 'id="waits"' in (tmp_path / "report" / "report.html").read_text()


def test_a_device(install) -> None:
    """Its row is found by torch's name; a broken one costs a warning."""
    row = "Device(name='X1', title='X1', memory=8, bandwidth=1, pattern='ACME X1', source='seen')"
    text = f"from hpcgeo.machines import Device\nROW = {row}\n"
    hpcgeo = install(text, {"hpcgeo.devices": "broken = outside:GONE\nx1 = outside:ROW"})
    program = "from hpcgeo.machines import device_of as of; print(of('ACME X1').name, of('ACME'))"
    done = hpcgeo(program=program)
    assert done[0] == 0 and "X1 None" in done[1] and "'GONE'" in done[1], done[1]
