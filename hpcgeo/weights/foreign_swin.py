"""Weights of public Swins, of transformers, timm or microsoft, as weights of ours.

As `hpcgeo.weights.foreign` for ViTs: `RULES` bring their names to one form, blocks of stages become
one row of blocks, the product for q, k and v is ordered head by head. timm's later versions count
the merge before a stage to it, all others to the stage before.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.swin import SwinArchitecture
from hpcgeo.weights.foreign import head_by_head, matrix, shape_of

WRAPPERS = r"^(module|_orig_mod|model|teacher|backbone|swin|swinv2|encoder)\."

#: Their names -> one form of them. In this order.
RULES = (
    (r"^embeddings\.norm\.|^patch_embed\.norm\.", "embed_norm."),
    (r"^embeddings\.", ""),
    (r"^(patch_embeddings\.projection|patch_embed\.proj)\.", "embed."),
    (r"^layernorm\.", "norm."),
    (r"\.(layernorm_before|norm1)\.", ".attention_norm."),
    (r"\.(layernorm_after|norm2)\.", ".mlp_norm."),
    (r"\.attention\.self\.|\.attn\.", ".attention."),
    (r"\.attention\.(output\.dense|o_proj|proj)\.", ".attention.out."),
    (r"\.(intermediate\.dense|mlp\.fc1)\.", ".mlp.into."),
    (r"\.(output\.dense|mlp\.fc2)\.", ".mlp.out."),
    (r"\.(?:relative_position_bias\.)?relative_position_bias_table$", ".bias.offset_token"),
    (r"\.(continuous_position_bias_mlp|cpb_mlp)\.0\.", ".bias.into."),
    (r"\.(continuous_position_bias_mlp|cpb_mlp)\.2\.", ".bias.out."),
    (r"\.logit_scale$", ".cosine.log_scale"),
    (r"\.attention\.(q_proj|query)\.", ".attention.q."),
    (r"\.attention\.(k_proj|key)\.", ".attention.k."),
    (r"\.attention\.(v_proj|value)\.", ".attention.v."),
    (r"\.attention\.q_bias$", ".attention.q.bias"),
    (r"\.attention\.v_bias$", ".attention.v.bias"),
    (r"\.downsample\.reduction\.", ".downsample.reduce."),
)
#: What needs no word: it is computed.
SILENT = r"relative_position_index|relative_coords_table|attn_mask|\.k_bias$"


class ForeignSwin:
    """The weights of a public file as those of one of our Swins; see `Foreign`.

    Attributes:
        unused: names in the file, in their one form, that no weight was taken from.
    """

    def __init__(self, tensors: Mapping[str, Any], architecture: SwinArchitecture) -> None:
        """Take tensors by their names, or what gives a tensor when it is sliced."""
        names = {name: _plain(name) for name in tensors if not re.search(SILENT, name)}
        early = any(name.startswith("layers.0.downsample.") for name in names.values())
        first = [0, *accumulate(architecture.depths)]
        self._theirs = {}
        for name, plain in names.items():
            if found := re.match(r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.(.*)", plain):
                stage, block, rest = found.groups()
                at = min(int(stage), len(first) - 1)
                merge = f"merges.{int(stage) - (not early)}.{rest}"
                plain = f"blocks.{first[at] + int(block)}.{rest}" if block else merge
            self._theirs[plain] = tensors[name]
        self._heads = [
            heads
            for heads, depth in zip(architecture.heads, architecture.depths, strict=True)
            for _ in range(depth)
        ]
        self._patch = architecture.patch
        self.unused = set(self._theirs)

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a weight of ours that the file lacks, or has in another shape.

        Raises:
            InputError: the message names it.
        """
        parts = self._parts(name)
        for part in parts:
            if part not in self._theirs:
                raise InputError(f"no weight {part!r} in the file (for {name})")
        first, *rest = shape_of(self._theirs[parts[0]])
        found = first * len(parts), *rest
        if name == "backbone.embed.weight":
            found = first, self._patch**2 * (rest[0] if rest else 0)
        elif name.endswith("log_scale"):
            found = (first,)
        if found != tuple(shape):
            raise InputError(
                f"weight {parts[0]!r} has shape {(first, *rest)}, which does not fit {name} "
                f"{tuple(shape)}: choose the model of the same size, window and bands"
            )
        self.unused -= set(parts)

    def rows(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        """Return rows of one of our weights, float32, reading those rows alone."""
        first, last, _ = rows.indices(shape[0])
        values = [self._theirs[part] for part in self._parts(name)]
        if ".qkv." in name:
            heads = self._heads[int(name.split(".")[2])]
            return head_by_head(values, shape, heads, first, last)
        found: Tensor = values[0][first:last].float()
        if name == "backbone.embed.weight":
            found = matrix(found, self._patch)
        return found.reshape(last - first, *shape[1:]).contiguous()

    def _parts(self, name: str) -> tuple[str, ...]:
        """Return the names, in their one form, of what a weight of ours is made from."""
        word = name.removeprefix("backbone.")
        for ours, theirs in ((".cosine.query.", ".q."), (".cosine.value.", ".v.")):
            word = word.replace(ours, theirs)
        if ".qkv." in word and word not in self._theirs:
            return tuple(word.replace("qkv", part) for part in "qkv")
        return (word,)


def _plain(name: str) -> str:
    while (shorter := re.sub(WRAPPERS, "", name)) != name:
        name = shorter
    for theirs, ours in RULES:
        name = re.sub(theirs, ours, name)
    return name
