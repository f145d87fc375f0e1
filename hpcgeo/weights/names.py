"""MAE weights under the names of other libraries; `hpcgeo.weights.foreign` brings them back.

Besides names, three things differ there: rows of the product for q, k and v stand part by part
(3, H, d), in transformers as three matrices (here head by head, (H, 3, d)); the patch embedding is
a convolution with kernel (W, C, p, p) (here a matrix over (p, p, C)); positions, fixed in ours,
stand in their files.

Every conversion is of one weight and moves values only, so it also runs on meta tensors: the
shapes of a file are known before a weight is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.models.positions import sincos_2d
from hpcgeo.stacks import Stack
from hpcgeo.zoo import Architecture


@dataclass(frozen=True)
class Names:
    """Ours -> theirs: what stands outside the blocks, the piles of blocks, and within a block.

    A weight that becomes several has several names. `positions` names those of encoder and
    decoder. What does not begin like `only` has no place there.
    """

    title: str
    outside: Mapping[str, str]
    stacks: Mapping[str, str]
    inside: Mapping[str, tuple[str, ...]]
    positions: Mapping[str, str]
    only: str = ""

    def of(self, name: str) -> tuple[str, ...]:
        """Return their names of one of our weights; none where it has no place there.

        Raises:
            InputError: the weight is of a part that they do not have.
        """
        if not name.startswith(self.only):
            return ()
        if name in self.outside:
            return (self.outside[name],)
        module, _, kind = name.rpartition(".")
        if module in self.outside:
            return (f"{self.outside[module]}.{kind}",)
        for ours, theirs in self.stacks.items():
            if module.startswith(f"{ours}."):
                number, _, inside = module.removeprefix(f"{ours}.").partition(".")
                parts = self.inside.get(inside, ())
                if parts:
                    return tuple(f"{theirs}.{number}.{part}.{kind}" for part in parts)
        raise InputError(
            f"{self.title} has no {name}: it knows no gated MLP; `hpcgeo export --to safetensors` "
            f"keeps our names"
        )


#: ViTMAEForPreTraining, as published; newer releases read these names too.
TRANSFORMERS = Names(
    title="transformers' ViTMAE",
    outside={
        "mask_token": "decoder.mask_token",
        "backbone.class_token": "vit.embeddings.cls_token",
        "backbone.embed": "vit.embeddings.patch_embeddings.projection",
        "backbone.norm": "vit.layernorm",
        "decoder_embed": "decoder.decoder_embed",
        "decoder_norm": "decoder.decoder_norm",
        "predict": "decoder.decoder_pred",
    },
    stacks={"backbone.blocks": "vit.encoder.layer", "decoder_blocks": "decoder.decoder_layers"},
    inside={
        "attention_norm": ("layernorm_before",),
        "attention.qkv": (
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ),
        "attention.out": ("attention.output.dense",),
        "mlp_norm": ("layernorm_after",),
        "mlp.into": ("intermediate.dense",),
        "mlp.out": ("output.dense",),
    },
    positions={
        "encoder": "vit.embeddings.position_embeddings",
        "decoder": "decoder.decoder_pos_embed",
    },
)
#: VisionTransformer, which is the encoder alone. Its constructor takes another MLP as a class, so
#: a configuration in JSON cannot ask for the gated one.
TIMM = Names(
    title="timm's VisionTransformer",
    outside={
        "backbone.class_token": "cls_token",
        "backbone.embed": "patch_embed.proj",
        "backbone.norm": "norm",
    },
    stacks={"backbone.blocks": "blocks"},
    inside={
        "attention_norm": ("norm1",),
        "attention.qkv": ("attn.qkv",),
        "attention.out": ("attn.proj",),
        "mlp_norm": ("norm2",),
        "mlp.into": ("mlp.fc1",),
        "mlp.out": ("mlp.fc2",),
    },
    positions={"encoder": "pos_embed"},
    only="backbone.",
)


def convert(
    name: str, value: Tensor, architecture: Architecture, names: Names
) -> dict[str, Tensor]:
    """Return one of our weights under their names, in their shapes.

    Args:
        name: of a weight of an MAE that has a place there.
        value: the weight, whole; it may be on the meta device.
        architecture: of the MAE.
        names: theirs.

    Raises:
        InputError: they have no such weight.
    """
    targets = names.of(name)
    if name == "backbone.embed.weight":
        value = value.reshape(len(value), architecture.patch, architecture.patch, -1)
        value = value.permute(0, 3, 1, 2)  # (W, C, p, p)
    if ".qkv." in name:
        value = _by_part(value, _stack(name, architecture).heads)
    if name.endswith("_token"):
        value = value.reshape(1, 1, -1)
    return dict(zip(targets, value.chunk(len(targets)), strict=True))


def positions(architecture: Architecture, grid: tuple[int, int], names: Names) -> dict[str, Tensor]:
    """Return the positions under their names, (1, 1 + N, W) each; the class token has none.

    Args:
        grid: patches of a chip (rows, columns).
    """
    theirs = {}
    for stack, target in names.positions.items():
        width = getattr(architecture, stack).width
        patches = sincos_2d(width, grid, torch.device("cpu"))
        theirs[target] = torch.cat([patches.new_zeros(1, width), patches])[None]
    return theirs


def _stack(name: str, architecture: Architecture) -> Stack:
    return architecture.encoder if name.startswith("backbone.") else architecture.decoder


def _by_part(rows: Tensor, heads: int) -> Tensor:
    """Return the rows (H, 3, d) of a product for q, k and v in the order (3, H, d)."""
    return rows.reshape(heads, 3, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)
