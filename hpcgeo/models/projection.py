"""What a backbone says of an image, projected to what is compared.

Letters: B batch, W width of the backbone, M hidden units, F numbers that are compared.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models.backbone import backbone
from hpcgeo.models.layers import NORM_EPS


class Projection(nn.Module):
    """Layers with norms and GELU between them.

    The norms are of a sample, where the papers have those of a batch: ranks share none.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """Make it, of the widths from the input's to the output's."""
        super().__init__()
        pairs = list(pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(out, eps=NORM_EPS) for _, out in pairs[:-1])

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = F.gelu(norm(layer(x)))
        last: Tensor = self.layers[-1](x)
        return last


class Describer(nn.Module):
    """A backbone, and a projection of the mean of its last places."""

    def __init__(self, architecture: Any, bands: int, hidden: int, features: int) -> None:
        super().__init__()
        self.backbone = backbone(architecture, (), bands, "uniform")
        self.project = Projection((self.backbone.widths[-1], hidden, hidden, features))

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        stacks: list[list[nn.Module]] = self.backbone.stacks()
        return stacks

    def vectors(self, images: Tensor) -> Tensor:
        """Return the mean (B, W) of the last places of images (B, bands, height, width)."""
        *_, last = self.backbone.places(images)
        mean: Tensor = last.mean((1, 2))
        return mean
