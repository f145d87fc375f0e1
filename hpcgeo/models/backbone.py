"""Backbones behind one protocol: inputs become features, one vector and a grid of them.

A further backbone is one module: an architecture (`hpcgeo.zoo.architecture` finds it) whose
`family` is its name here, and what builds it: a row of BACKBONES, or an entry point of the group
`hpcgeo.backbones`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import nn

from hpcgeo.errors import InputError
from hpcgeo.models.features import Features
from hpcgeo.models.low_rank import adapt
from hpcgeo.models.perceiver import PerceiverBackbone
from hpcgeo.models.swin import Swin
from hpcgeo.models.tokenizers import Channel, Tokens
from hpcgeo.models.vit import ViT
from hpcgeo.tables import find_open


class Backbone(Protocol):
    """What turns samples into features.

    One with modules behind its last block (a norm) has a further method `outputs()`, which returns
    them; all else outside of the blocks counts as embedding. One with `vector_width`, the numbers
    of `Features.vector`, takes linear heads, one with `drop_path` skips blocks by `Tokens.keys`,
    and one whose blocks have products of `hpcgeo.models.low_rank` takes additions to them.

    Attributes:
        width, heads: of the latents, and of attention to them.
        context: channels of its grids.
    """

    width: int
    heads: int
    context: int

    def encode(self, tokens: Tokens) -> Features:
        """Return the features of samples, none of which may be there."""

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""


Build = Callable[[Any, Sequence[Channel], int, str], Any]

BACKBONES: dict[str, Build] = {
    "perceiver": lambda architecture, channels, bands, density: PerceiverBackbone(
        architecture, channels, density
    ),
    "swin": lambda architecture, channels, bands, density: Swin(architecture, bands),
    "vit": lambda architecture, channels, bands, density: ViT(architecture, bands),
}


def backbone(architecture: Any, channels: Sequence[Channel], bands: int, density: str) -> Any:
    """Return the backbone of an architecture, a module that is a `Backbone`.

    Args:
        architecture: what `hpcgeo.zoo.architecture` returns.
        channels: the bands of samples, all sensors together.
        bands: of their images, where all have the same; else 0.
        density: how what is known of a coordinate is distributed around it.
    """
    build = find_open(BACKBONES, "hpcgeo.backbones", architecture.family, "backbone")
    return build(architecture, channels, bands, density)


def adapted(backbone: Any, family: str, drop_path: float, lora_rank: int | None) -> None:
    """Have a backbone skip blocks in training, or be trained by low-rank additions alone.

    Args:
        backbone: of `backbone`.
        family: of its architecture, for the message.
        drop_path: how often samples skip the last block; 0: never.
        lora_rank: of the additions; None: none.

    Raises:
        InputError: it cannot.
    """
    if drop_path:
        if not hasattr(backbone, "drop_path"):
            raise InputError(f"model.drop_path {drop_path}: a {family} skips no blocks: drop it")
        backbone.drop_path = drop_path
    if lora_rank:
        adapt(backbone, lora_rank)
        if not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise InputError(
                f"model.lora_rank {lora_rank}: nothing can be added to the blocks of a {family}: "
                f"drop it"
            )
