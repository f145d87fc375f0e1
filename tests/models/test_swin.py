"""Swin, versions 1 and 2, against transformers with the same weights: outputs, loss, gradients."""

from typing import Any

import pytest
import torch

from hpcgeo.models.initialise import draw
from hpcgeo.models.swin import Swin
from hpcgeo.objectives.simmim.network import SimMIM
from hpcgeo.objectives.simmim.objective import SimmimOptions
from hpcgeo.swin import SwinArchitecture
from hpcgeo.zoo import architecture

transformers = pytest.importorskip("transformers")

BANDS, SIDE = 3, 64
NAMES = ["swin_nano", "swinv2_nano"]


def theirs(row: SwinArchitecture, side: int = SIDE, window: int | None = None) -> Any:
    """Return SimMIM of transformers, of random weights none of which is zero."""
    torch.manual_seed(0)
    kinds = {
        1: (transformers.SwinConfig, transformers.SwinForMaskedImageModeling),
        2: (transformers.Swinv2Config, transformers.Swinv2ForMaskedImageModeling),
    }
    config, model = kinds[row.version]
    made = model(
        config(
            image_size=side,
            patch_size=row.patch,
            embed_dim=row.width,
            depths=list(row.depths),
            num_heads=list(row.heads),
            window_size=row.window,
            encoder_stride=row.stride,
            num_channels=BANDS,
        )
    ).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.dim() > 1 else 0.5)
    return made


def as_ours(state: dict[str, torch.Tensor], row: SwinArchitecture) -> dict[str, torch.Tensor]:
    """Return their weights, or gradients, under our names."""
    root = "swin." if row.version == 1 else "swinv2."
    found: dict[str, torch.Tensor] = {}

    def take(ours: str, name: str) -> None:
        for word in ("weight", "bias"):
            if f"{name}.{word}" in state:
                found[f"{ours}.{word}"] = state[f"{name}.{word}"]

    def joined(parts: list[torch.Tensor], heads: int) -> torch.Tensor:
        return torch.stack([each.unflatten(0, (heads, -1)) for each in parts], 1).flatten(0, 2)

    conv = state[f"{root}embeddings.patch_embeddings.projection.weight"]
    found["backbone.embed.weight"] = conv.permute(0, 2, 3, 1).flatten(1)
    found["backbone.embed.bias"] = state[f"{root}embeddings.patch_embeddings.projection.bias"]
    take("backbone.embed_norm", f"{root}embeddings.norm")
    take("backbone.norm", f"{root}layernorm")
    number = 0
    for stage, (depth, heads) in enumerate(zip(row.depths, row.heads, strict=True)):
        for block in range(depth):
            mine, other = (
                f"backbone.blocks.{number}",
                f"{root}encoder.layers.{stage}.blocks.{block}",
            )
            number += 1
            take(f"{mine}.attention_norm", f"{other}.layernorm_before")
            take(f"{mine}.mlp_norm", f"{other}.layernorm_after")
            if row.version == 1:
                words = [f"{other}.attention.{one}_proj" for one in "qkv"]
                take(f"{mine}.attention.out", f"{other}.attention.o_proj")
                take(f"{mine}.mlp.into", f"{other}.mlp.fc1")
                take(f"{mine}.mlp.out", f"{other}.mlp.fc2")
                biases = [state[f"{word}.bias"] for word in words]
                found[f"{mine}.attention.qkv.bias"] = joined(biases, heads)
                table = f"{other}.attention.relative_position_bias.relative_position_bias_table"
                found[f"{mine}.attention.bias.offset_token"] = state[table]
            else:
                own = f"{other}.attention.self"
                words = [f"{own}.{one}" for one in ("query", "key", "value")]
                take(f"{mine}.attention.out", f"{other}.attention.output.dense")
                take(f"{mine}.mlp.into", f"{other}.intermediate.dense")
                take(f"{mine}.mlp.out", f"{other}.output.dense")
                take(f"{mine}.attention.bias.into", f"{own}.continuous_position_bias_mlp.0")
                take(f"{mine}.attention.bias.out", f"{own}.continuous_position_bias_mlp.2")
                cosine = f"{mine}.attention.cosine"
                found[f"{cosine}.query.bias"] = state[f"{own}.query.bias"]
                found[f"{cosine}.value.bias"] = state[f"{own}.value.bias"]
                found[f"{cosine}.log_scale"] = state[f"{own}.logit_scale"].flatten()
            matrices = [state[f"{word}.weight"] for word in words]
            found[f"{mine}.attention.qkv.weight"] = joined(matrices, heads)
        if stage + 1 < len(row.depths):
            down = f"{root}encoder.layers.{stage}.downsample"
            take(f"backbone.merges.{stage}.norm", f"{down}.norm")
            take(f"backbone.merges.{stage}.reduce", f"{down}.reduction")
    found["mask_token"] = state[f"{root}embeddings.mask_token"].flatten()
    r = row.stride
    for word in ("weight", "bias"):
        value = state[f"decoder.0.{word}"]  # (bands r r, C, 1, 1): as a pixel shuffle has them
        own = value.unflatten(0, (BANDS, r, r)).movedim(0, 2).flatten(0, 2)
        found[f"predict.{word}"] = own.flatten(1) if word == "weight" else own
    return found


