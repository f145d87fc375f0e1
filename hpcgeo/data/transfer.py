"""Copies to a device beside what it computes: out of pinned memory, on a stream of their own.

The host is ahead of its device by up to a step (`hpcgeo.train.meter`): a batch is copied while the
step before is computed, and is there when it is needed.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def sent(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return tensors on a device; only what is computed from them waits for their copies."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    copies, computes = _copies(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        there = [tensor.to(device, non_blocking=True) for tensor in tensors]
    computes.wait_stream(copies)
    for tensor in there:
        tensor.record_stream(computes)  # memory of the other stream, not free before it is read
    return there


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
