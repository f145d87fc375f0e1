"""FLOPs of a step as it is executed, counted operator by operator; a multiply-add counts 2.

Only matrix products count, as in the closed forms of `hpcgeo.zoo`. What recompute does again is
counted again, and so are the scores that fused attention computes anew in its backward: a fifth
product beside four. Compiled units run as they were written while they are counted, with the same
products; but what they recompute, the compiler chooses: then no count is given.
"""

from collections import ChainMap
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from hpcgeo.options import Parallel

Item = TypeVar("Item")

aten = torch.ops.aten

#: What each operator costs; torch's table does not know the fused attention of CPUs. It is looked
#: up, not copied: the attention of samples of any length joins it where that is imported.
COSTS = ChainMap(
    {
        aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
    },
    flop_registry,
)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the FLOPs of this rank in `total`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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


def counted(
    step: Callable[[], Item], device: torch.device, parallel: Parallel
) -> tuple[Item, float | None]:
    """Run one step; return its answer and its FLOPs on all ranks; every rank calls it.

    Args:
        step: forward, backward and update.
        device: of this rank.
        parallel: how its model was spread.
    """
    if parallel.compile and parallel.recompute != "none":
        return step(), None
    # Compiled code that meets the counter would stay uncompiled for good; so it is told to stand
    # aside. Where nothing is compiled, the compiler need not be loaded for that.
    aside = torch.compiler.set_stance("force_eager") if parallel.compile else nullcontext()
    with aside, Counter() as counter:
        answer = step()
    total = torch.tensor(counter.total, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return answer, total.item()
