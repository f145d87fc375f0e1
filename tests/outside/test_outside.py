"""What docs/extending.md says can be added from outside, added: everything works on it."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SMALL = (
    *("data.chip=32", "train.steps=2", "optim.warmup_steps=1", "train.micro_batch=4"),
    "checkpoint.every=1",
)


def test_an_objective(install, tmp_path: Path) -> None:
    """SimMIM: trained, resumed, dry run, profiled, exported, and its weights start another run."""
    hpcgeo = install(
        (HERE / "simmim.py").read_text(), {"hpcgeo.objectives": "my_simmim = outside:SimMim"}
    )
    options = ("mae_vit_tiny", "objective.name=my_simmim", *SMALL)
    code, said = hpcgeo("train", *options, "--dry", "--ranks", 2)
    assert code == 0, said
    assert "objective my_simmim has no closed form" in said and "not known in closed form" in said
    code, said = hpcgeo("train", *options, "run.dir=run")
    assert code == 0, said
    code, said = hpcgeo("train", *options, "run.dir=run")
    assert code == 0 and "from step 2 of 2" in said, said
    profile = ("profile", "run", *options, "checkpoint.every=0", "--steps", 2, "--warmup", 1)
    code, said = hpcgeo(*profile, "--records", "records.jsonl")
    assert code == 0, said
    code, said = hpcgeo("export", "run", "--to", "timm", "--out", "timm")
    assert code == 0, said
    code, said = hpcgeo("export", "run", "--to", "transformers", "--out", "none")
    assert code == 2 and "choose --to safetensors or timm" in said, said
    code, said = hpcgeo("export", "run", "--to", "safetensors", "--out", "out")
    assert code == 0, said
    assert "mask_token" in load_file(tmp_path / "out" / "model.safetensors")
    weights = "model.weights=out/model.safetensors"
    code, said = hpcgeo("train", "mae_vit_tiny", *SMALL, weights, "run.dir=mae")
    assert code == 0 and "weights; at random: " in said, said


@pytest.mark.long
def test_an_objective_of_two_views_with_a_teacher(install, tmp_path: Path) -> None:
    """One process = DDP = FULL_SHARD, resumed in the middle; no copy of the teacher is trained."""
    hpcgeo = install(
        (HERE / "contrastive.py").read_text(),
        {"hpcgeo.objectives": "my_contrastive = outside:MyContrastive"},
    )
    options = ("mae_vit_tiny", "objective.name=my_contrastive", "data.chip=32", "train.steps=4")
    options += ("optim.warmup_steps=1", "checkpoint.every=2", "train.eval_every=null")

    def losses(name: str) -> list[float]:
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    code, said = hpcgeo("train", *options, "train.micro_batch=8", "run.dir=one")
    assert code == 0, said
    one = losses("one")
    for strategy in ("DDP", "FULL_SHARD"):
        words = (*options, "train.micro_batch=4", f"run.dir={strategy}")
        code, said = hpcgeo("train", *words, f"parallel.strategy={strategy}", ranks=2)
        assert code == 0, said
        assert losses(strategy) == pytest.approx(one, abs=1e-5), strategy
    shutil.rmtree(tmp_path / "DDP" / "checkpoints" / "step-00000004")
    code, said = hpcgeo("train", *options, "train.micro_batch=8", "run.dir=DDP")
    assert code == 0 and "from step 2 of 4" in said, said
    assert losses("DDP") == pytest.approx(one, abs=1e-5)
    file = hpcgeo("export", "FULL_SHARD", "--to", "safetensors", "--out", "out")
    assert file[0] == 0, file[1]
    weights = load_file(tmp_path / "out" / "model.safetensors")
    student, teacher = (weights[f"{who}backbone.embed.weight"] for who in ("", "teacher."))
    assert 0 < float((student - teacher).abs().max()) < 0.1
    code, said = hpcgeo("train", *options, "parallel.strategy=ZERO1", "run.dir=zero")
    assert code == 2 and "needs DDP or a strategy of FSDP2" in said, said


def test_a_backbone(install, tmp_path: Path) -> None:
    """Heads stand on it, scores and probes read it; an objective of another family refuses it."""
    hpcgeo = install(
        (HERE / "mean_pool.py").read_text(),
        {
            "hpcgeo.models": "mean_pool = outside:ROW",
            "hpcgeo.backbones": "mean_pool = outside:MeanPool",
        },
    )
    options = ("gpna_tiny", "model.name=mean_pool", "data.only=[scenes]", *SMALL[1:])
    code, said = hpcgeo("train", *options, "run.dir=run")
    assert code == 0 and "scenes: accuracy" in said, said
    code, said = hpcgeo("evaluate", "run", "--split", "validation", "--baselines", "none")
    assert code == 0, said
    code, said = hpcgeo("probe", "run")
    assert code == 0 and "scenes" in said, said
    code, said = hpcgeo("train", "mae_vit_tiny", "model.name=mean_pool")
    assert code == 2 and "objective.name mae trains a vit, and model.name mean_pool" in said, said


def test_an_unknown_name_says_how_to_add_one(install) -> None:
    hpcgeo = install("", {})
    code, said = hpcgeo("train", "mae_vit_tiny", "objective.name=contrastif")
    assert code == 2
    assert "unknown objective.name 'contrastif'" in said
    known = "contrastive, cross_mae, dino, gfm, mae, masked_tokens, multitask, simmim, combined"
    assert f"known: {known}; a package adds one by an entry" in said


def test_a_kind_of_task(install, tmp_path: Path) -> None:
    """A number for each pixel is learned, turned with its image, and has the metrics of numbers."""
    hpcgeo = install(
        (HERE / "heights.py").read_text(),
        {
            "hpcgeo.kinds": "heights = outside:HEIGHTS",
            "hpcgeo.readers": "chips = outside:collect",
        },
    )
    tasks = "data.tasks={heights: {reader: chips, path: ., patch: 8, metric: mae}}"
    options = ("gpna_tiny", tasks, "train.steps=20", "train.eval_every=20", "optim.base_lr=0.02")
    code, said = hpcgeo("train", *options, "optim.warmup_steps=4", "run.dir=run")
    assert code == 0 and "heights: mae 0." in said, said
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < 0.7 * losses[0]
    code, said = hpcgeo("evaluate", "run", "--baselines", "none")
    assert code == 0 and "mae" in said, said
    options = (*options, "optim.warmup_steps=4", "data.tasks.heights.metric=iou")
    code, said = hpcgeo("train", *options, "run.dir=other")
    assert code == 2
    assert "metric iou is none of heights: choose one of rmse, r2, pearson_r2, mae" in said, said


JUDGED = """
import numpy as np
from sklearn.naive_bayes import GaussianNB

