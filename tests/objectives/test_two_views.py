"""DINO and MoCo: their losses by hand, and runs of several views."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.contrastive.network import MoCo
from hpcgeo.objectives.contrastive.objective import ContrastiveOptions
from hpcgeo.objectives.dino.network import DINO, crowded
from hpcgeo.objectives.dino.objective import Dino, DinoOptions
from hpcgeo.objectives.objective import Material
from hpcgeo.options import Augment
from hpcgeo.zoo import architecture
from tests.processes import hpcgeo
from tests.ranks import ended, launch, metrics

BANDS, CHIP = 3, 32
SMALL: dict[str, Any] = {"hidden": 16, "features": 8}


def filled(network: Any) -> Any:
    for name, parameter in network.named_parameters():
        parameter.data = draw(name, parameter.shape, slice(None), seed=0)
    return network


def views(count: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(4, BANDS, CHIP, CHIP, generator=generator) for _ in range(count))


def softmax(x: Any) -> Any:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("model", ["vit_tiny", "swin_nano"])
def test_the_loss_of_dino_by_hand(model: str) -> None:
    """Every pair of a large view of the teacher and another of the student."""
    options = DinoOptions(prototypes=6, local_views=2, local_size=CHIP, koleo=0.5, **SMALL)
    material = Material(architecture(model), BANDS, (CHIP, CHIP))
    network = filled(DINO(material, options))
    seen = views(4)
    found = network(seen)

    def cosines(half: Any, view: torch.Tensor) -> Any:
        *_, last = half.backbone.places(view)
        vector = half.project(last.flatten(1, 2).mean(1)).detach().double().numpy()
        prototypes = half.prototypes.weight.detach().double().numpy()
        scale = np.linalg.norm(vector, axis=1)[:, None] * np.linalg.norm(prototypes, axis=1)
        return vector @ prototypes.T / scale

    taught = np.exp(np.concatenate([cosines(network.teacher, v) for v in seen[:2]]) / 0.04)
    for _ in range(3):
        taught = taught / taught.sum(0)
        taught = taught / taught.sum(1)[:, None]
    said = [np.log(softmax(cosines(network, view) / 0.1)) for view in seen]
    pairs = [(i, j) for i, j in product(range(2), range(4)) if i != j]
    distil = np.mean([-(taught[4 * i : 4 * i + 4] * said[j]).sum(1).mean() for i, j in pairs])
    assert found["distil"].item() == pytest.approx(distil, rel=1e-4)
    vectors = [[*network.backbone.places(v)][-1].flatten(1, 2).mean(1).detach() for v in seen[:2]]
    near = []
    for each in vectors:
        unit = (each / each.norm(dim=1, keepdim=True)).double().numpy()
        away = np.linalg.norm(unit[:, None] - unit, axis=2) + 9 * np.eye(len(unit))
        near.append(-np.log(away.min(1)).mean())
    assert found["koleo"].item() == pytest.approx(np.mean(near), rel=1e-3)
    assert found["loss"].item() == pytest.approx(distil + 0.5 * np.mean(near), rel=1e-3)
    found["loss"].backward()
    assert all(value.grad is None for value in network.teacher.parameters())
    assert all(v.grad is not None for n, v in network.named_parameters() if "teacher" not in n)


def test_assignments_use_all_prototypes_equally() -> None:
    network = filled(
        DINO(Material(architecture("vit_tiny"), BANDS, (CHIP, CHIP)), DinoOptions(**SMALL))
    )
    cosines = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) / 10
    cosines[:, 0] = 0.5  # what all would choose
    found = network._assigned(cosines)
    torch.testing.assert_close(found.sum(1), torch.ones(64))
    assert (cosines / 0.04).softmax(1).sum(0)[0] > 60
    assert (found.sum(0) - 8).abs().max() < 1
    assert crowded(torch.eye(4)) < crowded(torch.ones(4, 4) + 0.01 * torch.eye(4))


def test_the_loss_of_moco_by_hand() -> None:
    options = ContrastiveOptions(temperature=0.5, **SMALL)
    network = filled(MoCo(Material(architecture("vit_tiny"), BANDS, (CHIP, CHIP)), options))
    first, second = views(2)

    def unit(x: torch.Tensor) -> Any:
        return (x / x.norm(dim=1, keepdim=True)).detach().double().numpy()

    def query(view: torch.Tensor) -> Any:
        return unit(network.predict(network.project(network.vectors(view))))

    def key(view: torch.Tensor) -> Any:
        return unit(network.teacher.project(network.teacher.vectors(view)))

    total = 0.0
    for a, b in ((first, second), (second, first)):
        chances = softmax(query(a) @ key(b).T / 0.5)
        total += 2 * 0.5 * -np.log(np.diag(chances)).mean()
    assert network(views(2))["loss"].item() == pytest.approx(total, rel=1e-4)


def test_small_views_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"objective.local_size 20: chip 20 x 20 is no multiple"):
        DINO(Material(architecture("swin_nano"), BANDS, (CHIP, CHIP)), DinoOptions(local_size=20))


def test_frames_are_two_large_and_some_small_views() -> None:
    augment = Augment(scale=(0.4, 1.0), flip=False)
    frames = Dino(DinoOptions(local_views=3, local_size=16), 0).random_views((32, 32), augment)
    assert [chip for chip, _ in frames] == [(32, 32)] * 2 + [(16, 16)] * 3
    assert [each.scale for _, each in frames] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 3
    assert not any(each.flip for _, each in frames)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        "{name: dino, local_size: 16, local_views: 2, hidden: 16, features: 8, prototypes: 32}",
        pytest.param("{name: contrastive, hidden: 16, features: 8}", marks=pytest.mark.long),
        "{name: combined, terms: {pixels: {objective: {name: simmim, mask_cell: 8}}, views: "
        "{weight: 0.5, objective: {name: contrastive, hidden: 16, features: 8}}, holes: "
        "{objective: {name: mae}}}}",
    ],
    ids=["dino", "contrastive", "combined"],
)
def test_a_run(objective: str, tmp_path: Path) -> None:
    """One process = two ranks, sharded; stopped half-way and gone on; exported."""
    options = [
        *("mae_vit_tiny", f"objective={objective}", "data.chip=32", "train.steps=4"),
        *("optim.warmup_steps=1", "checkpoint.every=2", "launch.threads=1"),
    ]
    alone = hpcgeo("train", *options, "train.micro_batch=8", f"run.dir={tmp_path}/one")
    assert alone.returncode == 0, alone.stderr
    rows = metrics(tmp_path / "one")
    words = [*options, "parallel.strategy=FULL_SHARD", "train.micro_batch=4"]
    code, said = ended(launch(2, "train", *words, f"run.dir={tmp_path}/two"))
    assert code == 0, said
    for key in [key for key in rows[0] if key.endswith(("loss", "distil", "koleo"))]:
        assert [row[key] for row in metrics(tmp_path / "two")] == pytest.approx(
            [row[key] for row in rows], abs=1e-5
        )
    resume = hpcgeo("train", *options, "train.micro_batch=8", "--check-resume", 2)
    assert resume.returncode == 0, resume.stdout + resume.stderr
    out = hpcgeo("export", tmp_path / "one", "--to", "safetensors", "--out", tmp_path / "out")
    assert out.returncode == 0, out.stderr


def test_a_combination_of_one_is_that_one(tmp_path: Path) -> None:
    options = ["mae_vit_tiny", "data.chip=32", "train.steps=3", "optim.warmup_steps=1"]
    options += ["checkpoint.every=0", "train.micro_batch=8", "launch.threads=1"]
    losses = {}
    for name, objective in (
        ("alone", "{name: simmim, mask_cell: 8}"),
        ("one", "{name: combined, terms: {it: {objective: {name: simmim, mask_cell: 8}}}}"),
    ):
        folder = tmp_path / name
        done = hpcgeo("train", *options, f"objective={objective}", f"run.dir={folder}")
        assert done.returncode == 0, done.stderr
        losses[name] = [row["loss"] for row in metrics(folder)]
    assert losses["one"] == pytest.approx(losses["alone"], abs=1e-6)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ("{a: {objective: {name: multitask}}}", "multitask is no objective of images"),
        ("{a: {objective: {name: nobody}}}", "known: "),
        ("{a-b: {objective: {name: mae}}}", "'a-b' is no name of a term"),
        ("{}", "terms"),
    ],
)
def test_terms_that_are_none_are_refused(terms: str, said: str) -> None:
    done = hpcgeo("train", "mae_vit_tiny", f"objective={{name: combined, terms: {terms}}}", "--dry")
    assert done.returncode == 2 and said in done.stderr, done.stderr
