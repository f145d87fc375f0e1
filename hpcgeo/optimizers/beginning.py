"""Optimizer state of every parameter before the first step, as none of them had moved.

An optimizer makes the state of a parameter at its first gradient. Where some rest for a while, a
checkpoint of that time would lack theirs, and could not be told from one of other parameters.
"""

from typing import Any

import torch


@torch.no_grad()
def create_state(optimizer: Any) -> None:
    """Give every parameter its state, of zero steps; no parameter changes.

    Call it before hooks that follow a step are registered.
    """
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for state in optimizer.state.values():
        if "step" in state:
            state["step"].zero_()
