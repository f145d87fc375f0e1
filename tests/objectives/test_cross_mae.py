"""CrossMAE: which patches are predicted, by what, and whole runs of it."""

from pathlib import Path

import pytest
import torch

from hpcgeo.models.initialise import draw
from hpcgeo.objectives.cross_mae.network import CrossMAE
from hpcgeo.objectives.cross_mae.objective import CrossMaeOptions
from hpcgeo.zoo import architecture
from tests.processes import hpcgeo
from tests.ranks import ended, launch, metrics

BANDS, CHIP, PATCHES = 3, 32, 16


def made(predicted: float) -> CrossMAE:
    options = CrossMaeOptions(predicted=predicted, normalise_target=False)
    network = CrossMAE(architecture("vit_tiny"), BANDS, options)
    for name, parameter in network.named_parameters():
        parameter.data = draw(name, parameter.shape, slice(None), seed=0)
    return network.requires_grad_(False)


def test_a_part_of_the_hidden_patches_is_predicted_each_by_itself() -> None:
    """The loss is the mean error of the first of them in the order of the noise; what is predicted
    of one does not depend on which others are."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, BANDS, CHIP, CHIP, generator=generator)
    noise = torch.rand(2, PATCHES, generator=generator)
    some, all_of = made(1 / 3), made(1.0)
    holes, whole = all_of.reconstruct(images, noise)
    assert torch.equal(some.reconstruct(images, noise)[1], whole)
    squares = (whole - images).square().view(2, BANDS, 4, 8, 4, 8).mean((1, 3, 5)).flatten(1)
    order = noise.argsort(1)
    chosen = order[:, 4 : 4 + 4]  # of 16 patches 4 are visible; 4 of the 12 others
    torch.testing.assert_close(some(images, noise)["loss"], squares.gather(1, chosen).mean())
    torch.testing.assert_close(
        all_of(images, noise)["loss"], squares.gather(1, order[:, 4:]).mean()
    )
    assert holes.isnan().float().mean() == pytest.approx(12 / 16)
    changed = torch.where(holes.isnan(), images + 1, images)
    assert torch.equal(all_of.reconstruct(changed, noise)[1][holes.isnan()], whole[holes.isnan()])
    torch.testing.assert_close(
        all_of.error(images, noise), squares.gather(1, order[:, 4:]).mean(1).sum()
    )


@pytest.mark.long
def test_a_run(tmp_path: Path) -> None:
    """One process = two ranks, sharded, cut, recomputed; pictures, export, fine-tuned on."""
    options = [
        *("mae_vit_tiny", "objective.name=cross_mae", "data.chip=32", "train.steps=4"),
        *("optim.warmup_steps=1", "checkpoint.every=2", "launch.threads=1"),
    ]
    alone = hpcgeo("train", *options, "train.micro_batch=8", f"run.dir={tmp_path}/one")
    assert alone.returncode == 0, alone.stderr
    losses = [row["loss"] for row in metrics(tmp_path / "one")]
    assert list((tmp_path / "one" / "reconstructions").iterdir())
    for name, more, each in (
        ("shard", ["parallel.recompute=full"], 4),
        ("cut", ["parallel.tensor=2"], 8),
    ):
        words = [*options, "parallel.strategy=FULL_SHARD", *more, f"train.micro_batch={each}"]
        code, said = ended(launch(2, "train", *words, f"run.dir={tmp_path}/{name}"))
        assert code == 0, said
        found = [row["loss"] for row in metrics(tmp_path / name)]
        assert found == pytest.approx(losses, abs=1e-5), name
    for to, code in (("timm", 0), ("transformers", 2)):
        out = hpcgeo("export", tmp_path / "one", "--to", to, "--out", tmp_path / to)
        assert out.returncode == code, out.stderr
