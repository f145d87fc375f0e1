"""How long a run is, and its learning rate: linear warm-up, then half a cosine (Loshchilov & Hutter
2017).
"""

import math

from hpcgeo.options import Optim


def learning_rate(step: int, steps: int, global_batch: int, optim: Optim) -> float:
    """Return the learning rate of step `step` (0-based) of `steps`.

    The peak is base_lr x global_batch / 256 (Goyal et al. 2017, as MAE uses it).
    """
    peak = optim.base_lr * global_batch / 256
    if step < optim.warmup_steps:
        return peak * (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
    return optim.min_lr + (peak - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def frozen(step: int, optim: Optim) -> bool:
    """Return whether the backbone stays as it is in step `step` (0-based)."""
    return step < optim.frozen_steps


def extent(steps: int, global_batch: int, samples: int) -> str:
    """Return steps as samples and epochs, in words."""
    seen = steps * global_batch
    return f"{steps:,} = {seen:,} samples = {seen / samples:.2f} epochs"
