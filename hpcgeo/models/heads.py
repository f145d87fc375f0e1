"""Heads: queries read the latents, and an MLP predicts the target.

Letters: B samples, N_l latents, W width, Q queries, F features of a query, L of what lies near it,
V numbers of a vector.

A head of whole samples is a row of HEADS, or an entry point of the group `hpcgeo.heads`: it takes a
backbone and the number of outputs, and returns a module that `reads` a part of the features of
samples, by its name in `hpcgeo.models.features.Features`.

A vector that conditions a head, such as a language prompt, would be added to its queries.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hpcgeo.errors import InputError
from hpcgeo.models.layers import NORM_EPS
from hpcgeo.models.perceiver import CrossAttention
from hpcgeo.tables import find_open


class VectorHead(nn.Module):
    """One learned query reads the latents: classification, several labels, regression."""

    reads = "latents"

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


class LinearHead(nn.Module):
    """Norm and matrix on the vector of a sample, as ViTs are fine-tuned (MAE's `global_pool`)."""

    reads = "vector"

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, outputs)

    def forward(self, vector: Tensor) -> Tensor:
        """Return (B, outputs) of vectors (B, V)."""
        return self.linear(self.norm(vector.to(self.norm.weight.dtype)))


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


def _linear(backbone: Any, outputs: int) -> nn.Module:
    width = getattr(backbone, "vector_width", None)
    if width is None:
        raise InputError(
            "head linear: this backbone does not say the width of its vector (vector_width): "
            "choose head attentive"
        )
    return LinearHead(width, outputs)


ATTENTIVE = "attentive"

HEADS: dict[str, Callable[[Any, int], nn.Module]] = {
    ATTENTIVE: lambda backbone, outputs: VectorHead(backbone.width, backbone.heads, outputs),
    "linear": _linear,
}

GROUP = "hpcgeo.heads"


def sample_head(name: str, backbone: Any, outputs: int) -> nn.Module:
    """Return a head for whole samples; an unknown name is an InputError that lists the known."""
    return find_open(HEADS, GROUP, name, "head")(backbone, outputs)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
