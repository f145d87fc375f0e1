"""A pile of equal transformer blocks as data: what it weighs, costs and keeps, in closed form.

Letters: W width, M hidden width of the MLP, L depth, H heads, T tokens. A multiply-add counts 2
FLOPs; only matrix products count.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Strict
from pydantic.dataclasses import dataclass

Mlp = Literal["plain", "gated"]
Size = Annotated[int, Strict(), Field(gt=0)]

STRICT = ConfigDict(extra="forbid")

#: Which blocks compute their activations again in backward; a number k: every k-th.
Recompute = Literal["none", "full", "selective"] | int


@dataclass(frozen=True, config=STRICT)
class Stack:
    """A pile of equal transformer blocks."""

    width: Size
    depth: Size
    heads: Size
    hidden: Size
    mlp: Mlp = "plain"
    layer_scale: bool = False  #: what attention and MLP add is scaled channel by channel

    def __post_init__(self) -> None:
        for divisor in (self.heads, 4):
            if self.width % divisor:
                raise ValueError(
                    f"width {self.width} is no multiple of {divisor}: attention needs one of its "
                    f"{self.heads} heads, positions one of 4"
                )

    @property
    def parameters(self) -> int:
        """Parameters of all blocks: two norms, qkv and projection with biases, the MLP, scales."""
        W = self.width
        return self.depth * (4 * W + (W + 1) * 4 * W + self.mlp_parameters + self.scale_parameters)

    @property
    def scale_parameters(self) -> int:
        """Parameters of the two LayerScales of a block."""
        return 2 * self.width if self.layer_scale else 0

    @property
    def mlp_parameters(self) -> int:
        """Parameters of the MLP of one block, with its biases."""
        into = 2 * self.hidden if self.mlp == "gated" else self.hidden
        return (self.width + 1) * into + (self.hidden + 1) * self.width

    def flops(self, tokens: int) -> int:
        """Forward FLOPs of one sequence of `tokens`."""
        W, T = self.width, tokens
        return self.depth * (8 * T * W * W + self.mlp_flops(T) + self.attention_flops(T))

    def products(self, rows: int, tensor: int = 1) -> list[tuple[int, int, int]]:
        """Return (rows, inner, columns) of each product of a block's forward but attention's.

        Args:
            rows: tokens of all sequences together.
            tensor: ranks that cut each product.
        """
        W, M, n = self.width, self.hidden, tensor
        into = 2 * M if self.mlp == "gated" else M
        return [
            (rows, W, -(-3 * W // n)),
            (rows, -(-W // n), W),
            (rows, W, -(-into // n)),
            (rows, -(-M // n), W),
        ]

    def attention_flops(self, tokens: int) -> int:
        """Forward FLOPs of attention in one block, of one sequence."""
        return 4 * tokens * tokens * self.width

    def mlp_numbers(self) -> int:
        """Return how many numbers of a token the MLP of a block writes and reads in forward."""
        return (8 if self.mlp == "gated" else 4) * self.hidden

    def mlp_flops(self, tokens: int) -> int:
        """Forward FLOPs of the MLP of one block."""
        return 2 * tokens * (3 if self.mlp == "gated" else 2) * self.width * self.hidden

    def cut_parameters(self, tensor: int) -> float:
        """Return the parameters that one of `tensor` ranks computes with: all norms and scales, the
        biases of what leaves attention and MLP, and its part of the rest."""
        shared = self.depth * (6 * self.width + self.scale_parameters)
        return shared + (self.parameters - shared) / tensor

    def block_bytes(self, tokens: int, dtype_bytes: int, tensor: int = 1) -> float:
        """Bytes one block keeps of one sequence for its backward, with fused attention.

        The input of both norms (the residual) and their outputs, q, k, v, the output of attention
        with its row sums, and in the MLP the input and output of the activation (gated: both
        halves, the SiLU and their product); what LayerScales take. The ranks of tensor parallelism
        share all but what enters a product: the outputs of the norms, gathered over all tokens.
        """
        W, M = self.width, self.hidden
        shared = 6 * W + (4 * M if self.mlp == "gated" else 2 * M) + self.scale_parameters
        statistics = 4 * (2 * 2 + self.heads)  # mean and deviation of two norms; row sums; fp32
        return tokens * ((shared / tensor + 2 * W) * dtype_bytes + statistics / tensor)

    def activation_bytes(
        self, tokens: int, dtype_bytes: int, *, recompute: Recompute = "none", tensor: int = 1
    ) -> float:
        """Bytes all blocks keep of one sequence between forward and backward.

        A recomputed block keeps its input alone; `selective` also the results of its products.
        """
        W, M, T, L = self.width, self.hidden, tokens, self.depth
        whole = self.block_bytes(T, dtype_bytes, tensor)
        entry = T * W * dtype_bytes / tensor
        if recompute == "none":
            return L * whole
        if recompute == "selective":
            shared = 4 * W + (2 * M if self.mlp == "gated" else M)
            sums = 2 * W  # over part of the inputs, of all tokens
            products = T * ((shared / tensor + sums) * dtype_bytes + 4 * self.heads / tensor)
            return L * (entry + products)
        thin = L if recompute == "full" else L // recompute
        return thin * entry + (L - thin) * whole


@dataclass(frozen=True, config=STRICT)
class ReusedStack(Stack):
    """A pile that is counted elsewhere and reads again, e.g. another view: it has no parameters."""

    @property
    def parameters(self) -> int:
        """None of its own."""
        return 0

    def cut_parameters(self, tensor: int) -> float:
        """None of its own."""
        return 0.0


@dataclass(frozen=True, config=STRICT)
class CrossStack(Stack):
    """A pile of equal blocks of cross-attention to one context, and an MLP.

    Further letters: C tokens of the context, of the same width.
    """

    context: Size = 1

    @property
    def parameters(self) -> int:
        """Parameters of all blocks: as of self-attention, with a norm of the context."""
        return super().parameters + self.depth * 2 * self.width

    def flops(self, tokens: int) -> int:
        """Forward FLOPs of one sequence of `tokens` queries."""
        W, Q, C = self.width, tokens, self.context
        return self.depth * (4 * (Q + C) * W * W + self.mlp_flops(Q) + self.attention_flops(Q))

    def attention_flops(self, tokens: int) -> int:
        """As of `Stack`: every query reads the context."""
        return 4 * tokens * self.context * self.width

    def cut_parameters(self, tensor: int) -> float:
        """As of `Stack`; the norm of the context is shared as well."""
        shared = self.depth * 8 * self.width
        return shared + (self.parameters - shared) / tensor

    def block_bytes(self, tokens: int, dtype_bytes: int, tensor: int = 1) -> float:
        """Bytes one block keeps for its backward: of the queries both residuals and their norms, q,
        what is read with its row sums, both sides of the activation; of the context, which all
        blocks share, its norm, k and v. Nothing is cut between blocks: ranks share products alone.
        """
        W, M, C = self.width, self.hidden, self.context
        gates = 2 if self.mlp == "gated" else 1
        queries = tokens * (4 * W + (2 * W + 2 * gates * M) / tensor)
        statistics = 4 * (2 * (2 * tokens + C) + self.heads * tokens / tensor)
        return (queries + C * W * (1 + 2 / tensor)) * dtype_bytes + statistics

    def activation_bytes(
        self, tokens: int, dtype_bytes: int, *, recompute: Recompute = "none", tensor: int = 1
    ) -> float:
        """As of `Stack`, of the queries; with `selective` what products give of the context too."""
        if recompute != "selective":
            return super().activation_bytes(tokens, dtype_bytes, recompute=recompute, tensor=tensor)
        W, M = self.width, self.hidden * (2 if self.mlp == "gated" else 1)
        products = (tokens * (2 * W + M) + 2 * self.context * W) / tensor + tokens * 2 * W
        return self.depth * (products * dtype_bytes + 4 * self.heads * tokens / tensor)
