"""The folder of a run after faults: a claim cut off, lines twice, storage that fails."""

import errno
import json
import shutil
from pathlib import Path

import pytest

from hpcgeo.config import load
from hpcgeo.data.shards.build import build
from hpcgeo.data.shards.executors import run
from hpcgeo.data.shards.generated_scenes import write_scenes
from hpcgeo.data.shards.settings import Settings
from hpcgeo.errors import InputError
from hpcgeo.train import run_folder
from hpcgeo.train.faults import explain
from hpcgeo.train.run_folder import begin, claim
from tests.ranks import metrics, train


def test_killed_while_it_claimed_the_folder_a_run_starts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "config.yaml.partial").write_text("half of")
    claim(load("mae_vit_tiny", [f"run.dir={folder}"]))
    assert load(str(folder / "config.yaml")).run.dir == folder
    assert not (folder / "config.yaml.partial").exists()
    run_folder._HELD.pop().close()


def test_a_start_that_failed_blocks_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    claim(load("mae_vit_tiny", [f"run.dir={folder}", "train.steps=50"]))
    run_folder._HELD.pop().close()
    claim(load("mae_vit_tiny", [f"run.dir={folder}", "optim.base_lr=1"]))
    run_folder._HELD.pop().close()
    assert load(str(folder / "config.yaml")).optim.base_lr == 1
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(InputError, match=r"another run.*\n  optim.base_lr: 1.0 -> 2.0"):
        claim(load("mae_vit_tiny", [f"run.dir={folder}", "optim.base_lr=2"]))
    run_folder._HELD.pop().close()


@pytest.mark.parametrize(
    ("reached", "steps", "allowed"), [(100, 150, True), (50, 150, False), (100, 50, False)]
)
def test_more_steps_are_for_a_run_that_has_ended(
    tmp_path: Path, reached: int, steps: int, allowed: bool
) -> None:
    claim(load("mae_vit_tiny", [f"run.dir={tmp_path}"]))
    run_folder._HELD.pop().close()
    checkpoint = tmp_path / "checkpoints" / f"step-{reached:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "step.json").touch()
    longer = load("mae_vit_tiny", [f"run.dir={tmp_path}", f"train.steps={steps}"])
    if allowed:
        claim(longer)
    else:
        said = rf"train.steps: 100 -> {steps} \(it is at step {reached}: never fewer, and more when"
        with pytest.raises(InputError, match=said):
            claim(longer)
    run_folder._HELD.pop().close()


def test_each_step_stands_once_and_in_order(tmp_path: Path) -> None:
    config = load("mae_vit_tiny", [f"run.dir={tmp_path}"])
    steps = [1, 2, 3, 4, 2, 3, 4, 5, 6]
    lines = [json.dumps({"step": step, "loss": place}) for place, step in enumerate(steps)]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"st']))
    begin(config, tmp_path, 5)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["loss"] for row in rows] == [0, 1, 2, 3, 7]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE])
def test_storage_that_fails_is_one_line(number: int) -> None:
    said = explain(OSError(number, "it failed", "run/metrics.jsonl"))
    assert said is not None and "it failed while reading or writing run/metrics.jsonl" in said
    assert "start it again" in said
    assert explain(OSError(errno.EBADF, "a bug")) is None


def test_a_data_set_may_move(scenes: Path, tmp_path: Path) -> None:
    """The same data under another path is the same: the run goes on."""
    folder = tmp_path / "run"
    options = ["train.steps=4", "checkpoint.every=2", "train.eval_every=null", "data.chip=32"]
    code, said = train(folder, 1, *options, f"data.path={scenes}")
    assert code == 0, said
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    shutil.copytree(scenes, tmp_path / "moved")
    code, said = train(folder, 1, *options, f"data.path={tmp_path / 'moved'}")
    assert code == 0 and "from step 2" in said, said
    assert len(metrics(folder)) == 4


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A small data set as `hpcgeo data build` writes it."""
    write_scenes(tmp_path / "images", 2, 64, seed=0)
    settings = Settings(chip=32, shard_mib=1)
    run(
        lambda over: bool(build(tmp_path / "images", tmp_path / "set", settings, over)) * 0,
        workers=1,
    )
    return tmp_path / "set"
