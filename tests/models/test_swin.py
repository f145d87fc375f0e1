"""Swin, versions 1 and 2, against transformers with the same weights: outputs, loss, gradients."""

from typing import Any

import pytest
import torch

from hpcgeo.models.initialise import draw
from hpcgeo.models.swin import Swin
from hpcgeo.objectives.simmim.network import SimMIM
from hpcgeo.objectives.simmim.objective import SimmimOptions
from hpcgeo.swin import SwinArchitecture
from hpcgeo.weights.foreign_swin import ForeignSwin
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


def as_ours(
    state: dict[str, torch.Tensor], row: SwinArchitecture, ours: SimMIM
) -> dict[str, torch.Tensor]:
    """Return their weights, or gradients, under our names."""
    foreign = ForeignSwin(state, row)
    found = {}
    for name, value in ours.named_parameters():
        if name.startswith("backbone."):
            foreign.check(name, value.shape)
            found[name] = foreign.rows(name, value.shape, slice(None))
    assert foreign.unused == {"mask_token", "decoder.0.weight", "decoder.0.bias"}
    root = "swin." if row.version == 1 else "swinv2."
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
    ours.load_state_dict(as_ours(other.state_dict(), row, ours), assign=True)
    images = torch.randn(2, BANDS, side, side, generator=torch.Generator().manual_seed(1))
    noise = torch.rand(2, (side // 32) ** 2, generator=torch.Generator().manual_seed(2))
    hidden = ours._hidden(images, noise)
    answer = other(images, bool_masked_pos=hidden[:, ::4, ::4].flatten(1))
    found = ours(images, noise)["loss"]
    *_, last = ours._places(images, hidden)
    torch.testing.assert_close(ours._pixels(last), answer.reconstruction, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found, answer.loss, rtol=1e-5, atol=1e-5)
    answer.loss.backward()
    found.backward()
    wanted = as_ours({n: p.grad for n, p in other.named_parameters()}, row, ours)
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


def as_timm(ours: Swin, row: SwinArchitecture, late: bool) -> dict[str, torch.Tensor]:
    """Return weights of ours by the names and in the forms of timm's Swin (microsoft's too).

    Args:
        late: merges are part of the stage before, as in its first versions.
    """
    place = [(s, b) for s, depth in enumerate(row.depths) for b in range(depth)]
    words = {
        **{"embed.": "patch_embed.proj.", "embed_norm.": "patch_embed.norm."},
        **{".attention_norm.": ".norm1.", ".mlp_norm.": ".norm2.", ".mlp.into.": ".mlp.fc1."},
        **{".mlp.out.": ".mlp.fc2.", ".attention.out.": ".attn.proj.", ".reduce.": ".reduction."},
        **{".attention.cosine.log_scale": ".attn.logit_scale", ".attention.qkv.": ".attn.qkv."},
        **{".attention.cosine.query.bias": ".attn.q_bias"},
        **{".attention.cosine.value.bias": ".attn.v_bias"},
        **{".attention.bias.into.": ".attn.cpb_mlp.0.", ".attention.bias.out.": ".attn.cpb_mlp.2."},
        **{".attention.bias.offset_token": ".attn.relative_position_bias_table"},
    }
    found = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4)}
    for name, value in ours.state_dict().items():
        kind, _, rest = name.partition(".")
        number, _, end = rest.partition(".")
        if kind == "blocks":
            stage, block = place[int(number)]
            name = f"layers.{stage}.blocks.{block}.{end}"
            if ".qkv." in name:
                heads = row.heads[stage]
                value = value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
        elif kind == "merges":
            name = f"layers.{int(number) + (not late)}.downsample.{end}"
        for word, other in words.items():
            name = (
                name.replace(word, other) if not word.startswith("embed") or kind in word else name
            )
        if name.endswith("logit_scale"):
            value = value[:, None, None]
        if name == "patch_embed.proj.weight":
            value = value.unflatten(1, (row.patch, row.patch, BANDS)).permute(0, 3, 1, 2)
        found[name] = value
    return found


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_weights_by_the_names_of_timm(name: str, late: bool) -> None:
    """Read in two parts of rows they are the same again, and nothing is left over."""
    row = architecture(name)
    ours = Swin(row, BANDS)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    foreign = ForeignSwin(as_timm(ours, row, late), row)
    for parameter, value in ours.named_parameters():
        own = f"backbone.{parameter}"
        foreign.check(own, value.shape)
        parts = slice(0, 1), slice(1, None)
        found = torch.cat([foreign.rows(own, value.shape, part) for part in parts])
        assert torch.equal(found, value), parameter
    assert not foreign.unused


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_without_images(name: str) -> None:
    """A rank of a mixture may have none; all its parameters take part."""
    made = Swin(architecture(name), BANDS)
    found = [*made.places(torch.zeros(0, BANDS, SIDE, SIDE))]
    assert [each.shape[0] for each in found] == [0] * 4
    found[-1].sum().backward()
    assert all(value.grad is not None and not value.grad.any() for value in made.parameters())
