"""SimMIM: its loss by hand, on a ViT as of transformers, and whole runs of a Swin."""

from pathlib import Path

import pytest
import torch
import transformers

from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.simmim.network import SimMIM
from hpcgeo.objectives.simmim.objective import SimmimOptions
from hpcgeo.weights.foreign import converted
from hpcgeo.zoo import architecture
from tests.processes import hpcgeo
from tests.ranks import ended, launch, metrics

CHIP, BANDS = 64, 3
OPTIONS = [
    *("mae_vit_tiny", "model.name=swin_nano", "objective={name: simmim}", "data.chip=64"),
    *("train.steps=4", "optim.warmup_steps=1", "checkpoint.every=2", "launch.threads=1"),
]
TENSOR = ["parallel.strategy=FULL_SHARD", "parallel.tensor=2"]


def made(name: str) -> SimMIM:
    network = SimMIM(architecture(name), BANDS, (CHIP, CHIP), SimmimOptions())
    for parameter, value in network.named_parameters():
        value.data = draw(parameter, value.shape, slice(None), seed=0)
    return network


@pytest.mark.parametrize("name", ["swin_nano", "vit_tiny"])
def test_the_loss_is_that_of_the_hidden_pixels(name: str) -> None:
    """Three of four cells are hidden, ceil(0.6 x 4); what is seen has no part in the loss."""
    network = made(name).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, BANDS, CHIP, CHIP, generator=generator)
    noise = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.9, 0.8, 0.7, 0.0]])
    holes, whole = network.reconstruct(images, noise)
    hidden = holes.isnan()[:, 0].view(2, 2, 32, 2, 32).float().mean((2, 4))
    assert hidden.tolist() == [[[0, 1], [1, 1]], [[1, 1], [1, 0]]]
    seen = ~holes.isnan()
    torch.testing.assert_close(whole[seen], images[seen])
    error = (whole - images).abs()[~seen].mean()
    torch.testing.assert_close(network(images, noise)["loss"], error)
    changed = network(torch.where(seen, images, images + 1), noise)["loss"]
    assert changed != pytest.approx(float(error))  # the target alone: nothing of it was read
    torch.testing.assert_close(network.reconstruct(images + ~seen, noise)[1][~seen], whole[~seen])


def test_a_vit_is_that_of_transformers() -> None:
    """Fixed positions are theirs to learn: they are given ours."""
    row = architecture("vit_nano")
    config = transformers.ViTConfig(
        hidden_size=row.encoder.width,
        num_hidden_layers=row.encoder.depth,
        num_attention_heads=row.encoder.heads,
        intermediate_size=row.encoder.hidden,
        image_size=CHIP,
        patch_size=row.patch,
        encoder_stride=row.patch,
        layer_norm_eps=1e-6,
    )
    torch.manual_seed(0)
    peer = transformers.ViTForMaskedImageModeling(config).eval()
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = made("vit_nano")
    embeddings = peer.vit.embeddings
    grid = CHIP // row.patch
    positions = ours.backbone.positions((grid, grid), torch.device("cpu"))
    embeddings.position_embeddings.data = torch.cat([torch.zeros(1, row.encoder.width), positions])[
        None
    ]
    state = {f"vit.{n}": v for n, v in peer.vit.state_dict().items()}
    mine = {f"backbone.{name}": value for name, value in ours.backbone.named_parameters()}
    for name, value in converted(state, row, mine).items():
        mine[name].data = value
    ours.mask_token.data = embeddings.mask_token.data.flatten()
    r = row.patch
    for word in ("weight", "bias"):
        value = getattr(peer.decoder[0], word).data
        own = value.unflatten(0, (BANDS, r, r)).movedim(0, 2).flatten(0, 2)
        getattr(ours.predict, word).data = own.flatten(1) if word == "weight" else own
    images = torch.randn(2, BANDS, CHIP, CHIP)
    noise = torch.rand(2, 4)
    hidden = ours._hidden(images, noise)
    answer = peer(images, bool_masked_pos=hidden[:, ::r, ::r].flatten(1))
    torch.testing.assert_close(ours(images, noise)["loss"], answer.loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "said"), [(48, "objective.mask_cell 48"), (36, "objective.mask_cell 36")]
)
def test_cells_that_do_not_fit_are_refused(cell: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SimMIM(architecture("swin_nano"), 3, (CHIP, CHIP), SimmimOptions(mask_cell=cell))


@pytest.mark.slow
def test_a_run_of_a_swin(tmp_path: Path) -> None:
    """One process = two ranks, sharded or not; dry run, export, fine-tuning, probe."""
    done = hpcgeo("train", *OPTIONS, "--dry", "--ranks", 2)
    assert done.returncode == 0 and "no closed form" in done.stdout, done.stderr + done.stdout
    alone = hpcgeo("train", *OPTIONS, "train.micro_batch=8", f"run.dir={tmp_path}/one")
    assert alone.returncode == 0, alone.stderr
    losses = [row["loss"] for row in metrics(tmp_path / "one")]
    for strategy in ("DDP", "FULL_SHARD"):
        folder = tmp_path / strategy
        words = [*OPTIONS, f"parallel.strategy={strategy}", "parallel.recompute=full"]
        code, said = ended(launch(2, "train", *words, "train.micro_batch=4", f"run.dir={folder}"))
        assert code == 0, said
        assert [row["loss"] for row in metrics(folder)] == pytest.approx(losses, abs=1e-5)
    out = hpcgeo("export", tmp_path / "one", "--to", "safetensors", "--out", tmp_path / "out")
    assert out.returncode == 0, out.stderr
    cut = hpcgeo("train", *OPTIONS, *TENSOR, "--dry", "--ranks", 2)
    assert cut.returncode == 2 and "blocks of a Swin are not cut" in cut.stdout + cut.stderr
    tuned = [
        *("gpna_tiny", "model.name=swin_nano", "data.only=[scenes]", "train.steps=2"),
        *("train.micro_batch=4", "optim.warmup_steps=1", "launch.threads=1"),
        *("data.tasks.scenes.size=64", f"model.weights={tmp_path}/out/model.safetensors"),
    ]
    done = hpcgeo("train", *tuned, f"run.dir={tmp_path}/tuned")
    assert done.returncode == 0 and "scenes" in done.stderr, done.stderr
    done = hpcgeo("probe", tmp_path / "tuned", "--model", "knn", "--cache", tmp_path / "features")
    assert done.returncode == 0 and "scenes" in done.stdout, done.stderr
