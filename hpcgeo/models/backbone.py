"""Backbones behind one protocol: inputs become features, one vector and a grid of them.

A further backbone is one module: an architecture (`hpcgeo.zoo.architecture` finds it) whose
`family` is its name here, and what builds it: a row of BACKBONES, or an entry point of the group
`hpcgeo.backbones`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import nn

from hpcgeo.models.features import Features
from hpcgeo.models.perceiver import PerceiverBackbone
from hpcgeo.models.tokenizers import Channel, Tokens
from hpcgeo.models.vit import ViT
from hpcgeo.tables import find_open


class Backbone(Protocol):
    """What turns samples into features.

    One with modules behind its last block (a norm) has a further method `outputs()`, which returns
    them; all else outside of the blocks counts as embedding. One with `vector_width`, the numbers
    of `Features.vector`, takes linear heads.

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
