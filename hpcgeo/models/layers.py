"""Transformer blocks with a plain or a gated MLP.

Letters: B batch, T tokens, W width, M hidden, H heads, d = W / H.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models.attention import attention
from hpcgeo.zoo import Stack

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with one product for q, k and v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, W = x.shape
        # Three views of one product: their gradients join in one pass.
        q, k, v = (
            part.view(B, T, self.heads, W // self.heads).transpose(1, 2)  # (B, H, T, d)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        return self.out(attention(q, k, v).transpose(1, 2).reshape(B, T, W))


class PlainMlp(nn.Module):
    """W -> M, GELU, M -> W."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.into(x)))


class GatedMlp(nn.Module):
    """W -> 2 M, SiLU(first half) x second half, M -> W (SwiGLU, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * hidden)
        self.out = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.into(x).chunk(2, dim=-1)  # (B, T, M) each
        return self.out(F.silu(gate) * value)


class Block(nn.Module):
    """x + Attention(norm(x)), then x + MLP(norm(x)) (pre-norm, arXiv 2010.11929 eq. 2 and 3)."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(stack.width, eps=NORM_EPS)
        self.attention = Attention(stack.width, stack.heads)
        self.mlp_norm = nn.LayerNorm(stack.width, eps=NORM_EPS)
        mlp = {"plain": PlainMlp, "gated": GatedMlp}[stack.mlp]
        self.mlp = mlp(stack.width, stack.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


def blocks(stack: Stack) -> nn.ModuleList:
    """Return the blocks of a stack; each is one unit to shard."""
    return nn.ModuleList(Block(stack) for _ in range(stack.depth))
