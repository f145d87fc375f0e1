"""Closed forms against the real modules, and the zoo against the published counts."""

import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hpcgeo.errors import InputError
from hpcgeo.models import attention
from hpcgeo.models.layers import TransformerBlock
from hpcgeo.models.perceiver import Perceiver
from hpcgeo.models.ragged import packed
from hpcgeo.models.vit import ViT
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions, forms
from hpcgeo.parallel.recompute import recompute
from hpcgeo.stacks import Stack
from hpcgeo.zoo import Architecture, PerceiverArchitecture, architecture, models, perceivers

TEST_SIZE = ["vit_tiny", "vit_small", "vit_tiny_gated"]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("bands", [3, 13])
def test_parameters_equal_the_modules(name: str, bands: int) -> None:
    model = architecture(name)
    with torch.device("meta"):
        assert model.parameters(bands) == count(ViT(model, bands))
        assert forms(model, bands, (224, 224), 0.75).parameters == count(
            MAE(model, bands, MaeOptions())
        )
    head = nn.Linear(model.encoder.width, 1000, device="meta")
    assert model.parameters(bands, classes=1000) == model.parameters(bands) + count(head)


#: Millions of parameters of the classifiers of arXiv 2404.11706: as printed for the gated family,
#: and what a plain MLP of the paper's table would give.
PUBLISHED = {
    "base": (87.03, 86.6),
    "huge": (635.4, 632),
    "1b": (914.3, 909),
    "3b": (3067.4, 3051),
    "5b": (5349.5, 3807),
    "15b": (14720.4, 14644),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_counts(size: str) -> None:
    """Ours plus what the study's classifier has and MAE's encoder has not."""
    gated_m, plain_m = PUBLISHED[size]
    for name, published in ((f"vit_{size}_gated", gated_m), (f"vit_{size}", plain_m)):
        total = classifier_parameters(architecture(name))
        digits = len(str(published).partition(".")[2])
        assert round(total / 1e6, digits) == pytest.approx(published, abs=1.1 * 10**-digits), name


def classifier_parameters(model: Architecture) -> int:
    """Return the parameters of the study's classifier."""
    W, L = model.encoder.width, model.encoder.depth
    positions = (model.num_patches((224, 224)) + 1) * W
    total = model.parameters(3, classes=1000) + positions
    if model.encoder.mlp == "gated":  # norms of q and k per head, and around the patch embedding
        total += L * 2 * 2 * (W // model.encoder.heads) + 2 * model.patch**2 * 3 + 2 * W
    return total


@pytest.mark.parametrize("name", TEST_SIZE)
@pytest.mark.parametrize("chip", [(32, 32), (32, 64)])
def test_flops_equal_what_the_counter_counts(
    name: str, chip: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The counter does not know the fused kernel of a CPU.
    monkeypatch.setattr(attention, "PLAIN_UP_TO", {torch.float32: 10**9})
    model = architecture(name)
    mae = MAE(model, 5, MaeOptions())
    images = torch.randn(2, 5, *chip)
    patches = model.num_patches(chip)
    with FlopCounterMode(display=False) as forward:
        loss = mae(images, torch.rand(2, patches))["loss"]
    assert forward.get_total_flops() == 2 * forms(model, 5, chip, 0.75).forward_flops
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    # Twice the forward, less the gradient of the pixels, which nobody wants.
    embedding = 2 * model.num_visible(chip, 0.75) * model.patch**2 * 5 * model.encoder.width
    assert backward.get_total_flops() == 2 * (
        2 * forms(model, 5, chip, 0.75).forward_flops - embedding
    )

    head = nn.Linear(model.encoder.width, 7)
    with FlopCounterMode(display=False) as encoder:
        pixels = torch.randn(2, patches, model.patch**2 * 5)
        tokens = ViT(model, 5)(pixels, torch.zeros(patches, 1))
    with FlopCounterMode(display=False) as classifier:
        head(tokens[:, 0])
    assert encoder.get_total_flops() == 2 * model.forward_flops(5, chip)
    both = encoder.get_total_flops() + classifier.get_total_flops()
    assert both == 2 * model.forward_flops(5, chip, classes=7)


def tensors() -> list[torch.Tensor]:
    """Return the tensors that Python holds."""
    return [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]


@pytest.mark.parametrize("mlp", ["plain", "gated"])
@pytest.mark.parametrize("how", ["none", "full", "selective", 2])
def test_activation_bytes_equal_what_is_kept(
    mlp: Any, how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PLAIN_UP_TO", {})  # the fused kernel, as on a GPU
    stack = Stack(width=64, depth=3, heads=4, hidden=96, mlp=mlp)
    blocks = nn.Sequential(*(TransformerBlock(stack) for _ in range(stack.depth)))
    for parameter in blocks.parameters():
        nn.init.normal_(parameter)
    recompute(blocks, how)
    measured = kept_bytes(blocks, torch.randn(2, 17, 64, requires_grad=True), how)
    assert measured == 2 * stack.activation_bytes(tokens=17, dtype_bytes=4, recompute=how)


@pytest.mark.parametrize("mlp", ["plain", "gated"])
@pytest.mark.parametrize("how", ["none", "full", "selective", 2])
def test_activation_bytes_of_a_perceiver_equal_what_is_kept(
    mlp: Any, how: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PLAIN_UP_TO", {})
    stack = Stack(width=64, depth=4, heads=4, hidden=96, mlp=mlp)
    row = PerceiverArchitecture("row", stack, latents=9, context=24, source="test")
    lengths, model = [17, 30, 5], Perceiver(row)
    layout = packed(lengths)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    for units in model.stacks():
        recompute(units, how)
    tokens = torch.randn(sum(lengths), row.context, requires_grad=True)
    measured = kept_bytes(lambda x: model(x, layout), tokens, how)
    assert measured == row.activation_bytes(lengths, dtype_bytes=4, recompute=how)


def kept_bytes(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, how: Any) -> int:
    """Return the bytes kept of x, and of what the model makes of it, for its backward."""
    gc.collect()
    known = {tensor.untyped_storage().data_ptr() for tensor in tensors() if tensor is not x}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known and tensor.numel() > 1:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = model(x)
    loss = y.sum()
    keep(x)
    del y
    if how != "none":  # what recompute holds are tensors of Python, what autograd holds are not
        for tensor in tensors():
            keep(tensor)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in saved.values())


def test_what_tensor_parallelism_shares() -> None:
    stack = Stack(width=64, depth=3, heads=4, hidden=96, mlp="plain")
    for how in ("none", "full", "selective"):
        whole = stack.activation_bytes(16, 2, recompute=how)
        assert stack.activation_bytes(16, 2, recompute=how, tensor=1) == whole
        half = stack.activation_bytes(16, 2, recompute=how, tensor=2)
        assert whole / 2 <= half < whole
    with pytest.raises(InputError, match=r"parallel.tensor 3 .* vit_tiny .* one of 1, 2, 4"):
        architecture("vit_tiny").refuse_cut(3)
    architecture("vit_15b").refuse_cut(16)


@pytest.mark.parametrize("name", perceivers())
def test_parameters_of_a_perceiver_equal_the_modules(name: str) -> None:
    model = architecture(name)
    with torch.device("meta"):
        assert model.parameters == count(Perceiver(model))
    # Heads are cut by tensor parallelism; the kernel for samples of any length wants multiples.
    assert model.stack.width % model.stack.heads == 0
    assert model.stack.width // model.stack.heads % 8 == 0


@pytest.mark.parametrize("name", ["gpna_tiny", "gpna_small"])
def test_flops_of_a_perceiver_equal_what_the_counter_counts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "PLAIN_UP_TO", {torch.float32: 10**9})
    row, lengths = architecture(name), [17, 300, 40]
    model, tokens = Perceiver(row), torch.randn(sum(lengths), row.context, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        latents = model(tokens, packed(lengths))
    assert forward.get_total_flops() == row.forward_flops(lengths)
    with FlopCounterMode(display=False) as backward:
        latents.sum().backward()
    assert backward.get_total_flops() == 2 * row.forward_flops(lengths)


def test_what_tensor_parallelism_shares_of_a_perceiver() -> None:
    row = architecture("gpna_tiny")
    for how in ("none", "selective"):
        whole = row.activation_bytes([16, 40], 2, recompute=how)
        assert whole / 2 < row.activation_bytes([16, 40], 2, recompute=how, tensor=2) < whole
    with pytest.raises(InputError, match=r"parallel.tensor 3 .* gpna_tiny: choose one of 1, 2, 4"):
        row.refuse_cut(3)


def test_bad_input_names_value_rule_and_way_out() -> None:
    with pytest.raises(InputError, match=r"unknown model 'vit_bse' \(did you mean 'vit_base'\?\)"):
        architecture("vit_bse")
    with pytest.raises(InputError, match=r"'gpna_bse' .* known: vit_nano, .*give a YAML file"):
        architecture("gpna_bse")
    with pytest.raises(InputError, match=r"chip 225 x 224 .* 16-pixel patch .* \[240, 224\]"):
        architecture("vit_base").num_patches((225, 224))
    with pytest.raises(InputError, match="leaves none of 4 patches visible"):
        architecture("vit_tiny").num_visible((16, 16), 0.9)


OWN = {
    "perceiver": "{family: perceiver, stack: {width: 32, depth: 1, heads: 2, hidden: 64}, "
    "latents: 4, context: 20, source: test}",
    "vit": "{family: vit, encoder: {width: 32, depth: 1, heads: 2, hidden: 64}, patch: 4, "
    "source: test}",
}


@pytest.mark.parametrize("family", OWN)
def test_a_file_of_the_users_own(family: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(OWN[family])
    model = architecture(str(file))
    assert (model.name, model.family, model.source) == ("mine", family, "test")
    if family == "vit":
        assert model.decoder == architecture("vit_base").decoder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "model .*mine.yaml: No such file"),
        ("[1]", r"family None: choose vit or swin or perceiver"),
        (
            OWN["vit"].replace("family: vit", "family: cnn"),
            "family 'cnn': choose vit or swin or perceiver",
        ),
        (OWN["vit"].replace("heads: 2", "heads: 3"), "encoder = .*: width 32 is no multiple of 3"),
        (OWN["vit"].replace("patch: 4", "patch: 4.0"), r"mine.yaml: patch = 4.0: .* valid integer"),
        (OWN["vit"].replace("patch: 4, ", ""), r"mine.yaml: patch is missing"),
        (OWN["vit"].replace("patch", "pitch"), r"unknown key 'pitch'"),
        (OWN["perceiver"].replace("heads: 2", "heads: 8"), r"heads are 4 wide: .* multiples of 8"),
    ],
)
def test_a_file_that_is_no_model(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=said):
        architecture(str(file))


def test_families_differ_in_the_mlp_alone() -> None:
    for name, model in models().items():
        if model.source in ("test", "vit", "study", "run"):
            assert model.encoder.mlp == ("gated" if name.endswith("_gated") else "plain")
        assert model.encoder.width % 4 == 0 and model.encoder.width % model.encoder.heads == 0
        assert math.isclose(model.decoder.hidden, 4 * model.decoder.width)
