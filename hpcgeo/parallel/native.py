"""The engine of PyTorch's own strategies: DDP, and FSDP2 for everything that shards or replicates.

DDP keeps float32 weights and computes under autocast; FSDP2 gathers weights in the dtype of the
arithmetic. Both reduce gradients and step in float32.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.parallel import DistributedDataParallel

from hpcgeo.config import Optim
from hpcgeo.models.initialise import draw
from hpcgeo.parallel.engine import Inputs
from hpcgeo.parallel.topology import Topology

#: The optimizer's state by the names of parameters, whatever groups a strategy makes of them.
BY_PARAMETER = StateDictOptions(flatten_optimizer_state_dict=True)


class Objective(Protocol):
    """What is trained: a module whose forward returns named scalars, one of them `loss`."""

    def units(self) -> list[nn.Module]:
        """Return the modules to shard one by one."""


class NativeEngine:
    """An objective spread by DDP or FSDP2, with its optimizer."""

    def __init__(
        self,
        objective: nn.Module,
        topology: Topology,
        *,
        optim: Optim,
        dtype: torch.dtype,
        accumulate: int,
        seed: int,
    ) -> None:
        """Spread an objective that was built on the meta device; see `spread`."""
        self.topology = topology
        self.dtype = dtype
        self.accumulate = accumulate
        self.clip = optim.clip
        self.objective, self.model = spread(objective, topology, dtype, seed)
        matrices = [p for p in objective.parameters() if p.ndim > 1]
        vectors = [p for p in objective.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": optim.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=optim.betas,
            fused=True,
        )

    def forward_backward(self, micro_batches: Iterable[Inputs]) -> dict[str, Tensor]:
        totals: dict[str, Tensor] = {}
        for number, inputs in enumerate(micro_batches, 1):
            with self._reduce_gradients(number == self.accumulate):
                with self._autocast():
                    scalars = self.model(**inputs)
                (scalars["loss"] / self.accumulate).backward()
            for name, value in scalars.items():
                mean = value.detach() / self.accumulate
                totals[name] = totals[name] + mean if name in totals else mean
        return totals

    def step(self, lr: float) -> Tensor:
        bound = self.clip if self.clip is not None else torch.inf
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), bound)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def evaluate(self, method: str, inputs: Inputs) -> Any:
        with torch.no_grad(), self._autocast():
            return getattr(self.objective, method)(**inputs)

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.objective, self.optimizer, options=BY_PARAMETER)
        return {"model": model, "optimizer": optimizer}

    def load(self, state: dict[str, Any]) -> None:
        set_state_dict(
            self.objective,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=BY_PARAMETER,
        )

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

    def _autocast(self) -> AbstractContextManager[None]:
        low = self.dtype != torch.float32 and not isinstance(self.model, FSDPModule)
        return torch.autocast(self.topology.device.type, self.dtype, enabled=low)


def spread(
    objective: nn.Module, topology: Topology, dtype: torch.dtype, seed: int
) -> tuple[nn.Module, nn.Module]:
    """Spread an objective over ranks, in this order.

    1. shard (FSDP2): each unit, then the rest, on the meta device;
    2. materialise this rank's shards, filled with NaN;
    3. initialise them from (seed, name, row), the same bits for every strategy;
    4. check that no NaN is left;
    5. wrap (DDP).

    Returns:
        the objective, whose parameters are trained, and the module to call.

    Raises:
        RuntimeError: a parameter was not initialised.
    """
    sharded = topology.strategy.name != "DDP"
    if sharded:
        _shard(objective, topology, dtype)
    objective.to_empty(device=topology.device)
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            parameter.fill_(torch.nan)
            _initialise(name, parameter, seed)
            if _local(parameter).isnan().any():
                raise RuntimeError(f"parameter {name} was not initialised")
    if sharded:
        return objective, objective
    devices = [topology.device] if topology.device.type == "cuda" else None
    return objective, DistributedDataParallel(
        objective, device_ids=devices, gradient_as_bucket_view=True, init_sync=False
    )


def _shard(objective: Any, topology: Topology, dtype: torch.dtype) -> None:
    # Inputs are not cast: the target of the loss stays in float32, the model casts what it embeds.
    precision = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    mesh = topology.mesh()
    reshard = topology.strategy.reshard_after_forward
    for unit in objective.units():
        fully_shard(unit, mesh=mesh, mp_policy=precision, reshard_after_forward=reshard)
    fully_shard(objective, mesh=mesh, mp_policy=precision, reshard_after_forward=False)
    register_fsdp_forward_method(objective, "reconstruct")


def _initialise(name: str, parameter: Tensor, seed: int) -> None:
    rows = slice(None)
    if isinstance(parameter, DTensor):
        (size, *_), (first, *_) = compute_local_shape_and_global_offset(
            parameter.shape, parameter.device_mesh, parameter.placements
        )
        rows = slice(first, first + size)
    local = _local(parameter)
    local.copy_(draw(name, parameter.shape, rows, seed))


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
