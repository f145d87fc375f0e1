"""A step of the real engine on tensors without values, as one of any number of ranks.

The process group is torch's fake one: it answers at once and exchanges nothing. So a laptop sees
which collectives a configuration issues, over how many ranks, in which order, and what a rank would
hold.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.distributed_c10d import (  # type: ignore[attr-defined]
    _resolve_process_group,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpcgeo.config import RunConfig
from hpcgeo.errors import InputError
from hpcgeo.machines import machine
from hpcgeo.measured import Memory
from hpcgeo.optimizers.beginning import create_state
from hpcgeo.parallel.engines import engine_of
from hpcgeo.parallel.topology import RankPlace, Topology
from hpcgeo.profiling.memory import observe
from hpcgeo.strategies import strategy
from hpcgeo.workloads.choice import workload_of

#: Operators of torch.distributed, and what their collective is called.
KINDS = {
    "_allgather_base_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "allreduce_": "all_reduce",
    "all_reduce": "all_reduce",
}


class Call(NamedTuple):
    """A collective: its kind, the ranks of its group, and the bytes of the whole."""

    collective: str
    ranks: int
    message_bytes: int


@dataclass(frozen=True)
class Rehearsal:
    """What a rank did in the last micro-batch of a step.

    Attributes:
        calls: in the order of their issue.
        memory: by cause at the peak of forward and backward.
    """

    calls: tuple[Call, ...]
    memory: Memory

    def __str__(self) -> str:
        """The collectives, those that are alike together, in the order of the first of each."""
        many = Counter(self.calls)
        return "\n".join(
            f"{count:>5} x {call.collective:<14} over {call.ranks:>5} ranks, "
            f"{call.message_bytes / 1e6:,.3g} MB"
            for call, count in many.items()
        )


def rehearse(run: RunConfig, world_size: int) -> Rehearsal:
    """Build the engine of a run as rank 0 of so many, and do the last micro-batch of a step.

    Raises:
        InputError: the strategy is DDP or DeepSpeed's, or the ranks cannot be divided so.
    """
    chosen = strategy(run.parallel.strategy)
    if chosen.backend != "native" or chosen.name == "DDP":
        why = "exchanges values while it is built"
        why = "reduces in C++, out of sight: rehearse NO_SHARD" if chosen.name == "DDP" else why
        raise InputError(f"{chosen.name} cannot be rehearsed: it {why}")
    layout = chosen.layout(world_size, dict(run.parallel))
    alone = run.data.model_copy(update={"workers": 0})
    run = run.model_copy(
        update={"data": alone, "train": run.train.model_copy(update={"accumulate": 1})}
    )
    workload = workload_of(run)
    workload.refuse_cut(layout.tp)
    with _fake_ranks(world_size):
        order = tuple(range(world_size))
        topology = Topology(0, torch.device("cpu"), chosen, layout, order, _places(run, world_size))
        assert topology.mesh.size() and topology.mesh_of_copies.size()  # made of real numbers
        with torch.device("meta"):
            objective = workload.objective()
        step = workload.step(iter(workload.batches(topology, 0)), topology.device)
        inputs = list(islice(step.passes, 1))
        seen = _Calls()
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            inputs = [_without_values(fake, one) for one in inputs]
            engine: Any = engine_of(chosen)(
                objective,
                topology,
                parallel=run.parallel,
                optim=run.optim,
                dtype=getattr(torch, run.train.dtype),
                accumulate=1,
                initial=None,
            )
            create_state(engine.optimizer)
            with seen:
                _, memory = observe(engine, topology, lambda: engine.forward_backward(inputs))
        return Rehearsal(tuple(seen.calls), memory)


def _places(run: RunConfig, world_size: int) -> tuple[RankPlace, ...]:
    """Return where the ranks of full nodes are."""
    where = machine(run.launch.machine)
    per_node = int(where.devices_per_node.value)
    per_package = where.model.per_package if where.model else 1
    return tuple(
        RankPlace(f"node{rank // per_node}", rank % per_node, rank % per_node // per_package)
        for rank in range(world_size)
    )


@contextmanager
def _fake_ranks(world_size: int) -> Iterator[None]:
    """Be rank 0 of a process group that exchanges nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
        gc.collect()


def _without_values(fake: FakeTensorMode, inputs: Any) -> Any:
    return {
        name: fake.from_tensor(value) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every collective."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        name = operator._schema.name.partition("::")[2]
        if operator.namespace in ("c10d", "_c10d_functional") and name in KINDS:
            tensors = [one for one in tree_leaves(arguments) if isinstance(one, Tensor)]
            size = max(one.numel() * one.element_size() for one in tensors)
            ranks = _ranks(arguments)
            if name == "all_gather_into_tensor":  # it is given its part alone
                size *= ranks
            self.calls.append(Call(KINDS[name], ranks, size))
        return operator(*arguments, **(named or {}))


def _ranks(arguments: Any) -> int:
    """Return how many ranks the group of a collective has."""
    for one in tree_leaves(arguments):
        if isinstance(one, torch.ScriptObject):
            try:
                return int(dist.ProcessGroup.unbox(one).size())
            except RuntimeError:
                continue
        if isinstance(one, str) and one not in ("sum", "avg", "max", "min"):
            return int(_resolve_process_group(one).size())  # type: ignore[arg-type]
    return 0
