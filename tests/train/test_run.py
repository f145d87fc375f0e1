"""`hpcgeo train` as a user starts it: real processes, interrupted, resumed, refused."""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image

from hpcgeo.checkpoint.manifest import sealed
from hpcgeo.cli.train import train as train_command
from hpcgeo.errors import InputError
from hpcgeo.options import Optim
from hpcgeo.plan.memory import checkpoint_bytes
from hpcgeo.records import read
from hpcgeo.train.schedule import learning_rate
from tests.processes import EXEC, hpcgeo
from tests.ranks import STEPS, metrics, start, train, wait_for_step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, said = train(folder, 1)
    assert code == 0, said
    (folder.parent / "said").write_text(said)
    return folder


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    rows = metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    keys = "step epoch loss lr grad_norm skipped step_s images_per_s data_wait_s peak_memory_bytes"
    assert all(set(row) == {*keys.split(), "checkpoint_s"} for row in rows)
    after = {row["step"]: row["checkpoint_s"] for row in rows}  # saved after every fourth step
    assert all((seconds > 0) == (step > 4 and step % 4 == 1) for step, seconds in after.items())
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert yaml.safe_load((whole / "config.yaml").read_text())["train"]["steps"] == STEPS
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == [
        "step-00000036",
        "step-00000040",
    ]
    newest = (whole / "checkpoints" / "step-00000040").glob("*.safetensors")
    held = sum(file.stat().st_size for file in newest)
    assert list((whole / "tensorboard").glob("events*"))
    with Image.open(whole / "reconstructions" / "step-00000040.png") as picture:
        assert picture.width > 3 * 32
    (record,) = read([whole])
    assert record.parameters is not None
    assert held == pytest.approx(checkpoint_bytes(record.parameters, 0, Optim()), rel=0.01)
    assert record.step_s is not None and len(record.step_s.values) == STEPS - 5
    assert record.step_s.values == [row["step_s"] for row in rows[5:]]
    assert record.images_per_s == pytest.approx(16 / record.step_s.median)
    assert record.config is not None and record.config["seed"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "then"), [((2, "FULL_SHARD"), (1, "DDP")), ((1, "DDP"), (4, "HYBRID_SHARD"))]
)
def test_killed_and_resumed_on_another_number_of_ranks(
    whole: Path, tmp_path: Path, ranks: tuple[int, str], then: tuple[int, str]
) -> None:
    """kill -9 in the middle, resume with other ranks and strategy: the losses of one process."""
    folder = tmp_path / "run"
    first = start(folder, ranks[0], f"parallel.strategy={ranks[1]}")
    wait_for_step(first[0], folder, 5)
    for process in first:
        process.kill()
    for process in first:
        process.communicate()
    group = ["parallel.group_size=2"] if then[1] == "HYBRID_SHARD" else []
    code, said = train(folder, then[0], f"parallel.strategy={then[1]}", *group)
    assert code == 0, said
    resumed = re.search(rf"from step (\d+) of {STEPS}", said)
    assert resumed and 0 < int(resumed[1]) < STEPS
    rows, expected = metrics(folder), metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == pytest.approx([r["loss"] for r in expected], abs=1e-6)
    assert [row["lr"] for row in rows] == [row["lr"] for row in expected]


