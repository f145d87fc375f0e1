"""Heads: queries read the latents, and an MLP predicts the target.

Letters: B samples, N_l latents, W width, Q queries, F features of a query, L of what lies near it.

A vector that conditions a head, such as a language prompt, would be added to its queries.
"""

import torch
from torch import Tensor, nn

from hpcgeo.models.layers import NORM_EPS
from hpcgeo.models.perceiver import CrossAttention


class VectorHead(nn.Module):
    """One learned query reads the latents: classification, several labels, regression."""

    def __init__(self, width: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.query_token = nn.Parameter(torch.empty(1, width))
        self.attention = CrossAttention(width, width, heads)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = _mlp(width, width, outputs)

    def forward(self, latents: Tensor) -> Tensor:
        """Return (B, outputs) of latents (B, N_l, W)."""
        query = self.query_token.to(latents.dtype)  # (1, W)
        x = query + self.attention(query, latents)  # (B, 1, W)
        return self.mlp(self.norm(x)).squeeze(1)


class PixelHead(nn.Module):
    """A query for each place, given by its features: segmentation, change, masked tokens.

    Latents say little of where in a chip a thing is. What the tokens near a place say can join its
    query, before attention and again before the MLP.
    """

    def __init__(
        self, width: int, heads: int, features: int, outputs: int, *, local: int = 0
    ) -> None:
        """Build a head for queries of F = `features`; L = `local`, 0: nothing joins them."""
        super().__init__()
        self.embed = nn.Linear(features + local, width)
        self.attention = CrossAttention(width, width, heads)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = _mlp(width + local, width, outputs)

    def forward(self, latents: Tensor, queries: Tensor, local: Tensor | None = None) -> Tensor:
        """Answer queries, each by itself.

        Args:
            latents: (B, N_l, W)
            queries: (B, Q, F)
            local: (B, Q, L), where the head was built for it.

        Returns:
            (B, Q, outputs)
        """
        near = [] if local is None else [local.to(latents.dtype)]
        x = self.embed(torch.cat([queries.to(latents.dtype), *near], dim=-1))  # (B, Q, W)
        x = x + self.attention(x, latents)
        return self.mlp(torch.cat([self.norm(x), *near], dim=-1))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
