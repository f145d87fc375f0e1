"""What does not fit a run on a mixture: one line and exit code 2, before anything is written."""

from pathlib import Path

import pytest

from tests.processes import hpcgeo

CLASH = "sentinel2: {title: Mine, source: me, bands: {B02: [1, 1, 1]}}"
SCENES = "data.tasks.scenes."

CASES = {
    "reader": ([SCENES + "reader=sceens"], "unknown reader 'sceens' (did you mean 'scenes'?)"),
    "kind": ([SCENES + "path=moons"], "unknown generated set 'moons'"),
    "folder": ([SCENES + "reader=scenes", SCENES + "path=/none"], "/none/split.csv: no such file"),
    "target": ([SCENES + "target=roofs"], "unknown target 'roofs'; known: generated"),
    "metric": ([SCENES + "metric=rmse"], "metric rmse is none of classification: choose one of ac"),
    "no metric": ([SCENES + "metric=acuracy"], "unknown metric 'acuracy' (did you mean 'accuracy'"),
    "ViT": (["model.name=vit_tiny"], "vit_tiny"),
    "no model": (["model.name=gpna_tini"], "gpna_tini"),
    "clash": (["data.sensors=clash.yaml"], "sentinel2 has a band B02 already"),
    "no sensors": (["data.sensors=absent.yaml"], "absent.yaml: No such file"),
    "patch": ([SCENES + "patch=12"], "patch 12: a power of two"),
    "large patch": ([SCENES + "patch=64"], "patch 64"),
    "size": ([SCENES + "size=20"], "size 20: must be a multiple of patch 8"),
    "chip": (["data.chip=32"], "unknown option 'data.chip'"),
    "name": (["data.tasks.keys={reader: generated, path: scenes}"], "task keys: torch has that"),
    "objective": (
        ["objective={name: mae}"],
        "objective.name mae trains a vit, and model.name gpna_tiny",
    ),
    "no objective": (["objective.name=multitusk"], "unknown objective.name 'multitusk'"),
    "density": (["model.density=sin(v)"], "sin(v)"),
    "tensor": (["parallel.tensor=3", "parallel.strategy=FULL_SHARD"], "3"),
    "ended": (
        [f"data.tasks.{name}.epochs=1" for name in ("scenes", "tiles", "series", "table", "pairs")]
        + ["train.steps=1000"],
        "are over after",
    ),
    "order": (["parallel.strategy=ZERO3"], "in a mixture that differs between ranks"),
    "mixup": (["data.only=[tiles]", "objective.mixup=0.8"], "objective.mixup 0.8 has no effect"),
    "cutmix": (["data.only=[series]", "objective.cutmix=1"], "objective.cutmix 1.0 has no effect"),
    "smoothing": (
        ["data.only=[table]", "objective.label_smoothing=0.1"],
        "objective.label_smoothing 0.1 has no effect: no task has samples of one class",
    ),
    "head": ([SCENES + "head=liner"], "unknown head 'liner' (did you mean 'linear'?)"),
    "dense head": (["data.tasks.tiles.head=linear"], "data.tasks.tiles.head linear is for labels"),
    "crop": (["data.tasks.table.crop=[0.2, 1]"], "data.tasks.table.crop has no effect"),
    "wide crop": ([SCENES + "crop=[0.2, 2]"], "less than or equal to 1"),
    "lora": (["model.lora_rank=4"], "model.lora_rank 4 keeps the weights the backbone begins with"),
    "frozen": (["optim.frozen_steps=1000"], "optim.frozen_steps 1000 is more than train.steps"),
    "weights": (["model.weights=absent.safetensors"], "model.weights absent.safetensors: No such"),
}
VIT = {
    "Perceiver": (["model.name=gpna_tiny"], "gpna_tiny"),
    "latents": (["model.latents=8"], "model.latents is an option of a perceiver"),
    "depth": (["model.depth=8"], "model.depth is an option of a perceiver"),
}


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        pytest.param(recipe, *case, id=name)
        for recipe, cases in (("gpna_tiny", CASES), ("mae_vit_tiny", VIT))
        for name, case in cases.items()
    ],
)
def test_bad_input_is_one_line_before_any_work(
    recipe: str, options: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "clash.yaml").write_text(CLASH)
    words = ["train", recipe, "run.dir=run", "launch.threads=1", *options]
    done = hpcgeo(*words, cwd=tmp_path, timeout=20)  # what is not refused would train
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if "hpcgeo: " in line]
    assert len(errors) == 1
    assert done.returncode == 2
    assert not (tmp_path / "run").exists()
