"""Public ViTs as ours: the features that their own libraries compute, at any size of images."""

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from hpcgeo.errors import InputError
from hpcgeo.models.patches import patchify
from hpcgeo.models.positions import resized, sincos_2d
from hpcgeo.models.vit import ViT
from hpcgeo.stacks import Stack
from hpcgeo.weights.foreign import Foreign, converted, resized_kernels
from hpcgeo.weights.initial import Start, opened
from hpcgeo.zoo import Architecture

transformers.logging.disable_progress_bar()
PATCH, GRID = 8, 4
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": PATCH * GRID,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
}
PEERS: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "vit": (ViTModel, ViTConfig, {"intermediate_size": 128}, {}),
    "mae": (ViTMAEModel, ViTMAEConfig, {"intermediate_size": 128, "mask_ratio": 0.0}, {}),
    "dinov2": (Dinov2Model, Dinov2Config, {}, {"layer_scale": True}),
    "dinov2, gated": (
        Dinov2Model,
        Dinov2Config,
        {"use_swiglu_ffn": True},
        {"layer_scale": True, "mlp": "gated", "hidden": 88},
    ),
    "dinov2, registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig,
        {"num_register_tokens": 3},
        {"layer_scale": True},
    ),
}


def architecture(registers: int = 0, **stack: Any) -> Architecture:
    return Architecture(
        "peer",
        Stack(**{"width": 32, "depth": 3, "heads": 4, "hidden": 128} | stack),
        patch=PATCH,
        source="test",
        positions="learned",
        grid=GRID,
        registers=registers,
        antialias=bool(registers),
    )


def peer(name: str) -> tuple[nn.Module, Architecture]:
    """Return a model of transformers with numbers everywhere, and its architecture."""
    kind, config, more, stack = PEERS[name]
    model = kind(config(**SIZES, **more)).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    return model, architecture(more.get("num_register_tokens", 0), **stack)


def ours(theirs: dict[str, Tensor], model: Architecture) -> ViT:
    vit = ViT(model, 3)
    names = {f"backbone.{name}": value for name, value in vit.state_dict().items()}
    found = converted(theirs, model, names)
    vit.load_state_dict({name.removeprefix("backbone."): v for name, v in found.items()})
    return vit.eval()


@torch.no_grad()
@pytest.mark.parametrize("side", [GRID, 6, 3])
@pytest.mark.parametrize("name", PEERS)
def test_features_equal_transformers(name: str, side: int, tmp_path: Path) -> None:
    theirs, model = peer(name)
    images = torch.randn(2, 3, side * PATCH, side * PATCH)
    more = {"interpolate_pos_encoding": True} if name in ("vit", "mae") else {}
    if name == "mae":
        more["noise"] = torch.arange(side**2).expand(2, -1)
    expected = theirs(pixel_values=images, **more).last_hidden_state
    theirs.save_pretrained(tmp_path)
    for weights in (theirs.state_dict(), opened(tmp_path)):  # as in memory, and as published
        vit = ours(weights, model)
        found = vit(patchify(images, PATCH), vit.positions((side, side), images.device))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_blocks_equal_hidden_states() -> None:
    theirs, model = peer("dinov2")
    images = torch.randn(2, 3, 32, 32)
    states = theirs(pixel_values=images, output_hidden_states=True).hidden_states
    vit = ours(theirs.state_dict(), model)
    found = vit.after(patchify(images, PATCH), vit.positions((4, 4), images.device), [3, 0, 1])
    for block, each in zip([3, 0, 1], found, strict=True):
        expected = theirs.layernorm(states[block])
        torch.testing.assert_close(each, expected, atol=1e-5, rtol=1e-5)


def facebook(name: str) -> str:
    """Return what facebookresearch and timm call a weight of transformers."""
    for word, other in (
        ("patch_embeddings.projection", "patch_embed.proj"),
        ("position_embeddings", "pos_embed"),
        ("embeddings.", ""),
        ("encoder.layer.", "blocks."),
        ("attention.o_proj", "attn.proj"),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("layernorm", "norm"),
    ):
        name = name.replace(word, other)
    return name


