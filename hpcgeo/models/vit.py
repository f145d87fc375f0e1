"""The vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) on patches of any raster.

Letters: B batch, N patches, P = p p C values of a patch, W width.
"""

import torch
from torch import Tensor, nn

from hpcgeo.models.layers import NORM_EPS, blocks
from hpcgeo.zoo import Architecture


class ViT(nn.Module):
    """Linear patch embedding, class token, blocks, norm. Positions come from the caller.

    It takes patches, not images: so it can be given the visible ones alone, and knows nothing of
    the size or aspect of the chip.
    """

    def __init__(self, architecture: Architecture, bands: int) -> None:
        super().__init__()
        width = architecture.encoder.width
        self.embed = nn.Linear(architecture.patch**2 * bands, width)
        self.class_token = nn.Parameter(torch.empty(width))
        self.blocks = blocks(architecture.encoder)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Encode patches.

        Args:
            patches: (B, N, P)
            positions: (N, W) or (B, N, W)

        Returns:
            (B, 1 + N, W), the class token first; it has no position.
        """
        x = self.embed(patches.to(self.embed.weight.dtype))
        x = x + positions.to(x.dtype)  # (B, N, W)
        first = self.class_token.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1)  # (B, 1 + N, W)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