from hpcgeo.kinds.metrics import Metric
from hpcgeo.kinds.states import Ranking

def bayes(target, seed):
    return GaussianNB()

def value(scores, is_so, weights):
    # How far the mean scores of what is so and what is not lie apart.
    yes, no = weights * is_so, weights * (1 - is_so)
    with np.errstate(invalid="ignore"):
        return yes @ scores / yes.sum(1) - no @ scores / no.sum(1)

GAP = Metric("higher", {Ranking: value})
"""


def test_a_probe_and_a_metric(install, tmp_path: Path) -> None:
    """The probe is fitted to features, and as a baseline to the samples; the metric judges all."""
    hpcgeo = install(
        JUDGED, {"hpcgeo.probes": "bayes = outside:bayes", "hpcgeo.metrics": "gap = outside:GAP"}
    )
    options = ("gpna_tiny", "data.only=[scenes]", *SMALL[1:])
    code, said = hpcgeo("train", *options, "run.dir=run", "data.tasks.scenes.metric=gap")
    assert code == 0 and "scenes: gap " in said, said
    code, said = hpcgeo("probe", "run", "--model", "bayes")
    assert code == 0 and "scenes" in said, said
    code, said = hpcgeo("evaluate", "run", "--split", "validation", "--baselines", "bayes,knn")
    assert code == 0 and "bayes" in said, said
    code, said = hpcgeo("probe", "run", "--model", "bays")
    assert code == 2 and "dense_knn, bayes; a package adds one" in said, said