@torch.no_grad()
@pytest.mark.parametrize("wrapped", ["", "module.", "backbone."])
def test_names_of_facebookresearch_and_timm_are_known(wrapped: str, tmp_path: Path) -> None:
    """One product for q, k and v; a pickle of `torch.save`, as published."""
    theirs, model = peer("dinov2")
    state = theirs.state_dict()
    written = {}
    for name, value in state.items():
        if ".q_proj." in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name, value = name.replace("attention.q_proj", "attn.qkv"), torch.cat(parts)
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        written[wrapped + facebook(name)] = value
    path = tmp_path / "pretrain.pth"
    torch.save({"model": written, "args": Namespace(lr=1.0), "epoch": 3}, path)
    found, expected = ours(opened(path), model), ours(state, model)
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_what_was_not_used_is_known() -> None:
    theirs, model = peer("dinov2")
    foreign = Foreign(theirs.state_dict() | {"head.weight": torch.zeros(5, 32)}, model)
    for name, value in ViT(model, 3).named_parameters():
        foreign.check(f"backbone.{name}", value.shape)
    assert foreign.unused == {"head.weight", "mask_token"}


def test_learned_positions_are_none_for_fixed_ones() -> None:
    theirs, _ = peer("vit")
    fixed = Architecture("fixed", Stack(32, 3, 4, 128), patch=PATCH, source="test")
    with pytest.raises(InputError, match="not the fixed ones of fixed: choose a model whose"):
        ours(theirs.state_dict(), fixed)
    state = theirs.state_dict()
    positions = torch.cat([torch.zeros(1, 32), sincos_2d(32, (4, 4), torch.device("cpu"))])
    ours(state | {"embeddings.position_embeddings": positions[None]}, fixed)


def test_positions_of_several_dates_are_those_of_the_first() -> None:
    theirs, model = peer("vit")
    state = theirs.state_dict()
    more = torch.cat([state["embeddings.position_embeddings"], torch.randn(1, 2 * GRID**2, 32)], 1)
    kernels = state["embeddings.patch_embeddings.projection.weight"]  # of several dates too
    name = "embeddings.patch_embeddings.projection.weight"
    found = ours(state | {"embeddings.position_embeddings": more, name: kernels[:, :, None]}, model)
    for name, value in ours(state, model).state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.parametrize("patch", [4, 8, 12, 16])
def test_larger_patches_say_the_same_of_larger_images(patch: int) -> None:
    """FlexiViT: what larger kernels say of enlarged patches is what the old ones said."""
    kernels, patches = torch.randn(5, 3, 8, 8), torch.randn(7, 3, 8, 8)
    found = resized_kernels(kernels, patch)
    assert found.shape == (5, 3, patch, patch)
    if patch >= 8:
        large = F.interpolate(patches, (patch, patch), mode="bicubic", antialias=True)
        said = torch.einsum("nchw,ochw->no", large, found)
        torch.testing.assert_close(
            said, torch.einsum("nchw,ochw->no", patches, kernels), atol=1e-4, rtol=1e-4
        )


def test_fixed_positions_lie_where_patches_lie() -> None:
    """On a grid twice as fine, the mean of a patch's four places is its own, and ends are cut."""
    whole = sincos_2d(8, (2, 2), torch.device("cpu"))
    assert torch.equal(whole, sincos_2d(8, (2, 2), torch.device("cpu"), (2, 2)))
    fine = sincos_2d(8, (4, 4), torch.device("cpu"), (2, 2)).reshape(4, 4, 8)
    places = [-0.25, 0.25, 0.75, 1.25]  # of columns: the first number is the sine of frequency 1
    for column, place in enumerate(places):
        assert math.isclose(float(fine[0, column, 0]), math.sin(place), abs_tol=1e-6)
    learned = torch.randn(9, 6)
    assert resized(learned, (3, 3), antialias=True) is learned
    assert resized(learned, (2, 5), antialias=False).shape == (10, 6)


def test_a_pickle_that_is_more_than_tensors_is_refused(tmp_path: Path) -> None:
    class Malice:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run",))

    torch.save({"model": Malice()}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"bad\.pth: cannot be read as tensors alone"):
        opened(tmp_path / "bad.pth")
    assert not (tmp_path / "run").exists()
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match="no tensors by name"):
        opened(tmp_path / "empty.pth")
    itself: dict[str, Any] = {"x": torch.zeros(1)}
    itself["model"] = itself
    torch.save(itself, tmp_path / "itself.pth")
    assert list(opened(tmp_path / "itself.pth")) == ["x"]
    torch.save({0: torch.zeros(1)}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="no tensors by name"):
        opened(tmp_path / "numbers.pth")
    torch.save({"x": torch.ones(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert opened(tmp_path / "old.pth")["x"] == 1
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no weight 'class_token'"):
        Start(tmp_path / "other.safetensors", architecture(), {"backbone.class_token": (32,)})


def test_a_file_of_two_models_is_refused() -> None:
    tensors = {"norm.weight": torch.ones(4), "teacher.norm.weight": torch.zeros(4)}
    with pytest.raises(InputError, match=r"'norm\.weight' and 'teacher\.norm\.weight' are both"):
        Foreign(tensors, architecture())
