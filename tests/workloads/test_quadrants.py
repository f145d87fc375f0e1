"""Any objective, any backbone, any data: each pair trains a step and is evaluated, or is refused in
one line that says what would fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpcgeo.config import load
from hpcgeo.data.labelled import open_tasks
from hpcgeo.errors import InputError
from hpcgeo.train.loop import new_engine
from hpcgeo.workloads.choice import workload_of
from tests.distributed import on_ranks
from tests.parallel.mixing import topology_of
from tests.processes import hpcgeo

SMALL = (
    *("train.micro_batch=4", "train.steps=2", "optim.warmup_steps=1", "train.dtype=float32"),
    "train.accumulate=1",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 30 images of two classes, one bright and one dark."""
    folder = tmp_path_factory.mktemp("quadrants")
    generator = np.random.default_rng(0)
    for name, low in (("dark", 40), ("bright", 180)):
        (folder / "src" / name).mkdir(parents=True)
        for number in range(15):
            pixels = generator.integers(low, low + 40, (32, 32, 3)).astype("uint8")
            Image.fromarray(pixels).save(folder / "src" / name / f"{number}.png")
    words = ["data", "build", folder / "src", "--chip", 32, "--out", folder / "set"]
    hpcgeo(*words).check_returncode()
    return folder / "set"


def test_a_data_set_of_shards_is_a_reader(shards: Path) -> None:
    """Classes, splits, bands; every image is in one split, and normalised as for pretraining."""
    train = open_tasks("shards", shards, split="train", patch=8)
    test, validation = train.other("test"), train.other("validation")
    assert (len(train), len(validation), len(test)) == (20, 4, 6)
    assert train.target.names == ("bright", "dark") and train.target.kind == "classification"
    assert [channel[:2] for channel in train.channels] == [("rgb", band) for band in "RGB"]
    groups = [{part.group(i) for i in range(len(part))} for part in (train, validation, test)]
    assert len(set.union(*groups)) == 30 == sum(map(len, groups))
    for part in (train, test):
        for index in range(len(part)):
            sample = part.read(index)
            bright = sample.observations[0].values.mean() > 0
            assert train.target.names[int(sample.target)] == ("bright" if bright else "dark")
    with pytest.raises(InputError, match="unknown target 'roof'"):
        open_tasks("shards", shards, split="train", target="roof")


def step_and_evaluate(cases: list[tuple[str, ...]], folder: Path) -> list[tuple[Any, list[str]]]:
    """Return the loss of a step of each run, and what its evaluation left."""
    found = []
    for number, (recipe, *options) in enumerate(cases):
        run = load(recipe, [*options, *SMALL])
        workload, topology = workload_of(run), topology_of(run)
        engine = new_engine(run, workload, topology)
        todo = workload.step(iter([next(iter(workload.batches(topology, 0)))]), topology.device)
        loss = float(engine.forward_backward(todo.passes, todo.count)["loss"])
        assert np.isfinite(float(engine.step(1e-3)))
        out = folder / str(number)
        out.mkdir()
        workload.evaluate(engine, topology, out, 1, lambda: None)
        found.append((loss, sorted(path.name for path in out.iterdir())))
        assert workload.facts()["parameters"] == sum(
            p.numel() for p in engine.objective.parameters()
        )
        assert any(line.startswith("model  ") for line in workload.about())
        assert all(" RUN" in command for command in workload.commands())
    return found


def test_all_that_fits_trains(shards: Path, tmp_path: Path) -> None:
    tasks = f"data={{tasks: {{kinds: {{reader: shards, path: {shards}, size: 32}}}}}}"
    images, scores = [f"data.path={shards}", "data.chip=32"], ["pictures", "scores.jsonl"]
    cases = [
        ("mae_vit_tiny", *images),
        ("mae_vit_tiny", tasks),
        ("mae_vit_tiny", "objective.name=multitask", tasks),
        ("gpna_tiny", "model.name=vit_tiny", "data.only=[pairs]", "data.tasks.pairs.size=16"),
        ("gpna_tiny", "objective.name=masked_tokens", *images),
        ("gpna_tiny", "objective.name=masked_tokens", tasks),
        ("gpna_tiny", tasks),
    ]
    left = [
        ["reconstructions"],
        ["scores.jsonl"],
        scores,
        scores,
        ["scores.jsonl"],
        ["scores.jsonl"],
        scores,
    ]
    (found,) = on_ranks(step_and_evaluate, 1, cases, tmp_path)
    for case, (loss, files), expected in zip(cases, found, left, strict=True):
        assert np.isfinite(loss) and files == expected, case


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("mae_vit_tiny", ["model.name=gpna_tiny"], "objective masked_tokens or multitask"),
        ("gpna_tiny", ["objective.name=mae"], "masked_tokens or multitask"),
        ("mae_vit_tiny", ["objective.name=masked_tokens"], "trains a perceiver"),
        ("mae_vit_tiny", ["objective.name=multitask"], r"\(data.path\), which fit .*mae, masked"),
        ("gpna_tiny", ["data.path=x"], r"\{reader: shards, path: x\}"),
    ],
)
def test_what_does_not_fit_says_what_would(recipe: str, options: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message.replace("objective ", "")) as error:
        load(recipe, options)
    assert "\n" not in str(error.value)
    assert "normalise_target" not in str(error.value), "a leftover of the recipe is blamed"


def test_a_vit_says_which_samples_it_reads() -> None:
    for options, message in (
        (["data.only=[series]"], "task series: model.name vit_tiny reads one image a sample"),
        (
            ["data.only=[scenes, tiles]", "data.tasks.tiles.size=16"],
            "tasks scenes and tiles differ in bands or size",
        ),
        (["data.only=[scenes]", "model.latents=8"], "model.latents is an option of a perceiver"),
    ):
        with pytest.raises(InputError, match=message):
            workload_of(load("gpna_tiny", ["model.name=vit_tiny", *options]))
