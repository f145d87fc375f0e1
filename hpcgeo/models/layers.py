"""Transformer blocks with a plain or a gated MLP.

Letters: B batch, T tokens, W width, M hidden, H heads, d = W / H.

A block may scale what attention and MLP add (LayerScale, arXiv 2103.17239), as DINOv2's do.

Tensor parallelism shards a block by the strings of `TransformerBlock.tensor_plan`. A rank then
computes some of the heads and of the hidden units, as many as its product has: no width is assumed.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models.attention import attention
from hpcgeo.models.drop_path import skipping
from hpcgeo.models.low_rank import CUT_TOKENS, plan_of, product
from hpcgeo.stacks import Stack

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with one product for q, k and v.

    The rows of the product are ordered (H, 3, d): a split between heads is a split of its rows.
    """

    tensor_plan: ClassVar = {"qkv": "columns", "out": "rows"}

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.low_rank = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        all_three = product(self, "qkv", x).unflatten(-1, (-1, 3, self.head_width))
        q, k, v = all_three.transpose(1, 2).unbind(3)  # (B, H, T, d), of (B, T, H, 3, d)
        return product(self, "out", attention(q, k, v).transpose(1, 2).flatten(2))


class PlainMlp(nn.Module):
    """W -> M, GELU, M -> W."""

    tensor_plan: ClassVar = {"into": "columns", "out": "rows"}

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        self.low_rank = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        return product(self, "out", F.gelu(product(self, "into", x)))


class GatedMlp(nn.Module):
    """SiLU(W -> M) x (W -> M), M -> W (SwiGLU, arXiv 2002.05202)."""

    tensor_plan: ClassVar = {"gate": "columns", "into": "columns", "out": "rows"}

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden)
        self.into = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        self.low_rank = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        gate = F.silu(product(self, "gate", x))
        return product(self, "out", gate * product(self, "into", x))  # (B, T, M) inside


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.to(x.dtype)


class TransformerBlock(nn.Module):
    """x + Attention(norm(x)), then x + MLP(norm(x)) (pre-norm, arXiv 2010.11929 eq. 2 and 3)."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(stack.width, eps=NORM_EPS)
        self.attention = Attention(stack.width, stack.heads)
        scale = LayerScale if stack.layer_scale else nn.Identity
        self.attention_scale = scale(stack.width)
        self.mlp_norm = nn.LayerNorm(stack.width, eps=NORM_EPS)
        mlp = GatedMlp if stack.mlp == "gated" else PlainMlp
        self.mlp: GatedMlp | PlainMlp = mlp(stack.width, stack.hidden)
        self.mlp_scale = scale(stack.width)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the tokens (B, T, W) after this block; `kept` is of `hpcgeo.models.drop_path`."""
        attention, mlp = (None, None) if kept is None else kept
        x = x + skipping(self.attention_scale(self.attention(self.attention_norm(x))), attention)
        return x + skipping(self.mlp_scale(self.mlp(self.mlp_norm(x))), mlp)

    def tensor_plan(self) -> dict[str, str]:
        """Return how tensor parallelism shards this block: a word for each of its modules.

        Words: `sequence`, computed on some of the tokens; `gather`, its input is all tokens;
        `columns`, some of the outputs; `gather_columns`, those of some tokens, gathered first;
        `rows`, some of the inputs, the sums scattered over tokens.
        """
        plan = {"attention_norm": "sequence", "mlp_norm": "sequence"}
        for name, module in (("attention", self.attention), ("mlp", self.mlp)):
            plan[name] = "gather"
            plan |= {f"{name}.{part}": word for part, word in module.tensor_plan.items()}
            plan |= plan_of(name, module, module.tensor_plan, CUT_TOKENS)
            if isinstance(self.get_submodule(f"{name}_scale"), LayerScale):
                plan[f"{name}_scale"] = "sequence"
        return plan


def blocks(stack: Stack) -> nn.ModuleList:
    """Return the blocks of a stack; each is one unit to shard."""
    return nn.ModuleList(TransformerBlock(stack) for _ in range(stack.depth))
