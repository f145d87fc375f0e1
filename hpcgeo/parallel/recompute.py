"""Recompute: activations of a block that are dropped after forward and computed again in backward.

Chen et al. 2016, arXiv 1604.06174; selective: Korthikanti et al. 2022, arXiv 2205.05198, section 5.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

#: What `selective` keeps: the results of matrix products. All else is cheap to compute again.
PRODUCTS = {
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "torch_attn::_varlen_attn",
}


def recompute(units: Iterable[nn.Module], how: str | int) -> None:
    """Make units compute again in backward what they do not keep.

    Args:
        units: blocks in the order of their use.
        how: none, full, selective, or k: every k-th block in full.
    """
    if how == "none":
        return
    every = how if isinstance(how, int) else 1
    options: dict[str, Any] = {}
    if how == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for number, unit in enumerate(units, 1):
        if number % every == 0:
            # The forward, not the module: gathering a unit for its backward is no part of it.
            unit.forward = partial(
                checkpoint,
                unit.forward,
                use_reentrant=False,
                preserve_rng_state=False,  # blocks draw nothing
                **options,
            )


def _policy(context: Any, operator: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    if operator.name() in PRODUCTS:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