def test_a_signal_finishes_the_step_saves_and_exits_with_0(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["train.steps=4000", "checkpoint.every=4000"]
    (process,) = start(folder, 1, *options)
    wait_for_step(process, folder, 3)
    process.send_signal(signal.SIGUSR2)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    last = metrics(folder)[-1]["step"]
    assert f"received SIGUSR2: stopping after step {last}" in said
    assert (folder / "checkpoints" / f"step-{last:08d}" / "step.json").exists()


def test_a_time_limit_stops_and_the_same_command_goes_on(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for steps in (1, 2):
        code, said = train(folder, 1, "launch.time_limit=0.001")
        assert code == 0, said
        assert f"stopped at step {steps} of {STEPS}; start it again" in said
    code, said = train(folder, 1)
    assert code == 0, said
    assert [row["loss"] for row in metrics(folder)] == pytest.approx(
        [row["loss"] for row in metrics(whole)], abs=1e-6
    )


def test_a_run_that_has_ended_goes_on_and_says_its_learning_rate(
    whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    code, said = train(folder, 1)
    assert code == 0 and "is complete; with a larger train.steps it goes on" in said, said
    code, said = train(folder, 1, "train.steps=44")
    assert code == 0, said
    rows, optim = metrics(folder), Optim(base_lr=0.01, warmup_steps=2)
    assert [row["step"] for row in rows] == list(range(1, 45))
    before, after = learning_rate(39, 40, 16, optim), learning_rate(40, 44, 16, optim)
    assert [row["lr"] for row in rows[39:41]] == pytest.approx([before, after])
    told = f"of a run of 44 steps, warm-up and half a cosine: {after:.3g} at step 41, after "
    assert f"{told}{before:.3g} at step 40" in said, said
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["steps"] == 44


def test_another_run_in_the_folder_is_refused_with_the_difference(whole: Path) -> None:
    files = [path for path in whole.rglob("*") if path.is_file() and path.name != "lock"]
    before = {path: path.read_bytes() for path in files}
    code, said = train(whole, 1, "seed=7", "optim.base_lr=0.5")
    assert code == 2
    assert "holds another run" in said
    assert "seed: 0 -> 7" in said and "optim.base_lr: 0.01 -> 0.5" in said
    code, said = train(whole, 1, "train.accumulate=2")
    assert code == 2
    assert "global batch of 16, this run has 32" in said
    assert before == {path: path.read_bytes() for path in before}


def test_a_finished_run_without_checkpoints_is_not_done_again(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints")
    code, said = train(folder, 1)
    assert code == 2
    assert "holds a run that left no checkpoint" in said
    assert len(metrics(folder)) == STEPS


def test_two_jobs_never_share_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (first,) = start(folder, 1, "train.steps=4000")
    wait_for_step(first, folder, 3)
    code, said = train(folder, 1, "train.steps=4000")
    first.kill()
    first.communicate()
    assert code == 2
    assert f"is in use by process {first.pid} on " in said


def test_a_data_set_built_anew_is_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for file in folder.glob("checkpoints/*/step.json"):
        file.write_text(sealed(json.loads(file.read_text()) | {"data": "another digest"}))
    code, said = train(folder, 1)
    assert code == 2
    assert "has been built anew since" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.name=vit_tinny"], "unknown model 'vit_tinny' (did you mean 'vit_tiny'?)"),
        (["parallel.strategy=FULL"], "unknown strategy 'FULL'"),
        (["data.chip=30"], "chip 30 x 30 is no multiple of the 8-pixel patch"),
        (["data.path=/nowhere"], "/nowhere"),
        (["launch.machine=moon"], "unknown machine 'moon'"),
        (["parallel.group_size=2"], "has no effect under DDP"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    tmp_path: Path, options: list[str], message: str
) -> None:
    code, said = train(tmp_path / "run", 1, *options)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.txt").write_text("precious")
    code, said = train(tmp_path, 1)
    assert code == 2
    assert "is not empty and holds no run" in said


def test_print_and_dry() -> None:
    words = [*EXEC, "train", "mae_vit_tiny", "seed=5", "--print"]
    show = subprocess.run(words, capture_output=True, text=True)
    assert yaml.safe_load(show.stdout)["seed"] == 5
    dry = hpcgeo("train", "mae_vit_15b", "launch.machine=frontier", "--dry", "--ranks", 64)
    assert "vit_15b, 14,665,553,484 parameters" in dry.stdout
    assert (
        "global batch  2048 = micro-batch 16 x accumulate 2 x 64 data-parallel ranks" in dry.stdout
    )
    lines = dry.stdout.splitlines()
    assert lines[0].startswith("verdict       fits: 38.8 GiB allocated, up to 60.9 reserved, of 64")
    assert lines[1].startswith(
        "time          63.7 to 67.7 h in all, 509 to 542 node-hours on 8 nodes, estimated; "
        "at least 32 jobs of 2 h, the longest of 8 nodes;"
    )
    assert "step time     4.86 s (4.74 to 5.04 s) estimated: compute 2.48, " in dry.stdout
    assert "8 x 4: 9.07 to 9.64 s, 34.8 GiB; 16 x 2: 4.74 to 5.04 s, 38.8 GiB" in dry.stdout
    assert "warning       head 105: no multiple of 8" in dry.stdout
    assert "checkpoint    176 GB; 2 are kept and one is written beside them: 528 GB" in dry.stdout


def test_a_dry_run_that_does_not_fit_exits_with_2() -> None:
    words = ["train", "mae_vit_15b", "launch.machine=frontier", "parallel.strategy=DDP"]
    dry = hpcgeo(*words, "--dry", "--ranks", 64)
    assert dry.returncode == 2 and dry.stdout.startswith("verdict       does not fit: 309 GiB")


def test_options_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(InputError, match="--ranks has no effect without --dry"):
        train_command("mae_vit_tiny", ranks=4)
    with pytest.raises(InputError, match="--print and --dry: each stands instead of training"):
        train_command("mae_vit_tiny", show=True, dry=True)
    with pytest.raises(InputError, match="--dry and --check-resume"):
        train_command("mae_vit_tiny", dry=True, check_resume=3)


def test_a_run_says_what_people_ask(whole: Path) -> None:
    """At its start, in each line, and at its end, with commands that work."""
    said = (whole.parent / "said").read_text()
    for words in (
        "data          synthetic: 65,536 samples, 3 bands",
        f"steps         {STEPS} = {16 * STEPS} samples = 0.01 epochs",
        f"curves        tensorboard --logdir {whole}",
        "DDP: 1 cpu ranks",
        "next:",
        f"hpcgeo export {whole} --to transformers",
        f"hpcgeo report {whole} --run {whole} --out {whole}/report",
    ):
        assert words in said, words
    assert "hpcgeo probe" not in said, "generated images have no classes"
    lines = re.findall(
        rf"step (\d+)/{STEPS}  loss ([\d.]+)  [\d.]+ images/s  lr \S+  (.*) left", said
    )
    assert [float(loss) for _, loss, _ in lines] == pytest.approx(
        [row["loss"] for row in metrics(whole)], abs=1e-4
    )
    assert lines[-1][2] == "0 s"
