"""Low-rank additions to frozen matrices (LoRA, Hu et al. 2022, arXiv 2106.09685, equation 3).

h = W x + B A x, with A (r, in) and B (out, r): alpha is the rank r, so their product stands as it
is. B begins at zero, and the model as it was. The modules of a block list their products in
`tensor_plan`, and apply each by `product`.
"""

from typing import Any, cast

from torch import Tensor, nn

#: A and B, as modules of an addition, and the dictionary of additions in their module.
INTO, FROM, ADDED = "into_rank", "from_rank", "low_rank"

#: How tensor parallelism cuts A and B of a product that it cuts, where tokens are cut between
#: blocks and where they are whole; empty: each rank has all of it.
CUT_TOKENS = {"columns": ("sequence", "gather_columns"), "rows": ("rows", "sequence")}
WHOLE_TOKENS = {"columns": ("", "columns"), "sums": ("sums", "")}


class LowRank(nn.Module):
    """B A x."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.into_rank = nn.Linear(inputs, rank, bias=False)
        self.from_rank = nn.Linear(rank, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.from_rank(self.into_rank(x)))


def product(module: Any, name: str, x: Tensor) -> Any:
    """Return a product of a module, a tensor, with what is added to it."""
    y = getattr(module, name)(x)
    return y + module.low_rank[name](x) if name in module.low_rank else y


def plan_of(name: str, module: Any, words: dict[str, str], pairs: Any) -> dict[str, str]:
    """Return how tensor parallelism cuts the additions to the products of a module.

    Args:
        name: of the module in its block.
        module: with `low_rank`.
        words: of its products.
        pairs: `CUT_TOKENS` or `WHOLE_TOKENS`.
    """
    plan = {}
    for part in module.low_rank:
        for factor, word in zip((INTO, FROM), pairs[words[part]], strict=True):
            if word:
                plan[f"{name}.{ADDED}.{part}.{factor}"] = word
    return plan


def adapt(backbone: Any, rank: int) -> None:
    """Freeze a backbone, and add matrices of a rank to every product of its blocks."""
    backbone.requires_grad_(False)
    for block in (block for stack in backbone.stacks() for block in stack):
        for module in [one for one in block.modules() if hasattr(one, ADDED)]:
            for name in module.tensor_plan:
                linear = getattr(module, name)
                module.low_rank[name] = LowRank(linear.in_features, linear.out_features, rank)


def is_addition(name: str) -> bool:
    """Return whether a parameter of that name is a part of an addition."""
    return f".{ADDED}." in name


def additions_to(name: str) -> tuple[str, str]:
    """Return the names of B and A that are added to the matrix `name`, where it has any.

    >>> additions_to("blocks.0.mlp.out.weight")[0]
    'blocks.0.mlp.low_rank.out.from_rank.weight'
    """
    owner, _, part = name.removesuffix(".weight").rpartition(".")
    return tuple(f"{owner}.{ADDED}.{part}.{factor}.weight" for factor in (FROM, INTO))  # type: ignore[return-value]
