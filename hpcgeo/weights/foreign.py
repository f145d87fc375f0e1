"""Weights of public ViTs, whichever library wrote them, as weights of ours.

A file of transformers (ViTMAE, ViT, Dinov2, with registers or without), timm, facebookresearch
(mae, dinov2) or of whoever kept their names. `RULES` bring their names to one form, `Foreign` the
values to ours, row by row: the product for q, k and v from three matrices or one, part by part
(3, H, d), to head by head (H, 3, d); the patch embedding from a convolution (W, C, p, p) to a
matrix over (p, p, C), and to another size of patches; the position of the class token, which is
always added to it, into the class token. Of positions of several dates the first are taken.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.models.positions import sincos_2d
from hpcgeo.zoo import Architecture

#: How a model is called inside of another one.
WRAPPERS = (
    "module.",
    "_orig_mod.",
    "model.",
    "teacher.",
    "backbone.",
    "vit.",
    "dinov2.",
    "encoder.",
)

#: Their names -> one form of them, in which blocks are ours and values are not. In this order.
RULES = (
    (r"^embeddings\.", ""),
    (r"^decoder\.(?=mask_token|decoder_)", ""),
    (r"^cls_token$", "class_token"),
    (r"^position_embeddings$|^pos_embed$", "positions"),
    (r"^(register_tokens|reg_token)$", "register_token"),
    (r"^(patch_embeddings\.projection|patch_embed\.proj)\.", "embed."),
    (r"^layernorm\.", "norm."),
    (r"^(layer|layers|blocks)\.(\d+)\.(?:\d+\.(?=\D))?", r"blocks.\2."),
    (r"^decoder_(encoder\.layer|layers|blocks)\.(\d+)\.", r"decoder_blocks.\2."),
    (r"^decoder_pred\.", "predict."),
    (r"\.(layernorm_before|norm1)\.", ".attention_norm."),
    (r"\.(layernorm_after|norm2)\.", ".mlp_norm."),
    (r"\.attention\.(attention\.query|q_proj)\.", ".attention.q."),
    (r"\.attention\.(attention\.key|k_proj)\.", ".attention.k."),
    (r"\.attention\.(attention\.value|v_proj)\.", ".attention.v."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attention.out."),
    (r"\.attn\.proj\.", ".attention.out."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
    (r"\.(intermediate\.dense|mlp\.fc1|mlp\.up_proj)\.", ".mlp.into."),
    (r"\.(output\.dense|mlp\.fc2|mlp\.w3|mlp\.weights_out|mlp\.down_proj)\.", ".mlp.out."),
    (r"\.mlp\.(w12|weights_in)\.", ".mlp.both."),
    (r"\.mlp\.gate_proj\.", ".mlp.gate."),
    (r"\.(ls1\.gamma|layer_scale1\.lambda1)$", ".attention_scale.weight"),
    (r"\.(ls2\.gamma|layer_scale2\.lambda1)$", ".mlp_scale.weight"),
)
#: Of the weights that a file may hold beside those of a model, what needs no word: fixed positions.
SILENT = ("decoder_pos_embed",)
#: Fixed positions in a file equal ours to this.
CLOSE = 1e-4


def plain_name(name: str) -> str:
    """Return the one form of a name of any library.

    >>> plain_name("vit.encoder.layer.3.attention.attention.query.bias")
    'blocks.3.attention.q.bias'
    """
    while wrapped := next((word for word in WRAPPERS if name.startswith(word)), ""):
        name = name.removeprefix(wrapped)
    for theirs, ours in RULES:
        name = re.sub(theirs, ours, name)
    return name


class Foreign:
    """The weights of a public file as those of one of our models.

    Attributes:
        unused: names in the file, in their one form, that no weight was taken from.
    """

    def __init__(self, tensors: Mapping[str, Any], architecture: Architecture) -> None:
        """Take tensors by their names, or what gives a tensor when it is sliced."""
        self._theirs: dict[str, Any] = {}
        named: dict[str, str] = {}
        for name, value in tensors.items():
            if (other := named.setdefault(plain_name(name), name)) != name:
                raise InputError(
                    f"weights {other!r} and {name!r} are both {plain_name(name)!r}: the file holds "
                    f"two models; leave one of them out"
                )
            self._theirs[plain_name(name)] = value
        self._architecture = architecture
        self.unused = set(self._theirs) - set(SILENT)

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a weight of ours that the file lacks, or has in another shape.

        Raises:
            InputError: the message names it.
        """
        parts = self._parts(name)
        for part in parts:
            if part not in self._theirs:
                raise InputError(f"no weight {part!r} in the file (for {name})")
        if self._shape(name, parts) != tuple(shape):
            raise InputError(
                f"weight {parts[0]!r} has shape {shape_of(self._theirs[parts[0]])}, which does not "
                f"fit {name} {tuple(shape)}: choose the model of the same size and bands"
            )
        self.unused -= set(parts)
        if name == "backbone.class_token" and "positions" in self._theirs:
            self._check_positions()

    def rows(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        """Return rows of one of our weights, float32, reading those rows alone."""
        first, last, _ = rows.indices(shape[0])
        values = [self._theirs[part] for part in self._parts(name)]
        word = name.removeprefix("backbone.")
        if word == "class_token":
            found = values[0][:].reshape(-1).float() + self._class_position(shape[0])
        elif word == "position_token":
            found = values[0][:].reshape(-1, shape[1])[self._has_class :][: shape[0]]
        elif word.endswith("_token"):
            found = values[0][:].reshape(*shape)
        elif ".qkv." in word:
            stacks = self._architecture
            stack = stacks.encoder if name.startswith("backbone.") else stacks.decoder
            return head_by_head(values, shape, stack.heads, first, last)
        elif ".both." in self._parts(name)[0]:
            start = 0 if ".gate." in word else shape[0]
            return values[0][start + first : start + last].float().contiguous()
        else:
            found = values[0][first:last].float()
            if word == "embed.weight":
                found = matrix(found, self._architecture.patch)
            return found.contiguous()
        return found[first:last].float().contiguous()

    def _parts(self, name: str) -> tuple[str, ...]:
        """Return the names, in their one form, of what a weight of ours is made from."""
        word = name.removeprefix("backbone.")
        if word == "position_token":
            return ("positions",)
        if ".qkv." in word and word not in self._theirs:
            return tuple(word.replace("qkv", part) for part in "qkv")
        both = re.sub(r"\.mlp\.(gate|into)\.", ".mlp.both.", word)
        return (both if both in self._theirs else word,)

    def _shape(self, name: str, parts: Sequence[str]) -> tuple[int, ...]:
        """Return the shape that a weight of ours would have."""
        first, *rest = shape = shape_of(self._theirs[parts[0]])
        word = name.removeprefix("backbone.")
        if word.endswith("_token"):
            if word == "position_token":
                patches, wanted = shape[-2] - self._has_class, (self._architecture.grid or 0) ** 2
                return (patches if patches % wanted else wanted), shape[-1]
            return shape[-2:] if word == "register_token" else shape[-1:]
        if word == "embed.weight":
            return first, self._architecture.patch**2 * (rest[0] if rest else 0)
        factor = len(parts) if len(parts) > 1 else 0.5 if ".both." in parts[0] else 1
        return (int(first * factor), *rest)

    @property
    def _has_class(self) -> bool:
        """Whether the positions of the file have one of the class token."""
        count, grid = shape_of(self._theirs["positions"])[-2], self._architecture.grid
        return bool(count % grid**2) if grid else math.isqrt(count) ** 2 != count

    def _class_position(self, width: int) -> Tensor:
        if "positions" not in self._theirs or not self._has_class:
            return torch.zeros(width)
        return self._theirs["positions"][:].reshape(-1, width)[0].float()

    def _check_positions(self) -> None:
        """Refuse positions of a file where the model's are fixed, and others.

        Raises:
            InputError: they are learned ones.
        """
        width = self._architecture.encoder.width
        self.unused.discard("positions")
        if self._architecture.positions == "learned":
            return
        theirs = self._theirs["positions"][:].reshape(-1, width)[self._has_class :].float()
        side = math.isqrt(len(theirs))
        ours = sincos_2d(width, (side, side), theirs.device)
        if side**2 != len(theirs) or not torch.allclose(theirs, ours, atol=CLOSE):
            raise InputError(
                f"the positions in the file are not the fixed ones of {self._architecture.name}: "
                f"choose a model whose positions are learned (`hpcgeo list weights`)"
            )


def head_by_head(
    values: Sequence[Any], shape: Sequence[int], heads: int, first: int, last: int
) -> Tensor:
    """Return rows of a product for q, k and v in our order (H, 3, d), float32.

    Args:
        values: theirs, of all three (3, H, d), or one of each.
        shape: of the product.
        heads: H.
        first, last: of the rows.
    """
    head, d = shape[0] // heads, shape[0] // heads // 3
    low, high = first // head, -(-last // head)  # heads
    if len(values) == 1:
        part = shape[0] // 3
        found = [values[0][n * part + low * d : n * part + high * d] for n in range(3)]
    else:
        found = [value[low * d : high * d] for value in values]
    rows = torch.cat(found).float()  # (3, H, d)
    rows = rows.reshape(3, high - low, d, *rows.shape[1:]).transpose(0, 1).flatten(0, 2)
    return rows[first - low * head : last - low * head].contiguous()


def converted(
    theirs: Mapping[str, Tensor], architecture: Architecture, ours: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of a model out of a state dictionary of another library.

    Args:
        theirs: of a ViT of any of them.
        architecture: of the model.
        ours: the state dictionary of the model to fill, for its names and shapes.

    Raises:
        InputError: a weight is missing or has another shape; the message names it.
    """
    foreign = Foreign(theirs, architecture)
    for name, value in ours.items():
        foreign.check(name, value.shape)
    return {name: foreign.rows(name, value.shape, slice(None)) for name, value in ours.items()}


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of a tensor, or of a slice of a file."""
    return tuple(value.get_shape() if hasattr(value, "get_shape") else value.shape)


def matrix(kernels: Tensor, patch: int) -> Tensor:
    """Return kernels (rows, C, p, p), or (rows, C, 1, p, p), as a matrix (rows, patch patch C)."""
    side = kernels.shape[-1]
    kernels = kernels.reshape(*kernels.shape[:2], side, side)
    if side != patch:
        kernels = resized_kernels(kernels, patch)
    return kernels.permute(0, 2, 3, 1).flatten(1)


def resized_kernels(kernels: Tensor, patch: int) -> Tensor:
    """Return kernels (..., p, p) for patches of another size that say the same of resized images.

    Those nearest, over all patches, to the old ones on a patch brought to their size (FlexiViT,
    arXiv 2212.08013, equation 4): by the pseudo-inverse of that resizing.
    """
    old = kernels.shape[-1]
    basis = torch.eye(old**2).reshape(old**2, 1, old, old)
    resize = F.interpolate(basis, (patch, patch), mode="bicubic", antialias=True)  # as timm
    back = torch.linalg.pinv(resize.flatten(1).T.double())  # (p p, patch patch)
    found = (kernels.double().flatten(-2) @ back).float()
    return found.reshape(*kernels.shape[:-2], patch, patch)
