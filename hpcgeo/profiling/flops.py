"""FLOPs of a step as it is executed, counted operator by operator; a multiply-add counts 2.

Only matrix products count, as in the closed forms of `hpcgeo.zoo`. What recompute does again is
counted again. Compiled code does not pass the dispatcher, where they are counted: it runs the same
products, but which of them it does again in backward is not known.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from hpcgeo.config import RunConfig
from hpcgeo.zoo import architecture

Item = TypeVar("Item")

aten = torch.ops.aten

#: What each operator costs; torch's table does not know the fused attention of CPUs.
COSTS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


class Counter(TorchDispatchMode):
    """Adds up the FLOPs of this rank in `total`."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        if any(issubclass(kind, (DTensor, AsyncCollectiveTensor)) for kind in types):
            return NotImplemented  # the part that this rank computes comes by as well
        named = named or {}
        answer = operator(*arguments, **named)
        if cost := COSTS.get(operator.overloadpacket):
            self.total += cost(*arguments, **named, out_val=answer)
        return answer


def counted(step: Callable[[], Item], device: torch.device) -> tuple[Item, float]:
    """Run one step; return its answer, and its FLOPs on all ranks; every rank calls it.

    Args:
        step: forward, backward and update, nothing of it compiled.
        device: of this rank.
    """
    with Counter() as counter:
        answer = step()
    total = torch.tensor(counter.total, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return answer, total.item()
