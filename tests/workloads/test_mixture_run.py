"""`hpcgeo train` on a mixture, as a user starts it: resumed, ended early, with damaged files."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.masked_tokens.objective import LARGER
from hpcgeo.weights.initial import Start
from hpcgeo.workloads.choice import workload_of
from hpcgeo.workloads.scores import Found, TaskScore, kept_scores, standing
from tests.data import labelled
from tests.mixed import TINY, drawn, masked, multitask
from tests.processes import hpcgeo
from tests.ranks import Rank, ended, launch, metrics, wait_for_step

OPTIONS = [
    *(f"data.tasks.{name}.size=16" for name in ("scenes", "tiles", "pairs")),
    *("train.steps=8", "optim.warmup_steps=2", "train.log_every=1", "checkpoint.every=2"),
    *("launch.threads=1", "data.batching.max_tokens=500"),
]


def start(folder: Path, ranks: int, *options: str) -> list[Rank]:
    """Start the ranks of a run, with a global batch of 8."""
    words = ["train", "gpna_tiny", f"run.dir={folder}", f"train.micro_batch={8 // ranks}"]
    return launch(ranks, *words, *OPTIONS, *options)


def train(folder: Path, ranks: int, *options: str) -> tuple[int, str]:
    return ended(start(folder, ranks, *options))


def looks(folder: Path) -> list[TaskScore]:
    text = (folder / "scores.jsonl").read_text()
    return [TaskScore.model_validate_json(line) for line in text.splitlines()]


@pytest.mark.long
def test_killed_and_resumed_on_another_number_of_ranks(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    longer = ["train.eval_every=4", "train.steps=12"]
    code, said = train(whole, 1, *longer, "data.workers=1")
    assert code == 0, said
    first = start(folder, 2, *longer, "parallel.strategy=FULL_SHARD")
    wait_for_step(first[0], folder, 5)
    for process in first:
        process.kill()
    for process in first:
        process.communicate()
    code, said = train(folder, 1, *longer)
    assert code == 0, said
    assert re.search(r"from step [2468] of 12", said)
    ours, theirs = metrics(folder), metrics(whole)
    assert [row["step"] for row in ours] == list(range(1, 13))
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], abs=1e-4)
    assert {"tokens", "padding", "passes", "loss/table"} <= set(ours[0])
    found, expected = looks(folder), looks(whole)
    keys = [(score.step, score.task) for score in found]
    assert keys == [(score.step, score.task) for score in expected]
    assert sorted(set(keys)) == sorted(keys) and len(keys) == 15
    for score, other in zip(found, expected, strict=True):
        assert (score.best_step, score.since) == (other.best_step, other.since)
        assert score.value == pytest.approx(other.value, abs=0.03)


@pytest.mark.parametrize("objective", ["multitask", "masked_tokens"])
def test_a_resume_is_exact(tmp_path: Path, objective: str) -> None:
    own = ["objective={name: masked_tokens}"] if objective == "masked_tokens" else []
    words = ["train", "gpna_tiny", f"run.dir={tmp_path / 'run'}", *OPTIONS, "train.micro_batch=4"]
    done = hpcgeo(*words, "--check-resume", 3, *own)
    assert done.returncode == 0, done.stderr
    for kind in ("loss", "parameters", "optimizer"):
        assert f"{kind:12}equal       0" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_several_labels_of_a_photograph_are_learned_and_scored(tmp_path: Path) -> None:
    """Colours of halves: what is left, what is right; each label is there in half of them."""
    data, folder = tmp_path / "data", tmp_path / "run"
    rows = []
    for number in range(60):
        words = {"left": number % 2, "right": number // 2 % 2}
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[:, :8, 0], pixels[:, 8:, 1] = 200 * words["left"], 200 * words["right"]
        labelled.write_image(data / f"{number}.png", pixels)
        label = ";".join(word for word, there in words.items() if there)
        split = "test" if number >= 40 else "train"
        rows.append({"path": f"{number}.png", "label": label, "split": split})
    labelled.write_table(data / "split.csv", rows)
    mine = f"data.tasks={{halves: {{reader: scenes, path: {data}, target: labels, patch: 8}}}}"
    code, said = train(folder, 2, mine, "train.steps=60", "optim.base_lr=0.05", "data.flip=false")
    assert code == 0, said
    (last,) = [score for score in looks(folder) if score.step == 60]
    assert (last.task, last.metric) == ("halves", "f1") and last.value > 0.95
    table = json.loads(hpcgeo("evaluate", folder, "--json").stdout)
    (row,) = table["rows"]
    assert set(row["baselines"]) == {"knn", "linear", "forest"}
    assert row["scores"]["run"]["value"] > 0.95 and row["samples"] == 20


def test_tokens_are_left_out_of_the_task_that_asks_for_it_in_training_alone() -> None:
    run = load("gpna_tiny", ["data.tasks.series.hide=0.4"])
    work = workload_of(run)
    some = drawn("series", "table", "series", first=7)
    seen = work.visible(some)
    again = work.visible(some[::-1])[::-1]
    for one, visible, same in zip(some, seen, again, strict=True):
        counts = [sum(int(part.sum()) for part in parts) for parts in (visible, one.kept)]
        hidden = int(0.4 * counts[1]) if one.task == "series" else 0
        assert counts[0] == counts[1] - hidden and (hidden > 10) == (one.task == "series")
        for part, other in zip(visible, same, strict=True):
            np.testing.assert_array_equal(part, other)
    inputs = work.inputs(some, seen)["tokens"]
    whole = work.inputs(some, [one.kept for one in some], whole=True)["tokens"]
    assert len(whole.order) - len(inputs.order) == sum(
        int(0.4 * (one.length - 1)) for one in some if one.task == "series"
    )


def test_masked_tokens_begin_with_louder_places_and_sharper_queries() -> None:
    work = workload_of(load("gpna_tiny", ["objective={name: masked_tokens}"]))
    objective = work.objective()
    first = work.initial(objective)
    larger = set()
    for name, parameter in objective.named_parameters():
        rows, shape = slice(0, len(parameter)), tuple(parameter.shape)
        by_law, values = draw(name, shape, rows, work.run.seed), first(name, shape, rows)
        ends = [end for end in LARGER if name.endswith(end)]
        gain = LARGER[ends[0]] if ends else 1
        torch.testing.assert_close(values, gain * by_law, rtol=0, atol=0)
        larger |= {end for end in ends if by_law.any()}
    assert larger == set(LARGER)  # each is still the end of a name


def test_patience_ends_a_run(tmp_path: Path) -> None:
    mark = tmp_path / "requeued"
    code, said = train(
        tmp_path / "run",
        1,
        *("objective.patience=1", "train.eval_every=1", "optim.base_lr=1e-30"),
        *(f"launch.requeue=touch {mark}", "train.steps=40"),
    )
    assert code == 0, said
    assert "no task got better in 1 evaluations: the run ends at step 2" in said
    assert not mark.exists()
    assert metrics(tmp_path / "run")[-1]["step"] == 2
    assert {score.since for score in looks(tmp_path / "run") if score.step == 2} == {1}


@pytest.mark.long
def test_damaged_files_and_an_ended_task_do_not_stop_the_others(tmp_path: Path) -> None:
    """Files of one task are cut off while the run goes on; another ends after its epochs."""
    data, folder = labelled.scenes(tmp_path / "data"), tmp_path / "run"
    mine = f"data.tasks.scenes={{reader: scenes, path: {data}, weight: 9}}"
    options = [mine, "data.tasks.table.epochs=1", "data.temperature=1000", "train.steps=60"]
    (process,) = start(folder, 1, *options, "checkpoint.every=0")
    wait_for_step(process, folder, 1)
    for path in data.rglob("*.png"):
        os.truncate(path, 60)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert re.search(rf"task scenes: {data}/.*png: cannot be read: .*another task", said)
    assert metrics(folder)[-1]["step"] == 60
    found = {score.task for score in looks(folder)}
    assert found == {"tiles", "series", "table", "pairs"}


def score(step: int, value: float, best: float, best_step: int, since: int) -> TaskScore:
    return TaskScore(
        **{"step": step, "task": "a", "metric": "r2", "better": "higher"},
        **{"value": value, "samples": 3},
        **{"best": best, "best_step": best_step, "since": since},
    )


def test_the_best_is_kept_and_what_came_later_is_forgotten(tmp_path: Path) -> None:
    rows = [score(2, 0.5, 0.5, 2, 0), score(4, 0.3, 0.5, 2, 1), score(6, 0.6, 0.6, 6, 0)]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows) + '{"step": 8, "ta')
    assert kept_scores(tmp_path, 6) == rows[:2]
    assert len(path.read_text().splitlines()) == 2
    (now,) = standing(rows[:2], [Found("a", "r2", 0.4, 3)], 6)
    assert (now.best, now.best_step, now.since) == (0.5, 2, 2)
    (now,) = standing([], [Found("a", "rmse", 2.0, 3)], 2)
    (now,) = standing([now], [Found("a", "rmse", 1.0, 3)], 4)
    assert (now.best, now.best_step, now.since) == (1.0, 4, 0)


def test_backbone_and_stems_are_carried_from_masked_tokens_to_tasks(tmp_path: Path) -> None:
    weights = dict(masked().named_parameters())
    path = tmp_path / "model.safetensors"
    save_file({name: value.detach().contiguous() for name, value in weights.items()}, path)
    shapes = {name: value.shape for name, value in multitask().named_parameters()}
    carried = Start(path, TINY, shapes)
    expected = {name for name in shapes if name.startswith("backbone.")}
    assert carried.names == expected
    for name in expected:
        assert torch.equal(carried.rows(name, shapes[name], slice(None)), weights[name])
        assert torch.equal(carried.rows(name, shapes[name], slice(1, 3)), weights[name][1:3])
    with pytest.raises(InputError, match=r"latent_token.* has shape .*choose the model of"):
        Start(path, TINY, shapes | {"backbone.latent_token": (7, 96)})


def test_a_run_starts_from_carried_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({n: p.detach().contiguous() for n, p in masked().named_parameters()}, path)
    code, said = train(
        tmp_path / "run", 1, f"model.weights={path}", "train.steps=2", "train.eval_every=null"
    )
    assert code == 0, said
    count = sum(n.startswith("backbone.") for n, _ in masked().named_parameters())
    assert f"model.safetensors: {count} of " in said
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["loss"] > 0
