"""The engine of PyTorch's own strategies: DDP, and FSDP2 for everything that shards or replicates.

DDP keeps float32 weights and computes under autocast; FSDP2 keeps float32 weights in shards and
gathers them in the dtype of the arithmetic. Both sum gradients in `reduce_dtype` and step in
float32.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from hpcgeo.optimizers.average import exchange, keep_average
from hpcgeo.optimizers.beginning import create_state
from hpcgeo.optimizers.layerwise import local
from hpcgeo.optimizers.table import Group, optimizer
from hpcgeo.options import Optim, Parallel
from hpcgeo.parallel.engine import Initial, Inputs
from hpcgeo.parallel.group import gatherer
from hpcgeo.parallel.parallelise import parallelise
from hpcgeo.parallel.topology import Topology
from hpcgeo.parallel.updates import Update, updates
from hpcgeo.phases import phase

#: Optimizer state by parameter, not by group: groups differ between strategies.
BY_PARAMETER = StateDictOptions(flatten_optimizer_state_dict=True)


class NativeEngine:
    """An objective sharded or replicated by DDP or FSDP2, with its optimizer."""

    frozen = False

    def __init__(
        self,
        objective: Any,
        topology: Topology,
        *,
        parallel: Parallel,
        optim: Optim,
        dtype: torch.dtype,
        accumulate: int,
        initial: Initial | None,
    ) -> None:
        """Spread an objective that was built on the meta device; see `parallelise`."""
        self.topology = topology
        self.dtype = dtype
        self.accumulate = accumulate
        self.clip = optim.clip
        self.objective = objective
        self.model = parallelise(objective, topology, parallel, dtype, initial)
        if hasattr(objective, "gather"):
            objective.gather = gatherer(topology.layout.tp)
        row = optimizer(optim.name)
        row.refuse(optim, "native", parallel.offload)
        found = updates(objective, optim)
        self.optimizer = row.make(_groups(objective, found), optim)
        of = {id(value): found[name] for name, value in objective.named_parameters()}
        #: Of each group of the optimizer, all of whose parameters are updated alike.
        self._updates = [of[id(group["params"][0])] for group in self.optimizer.param_groups]
        if optim.frozen_steps:
            create_state(self.optimizer)
        self._averages, self._holds_average = optim.ema is not None, False
        if optim.ema is not None:
            keep_average(self.optimizer, optim.ema)
        # What follows a step that was made has to know whether it was; so has a step on the host.
        known = self._averages or hasattr(objective, "after_step") or parallel.offload
        guards = getattr(self.optimizer, "_step_supports_amp_scaling", False)
        self._guarded = guards and not known

    def forward_backward(
        self, micro_batches: Iterable[Inputs], count: int | None = None
    ) -> dict[str, Tensor]:
        self._hold(average=False)
        totals: dict[str, Tensor] = {}
        count = count or self.accumulate
        for number, inputs in enumerate(micro_batches, 1):
            with self._reduce_gradients(number == count):
                with phase("forward"), self._autocast():
                    scalars = self.model(**inputs)
                with phase("backward"):
                    (scalars["loss"] / count).backward()
            for name, value in scalars.items():
                mean = value.detach() / count
                totals[name] = totals[name] + mean if name in totals else mean
        return totals

    def step(self, lr: float) -> Tensor:
        with phase("optimizer"):
            return self._step(lr)

    def _step(self, lr: float) -> Tensor:
        groups = list(zip(self.optimizer.param_groups, self._updates, strict=True))
        for group in (group for group, how in groups if how.rests and self.frozen):
            for parameter in group["params"]:
                parameter.grad = None  # the optimizer passes over it, and so does the norm
        norm = self._norm()
        if self.clip is not None:
            # As torch's clip_grad_norm_, epsilon included.
            shrink = (self.clip / (norm + 1e-6)).clamp(max=1.0)
            gradients = [local(parameter.grad) for parameter in _with_gradient(self.objective)]
            torch._foreach_mul_(gradients, shrink.to(gradients[0].device))
        for group, how in groups:
            group["lr"] = lr * how.scale
        if self._guarded:
            # A fused kernel reads it and changes nothing: the host need not wait for the norm.
            self.optimizer.found_inf = (~norm.isfinite()).float()
            self.optimizer.step()
        elif norm.isfinite():
            self.optimizer.step()
            if hasattr(self.objective, "after_step"):
                with torch.no_grad():
                    self.objective.after_step()
        self.optimizer.zero_grad()
        return norm

    def evaluate(self, method: str, inputs: Inputs) -> Any:
        self._hold(average=True)
        with torch.no_grad(), self._autocast():
            return getattr(self.objective, method)(**inputs)

    def state(self) -> dict[str, Any]:
        self._hold(average=False)
        model, optimizer = get_state_dict(self.objective, self.optimizer, options=BY_PARAMETER)
        return {"model": model, "optimizer": optimizer}

    def load(self, state: dict[str, Any]) -> None:
        self._hold(average=False)
        set_state_dict(
            self.objective,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=BY_PARAMETER,
        )

    def holdings(self) -> dict[str, list[Tensor]]:
        parameters: list[Tensor] = list(self.objective.parameters())
        return {
            "parameters": [p for p in parameters if p.requires_grad],
            "frozen": [p for p in parameters if not p.requires_grad],
            "gradients": [p.grad for p in parameters if p.grad is not None],
            "optimizer": [v for state in self.optimizer.state.values() for v in state.values()],
        }

    def _norm(self) -> Tensor:
        """Return the norm of the whole gradient: one sum over all ranks, whatever the strategy.

        Every rank adds the squares of its shards, divided by the ranks that hold the same shard.
        """
        squares: dict[int, list[Tensor]] = defaultdict(list)
        for parameter in _with_gradient(self.objective):
            squares[_holders(parameter, self.topology.world_size)].append(local(parameter.grad))
        total = torch.zeros((), dtype=torch.float64, device=self.topology.device)
        for holders, gradients in squares.items():
            norms = torch.stack(torch._foreach_norm(gradients))
            total += (norms.to(total) ** 2).sum() / holders
        dist.all_reduce(total)
        return total.sqrt().float()

    def _reduce_gradients(self, wanted: bool) -> AbstractContextManager[None]:
        """Average over replicas in the last micro-batch of a step alone.

        Shards are reduced in every micro-batch: until then a rank would hold whole gradients.
        """
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_all_reduce(wanted)
        elif not wanted:
            assert isinstance(self.model, DistributedDataParallel)
            return self.model.no_sync()
        return nullcontext()

    def _hold(self, average: bool) -> None:
        """Put the average in the place of the weights, or back; once for a whole evaluation."""
        if not self._averages or self._holds_average == average:
            return
        self._holds_average = average
        for module in self.objective.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what is gathered is of the weights that go
        exchange(self.optimizer)

    def _autocast(self) -> AbstractContextManager[None]:
        low = self.dtype != torch.float32 and not isinstance(self.model, FSDPModule)
        return torch.autocast(self.topology.device.type, self.dtype, enabled=low)


def _groups(objective: Any, found: Mapping[str, Update]) -> list[Group]:
    """Return groups of equal kind on one mesh, which a fused kernel wants, updated alike.

    What is not trained at all is in none.
    """
    hidden = {
        parameter
        for stack in objective.stacks()
        for unit in stack
        for parameter in unit.parameters()
        if parameter.ndim == 2
    }
    groups: dict[Any, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            key = parameter.ndim > 1, parameter in hidden, mesh, found[name]
            groups[key].append(parameter)
    return [Group(parameters, *kind) for (*kind, _, _), parameters in groups.items()]


def _with_gradient(objective: nn.Module) -> list[Any]:
    return [parameter for parameter in objective.parameters() if parameter.grad is not None]


def _holders(parameter: Tensor, world_size: int) -> int:
    """Return how many ranks hold the same shard of a parameter."""
    if not isinstance(parameter, DTensor):
        return world_size
    sizes = zip(parameter.device_mesh.shape, parameter.placements, strict=True)
    return world_size // math.prod(
        size for size, placement in sizes if not placement.is_replicate()
    )