@pytest.mark.parametrize(
    ("name", "side"),
    [("swin_nano", 128), ("swin_nano", 160), ("swinv2_nano", 64), ("swinv2_nano", 160)],
)
def test_simmim_is_that_of_transformers(name: str, side: int) -> None:
    """Windows of 4 over 32 to 4 places, over 40, 20, 10 and 5 (beyond the edge), over 2 (smaller;
    their version 1 has no bias there)."""
    row = architecture(name)
    other = theirs(row, side)
    with torch.device("meta"):
        ours = SimMIM(row, BANDS, (side, side), SimmimOptions(mask_ratio=0.5))
    ours.load_state_dict(as_ours(other.state_dict(), row), assign=True)
    images = torch.randn(2, BANDS, side, side, generator=torch.Generator().manual_seed(1))
    noise = torch.rand(2, (side // 32) ** 2, generator=torch.Generator().manual_seed(2))
    hidden = ours._hidden(images, noise)
    answer = other(images, bool_masked_pos=hidden[:, ::4, ::4].flatten(1))
    found = ours(images, noise)["loss"]
    torch.testing.assert_close(
        ours._predicted(images, hidden), answer.reconstruction, rtol=1e-5, atol=2e-5
    )
    torch.testing.assert_close(found, answer.loss, rtol=1e-5, atol=1e-5)
    answer.loss.backward()
    found.backward()
    wanted = as_ours({n: p.grad for n, p in other.named_parameters()}, row)
    for parameter, value in ours.named_parameters():
        least = 1e-5 * float(wanted[parameter].abs().max()) + 1e-9
        torch.testing.assert_close(value.grad, wanted[parameter], rtol=1e-4, atol=least)


@pytest.mark.parametrize("name", [*NAMES, "swin_base", "swinv2_base"])
def test_parameters_are_those_of_the_closed_form(name: str) -> None:
    row = architecture(name)
    with torch.device("meta"):
        made = Swin(row, BANDS)
    assert sum(p.numel() for p in made.parameters()) == row.parameters(BANDS)


def test_the_published_sizes() -> None:
    """Table 7 of arXiv 2103.14030: 29 M, 50 M, 88 M, 197 M with a head for 1,000 classes."""
    for name, millions, gflops in (
        ("swin_tiny", 29, 4.5),
        ("swin_small", 50, 8.7),
        ("swin_base", 88, 15.4),
    ):
        row = architecture(name)
        assert round(row.parameters(3, 1000) / 1e6) == millions or name == "swin_tiny"
        assert row.forward_flops(3, (224, 224), 1000) / 2e9 == pytest.approx(gflops, rel=0.03)
    assert architecture("swin_tiny").parameters(3, 1000) / 1e6 == pytest.approx(28.3, abs=0.1)


def test_every_parameter_has_a_first_value() -> None:
    for name in NAMES:
        with torch.device("meta"):
            made = Swin(architecture(name), BANDS)
        for parameter, value in made.named_parameters():
            drawn = draw(f"backbone.{parameter}", value.shape, slice(None), 0)
            assert drawn.shape == value.shape and drawn.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_without_images(name: str) -> None:
    """A rank of a mixture may have none; all its parameters take part."""
    made = Swin(architecture(name), BANDS)
    found = made(torch.zeros(0, BANDS, SIDE, SIDE))
    assert [each.shape[0] for each in found] == [0] * 4
    found[-1].sum().backward()
    assert all(value.grad is not None and not value.grad.any() for value in made.parameters())
