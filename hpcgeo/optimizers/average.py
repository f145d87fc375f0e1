"""An exponential moving average of the weights, kept as optimizer state: shard by shard.

So it is sharded, saved and resumed as the moments are, under every strategy that keeps optimizer
state by parameter. It begins with the weights after the first step.
"""

from typing import Any

import torch

from hpcgeo.optimizers.layerwise import local

#: Its name in the state of a parameter.
EMA = "ema"


def keep_average(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Move the average of every parameter after each step: ``ema = decay ema + (1 - decay) w``."""

    @torch.no_grad()
    def after(stepped: torch.optim.Optimizer, *_: Any) -> None:
        for parameter, state in _states(stepped):
            if EMA in state:
                local(state[EMA]).lerp_(local(parameter), 1 - decay)
            else:
                state[EMA] = parameter.detach().clone()

    optimizer.register_step_post_hook(after)


@torch.no_grad()
def exchange(optimizer: torch.optim.Optimizer) -> None:
    """Exchange weights and their average, in place; without a step there is none, nor a change."""
    for parameter, state in _states(optimizer):
        if EMA in state:
            weight, average = local(parameter), local(state[EMA])
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)


def _states(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [(p, optimizer.state[p]) for p in parameters if optimizer.state.get(p)]
