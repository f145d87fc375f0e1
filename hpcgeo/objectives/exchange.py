"""MAE weights under the names of `transformers`' ViTMAEForPreTraining files, and back.

Besides names two things differ: there q, k and v are three matrices (here one, with rows in the
order of heads), and the patch embedding is a convolution with kernel (W, C, p, p) (here a matrix
over (p, p, C)). Positions are fixed in both, but stand in their files.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.models.positions import sincos_2d
from hpcgeo.zoo import Architecture

#: Ours -> theirs outside the blocks.
OUTSIDE = {
    "mask_token": "decoder.mask_token",
    "encoder.class_token": "vit.embeddings.cls_token",
    "encoder.embed": "vit.embeddings.patch_embeddings.projection",
    "encoder.norm": "vit.layernorm",
    "decoder_embed": "decoder.decoder_embed",
    "decoder_norm": "decoder.decoder_norm",
    "predict": "decoder.decoder_pred",
}
#: Ours -> theirs: the blocks, and the modules within one.
STACKS = {"encoder.blocks": "vit.encoder.layer", "decoder_blocks": "decoder.decoder_layers"}
INSIDE = {
    "attention_norm": ["layernorm_before"],
    "attention.qkv": [f"attention.attention.{part}" for part in ("query", "key", "value")],
    "attention.out": ["attention.output.dense"],
    "mlp_norm": ["layernorm_after"],
    "mlp.into": ["intermediate.dense"],
    "mlp.out": ["output.dense"],
}
#: Newer releases write other names: theirs, newer -> as published.
NEWER = {
    r"^vit\.layers\.": "vit.encoder.layer.",
    r"^decoder\.decoder_encoder\.layer\.": "decoder.decoder_layers.",
    r"\.attention\.q_proj\.": ".attention.attention.query.",
    r"\.attention\.k_proj\.": ".attention.attention.key.",
    r"\.attention\.v_proj\.": ".attention.attention.value.",
    r"\.attention\.o_proj\.": ".attention.output.dense.",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}


def to_transformers(
    weights: Mapping[str, Tensor], architecture: Architecture, grid: tuple[int, int]
) -> dict[str, Tensor]:
    """Return the weights of an MAE with plain MLPs under transformers' names.

    Args:
        weights: the state dictionary of an MAE.
        architecture: of the MAE.
        grid: patches of a chip (rows, columns), for the position embeddings.
    """
    theirs: dict[str, Tensor] = {}
    for name, value in weights.items():
        targets = _targets(name)
        if name == "encoder.embed.weight":
            value = value.reshape(len(value), architecture.patch, architecture.patch, -1)
            value = value.permute(0, 3, 1, 2)
        if ".qkv." in name:
            value = _by_part(value, _heads(name, architecture))
        if name.endswith("_token"):
            value = value.reshape(1, 1, -1)
        for target, part in zip(targets, value.chunk(len(targets)), strict=True):
            theirs[target] = part.contiguous()
    for token, target in (
        ("encoder.class_token", "vit.embeddings.position_embeddings"),
        ("mask_token", "decoder.decoder_pos_embed"),
    ):
        width = len(weights[token])
        positions = sincos_2d(width, grid, weights[token].device)
        theirs[target] = torch.cat([positions.new_zeros(1, width), positions])[None]
    return theirs


def from_transformers(
    theirs: Mapping[str, Tensor], architecture: Architecture, names: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return weights for an MAE from a transformers state dictionary.

    Args:
        theirs: of a ViTMAEForPreTraining; position embeddings in it are ignored.
        architecture: of the MAE.
        names: the state dictionary of the MAE to fill, for its names and shapes.

    Raises:
        InputError: a weight is missing or has another shape; the message names it.
    """
    known = {_published(name): value for name, value in theirs.items()}
    weights = {}
    for name, mine in names.items():
        targets = _targets(name)
        missing = [target for target in targets if target not in known]
        if missing:
            raise InputError(f"no weight {missing[0]!r} in the file (for {name})")
        value = torch.cat([known[target] for target in targets])
        if name == "encoder.embed.weight":
            value = value.permute(0, 2, 3, 1)
        if ".qkv." in name:
            value = _by_head(value, _heads(name, architecture))
        if value.numel() != mine.numel():
            raise InputError(
                f"weight {targets[0]!r} has shape {tuple(known[targets[0]].shape)}, which does not "
                f"fit {name} {tuple(mine.shape)}: choose the model of the same size and bands"
            )
        weights[name] = value.reshape(mine.shape).contiguous()
    return weights


def _heads(name: str, architecture: Architecture) -> int:
    stack = architecture.encoder if name.startswith("encoder.") else architecture.decoder
    return stack.heads


def _by_part(rows: Tensor, heads: int) -> Tensor:
    """Return the rows (H, 3, d) of a product for q, k and v in the order (3, H, d)."""
    return rows.reshape(heads, 3, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)


def _by_head(rows: Tensor, heads: int) -> Tensor:
    """Return the rows (3, H, d) of a product for q, k and v in the order (H, 3, d)."""
    return rows.reshape(3, heads, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)


def _targets(name: str) -> list[str]:
    """Return the published names of one of our parameters."""
    if name in OUTSIDE:
        return [OUTSIDE[name]]
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return [f"{OUTSIDE[module]}.{kind}"]
    for ours, theirs in STACKS.items():
        if module.startswith(f"{ours}."):
            number, _, inside = module.removeprefix(f"{ours}.").partition(".")
            return [f"{theirs}.{number}.{part}.{kind}" for part in INSIDE[inside]]
    raise ValueError(f"no published name for {name}")


def _published(name: str) -> str:
    for newer, published in NEWER.items():
        name = re.sub(newer, published, name)
    return name
