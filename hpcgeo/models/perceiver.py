"""Perceiver IO (Jaegle et al. 2021, arXiv 2107.14795): few latents read any number of tokens.

Letters: S samples (B when there is no layout), N tokens of all samples, K tokens of one, C their
width, N_l latents, Q queries, W width, H heads, d = W / H.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hpcgeo.models.attention import attention, packed_attention
from hpcgeo.models.drop_path import kept
from hpcgeo.models.features import Features
from hpcgeo.models.layers import NORM_EPS, GatedMlp, PlainMlp, blocks
from hpcgeo.models.low_rank import WHOLE_TOKENS, plan_of, product
from hpcgeo.models.ragged import Packed, TokenLayout
from hpcgeo.models.tokenizers import Channel, Tokenizer, Tokens
from hpcgeo.stacks import Mlp
from hpcgeo.zoo import PerceiverArchitecture


class CrossAttention(nn.Module):
    """Multi-head attention of queries to a context, with the norms of both.

    The rows of the product for k and v are ordered (H, 2, d): a split between heads splits them.
    """

    tensor_plan: ClassVar = {"q": "columns", "kv": "columns", "out": "rows"}

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.context_norm = nn.LayerNorm(context, eps=NORM_EPS)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(context, 2 * width)
        self.out = nn.Linear(width, width)
        self.low_rank = nn.ModuleDict()

    def forward(self, x: Tensor, context: Tensor, layout: TokenLayout | None = None) -> Tensor:
        """Return what the queries read; see `CrossBlock`."""
        q = product(self, "q", self.norm(x)).unflatten(-1, (-1, self.head_width)).transpose(-3, -2)
        read = self._read(q, context, layout)  # (S, H, Q, d)
        return product(self, "out", read.transpose(1, 2).flatten(2))

    # It would be compiled again for every layout.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _read(self, q: Tensor, context: Tensor, layout: TokenLayout | None) -> Tensor:
        """Return the attention of q (S, H, Q, d), or (H, Q, d) for all samples, to the context."""
        if layout is None:
            return self._attend(_each(q, len(context)), context)
        if isinstance(layout, Packed):
            return packed_attention(_each(q, len(layout.lengths)), self._kv(context), layout)
        parts = []
        for cluster in layout.clusters:
            own = q[cluster.rows] if q.dim() == 4 else _each(q, len(cluster.rows))
            parts.append(self._attend(own, context[cluster.index], cluster.mask))
        return torch.cat(parts)[layout.order]

    def _attend(self, q: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        k, v = self._kv(context).permute(3, 0, 2, 1, 4)  # (B, H, K, d)
        return attention(q, k, v, mask)

    def _kv(self, context: Tensor) -> Tensor:
        both = product(self, "kv", self.context_norm(context))
        return both.unflatten(-1, (-1, 2, self.head_width))  # (..., K, H, 2, d)


class CrossBlock(nn.Module):
    """x + CrossAttention(x, context), then x + MLP(norm(x)).

    However its context lies, it is called once in a forward-backward pass: all ranks gather it.
    """

    def __init__(self, width: int, context: int, heads: int, hidden: int, mlp: Mlp) -> None:
        super().__init__()
        self.attention = CrossAttention(width, context, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        kind = GatedMlp if mlp == "gated" else PlainMlp
        self.mlp: GatedMlp | PlainMlp = kind(width, hidden)

    def forward(self, x: Tensor, context: Tensor, layout: TokenLayout | None = None) -> Tensor:
        """Let queries read a context.

        Args:
            x: (S, Q, W), or (Q, W) of all samples.
            context: (N, C), or without a layout (B, K, C).
            layout: how the samples of a flat context lie in it.

        Returns:
            (S, Q, W)
        """
        x = x + self.attention(x, context, layout)
        return x + self.mlp(self.mlp_norm(x))

    def tensor_plan(self) -> dict[str, str]:
        """Return how tensor parallelism shards this block: a word for each of its modules.

        Words: `columns`, some of the outputs; `sums`, some of the inputs, the sums on every rank.
        """
        plan: dict[str, str] = {}
        for name, module in (("attention", self.attention), ("mlp", self.mlp)):
            words = {
                part: "sums" if word == "rows" else word
                for part, word in module.tensor_plan.items()
            }
            plan |= {f"{name}.{part}": word for part, word in words.items()}
            plan |= plan_of(name, module, words, WHOLE_TOKENS)
        return plan


class Perceiver(nn.Module):
    """Learned latents read the tokens once, then attend to each other.

    As in the paper no norm ends the stack: whoever reads the latents has one (`CrossAttention`).

    Attributes:
        drop_path: how often samples skip the last block in training; see `hpcgeo.models.drop_path`.
    """

    drop_path = 0.0

    def __init__(self, architecture: PerceiverArchitecture) -> None:
        super().__init__()
        stack = architecture.stack
        self.latent_token = nn.Parameter(torch.empty(architecture.latents, stack.width))
        self.read = CrossBlock(
            stack.width, architecture.context, stack.heads, stack.hidden, stack.mlp
        )
        self.blocks = blocks(stack)

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        return [[self.read], list(self.blocks)]

    def forward(self, tokens: Tensor, layout: TokenLayout, keys: Tensor | None = None) -> Tensor:
        """Encode samples.

        Args:
            tokens: (N, C)
            layout: which of them are whose.
            keys: (S,) by which samples skip blocks, where they do.

        Returns:
            (S, N_l, W)
        """
        x = self.read(self.latent_token.to(tokens.dtype), tokens, layout)
        factors = kept(keys, self.drop_path, 1 + len(self.blocks))[1:]  # the first is never skipped
        for block, factor in zip(self.blocks, factors, strict=True):
            x = block(x) if factor is None else block(x, kept=factor)
        return x


class PerceiverBackbone(Perceiver):
    """A Perceiver with the stems of all its bands; see `hpcgeo.models.backbone`."""

    def __init__(
        self, architecture: PerceiverArchitecture, channels: Sequence[Channel], density: str
    ) -> None:
        super().__init__(architecture)
        self.width, self.heads = architecture.stack.width, architecture.stack.heads
        self.context = architecture.context
        self.vector_width = architecture.latents * self.width
        self.tokenizer = Tokenizer(channels, architecture.context, density)

    def encode(self, tokens: Tokens) -> Features:
        """Return the features of samples; their vector is all latents, side by side.

        Not their mean, as every latent reads something else.
        """
        read = self.tokenizer(tokens)
        latents = self(read.flat, tokens.layout, tokens.keys)  # (S, N_l, W)
        there = [group.there() for group in tokens.groups]
        return Features(latents, latents.flatten(1), read.grids, there)


def _each(q: Tensor, samples: int) -> Tensor:
    """Return queries (H, Q, d) of all samples as those of each; leave (S, H, Q, d) as they are."""
    return q if q.dim() == 4 else q.expand(samples, -1, -1, -1)
