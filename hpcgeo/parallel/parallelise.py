"""Spread an objective over ranks: the one place that knows in which order that is done."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.nn.parallel import DistributedDataParallel

from hpcgeo.log import log
from hpcgeo.optimizers.layerwise import local
from hpcgeo.options import Parallel
from hpcgeo.parallel.engine import Initial
from hpcgeo.parallel.recompute import recompute
from hpcgeo.parallel.tensor import cut
from hpcgeo.parallel.topology import Topology

#: Sums of bfloat16 gradients were unstable on 384 ranks and fine on 96 (pytorch issue 106395).
MANY_RANKS = 256


class Trainable(Protocol):
    """What is trained: a module whose forward returns named scalars, one of them `loss`.

    One with `replicated`, modules without a unit among them that are called as such and not
    trained, has those whole on every data-parallel rank.
    """

    #: What `Engine.evaluate` calls, by name.
    methods: tuple[str, ...]

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""


def parallelise(
    objective: Any,
    topology: Topology,
    parallel: Parallel,
    dtype: torch.dtype,
    initial: Initial | None,
) -> nn.Module:
    """Spread an objective, built on the meta device, in this order.

    1. cut the products of its units (tensor parallelism);
    2. recompute;
    3. compile each unit;
    4. shard (FSDP2): each unit, then the rest;
    5. materialise this rank's shards, filled with NaN;
    6. initialise them by name and row, the same bits for every strategy;
    7. check that no NaN is left;
    8. wrap (DDP).

    What is sharded is never whole on a rank, not even for a moment. Without `initial` nothing is
    filled: a rehearsal has no values.

    Returns:
        the module to call; the parameters are those of the objective.

    Raises:
        RuntimeError: a parameter was not initialised.
    """
    warn(topology, parallel)
    stacks = objective.stacks()
    units = [unit for stack in stacks for unit in stack]
    if topology.layout.tp > 1:
        cut(stacks, topology.mesh["tp"])
    rewrite(units, parallel)
    sharded = topology.strategy.name != "DDP"
    if sharded:
        _shard(objective, units, topology, parallel, dtype)
    objective.to_empty(device="cpu" if parallel.offload else topology.device)
    if initial is not None:
        initialise(objective, initial)
    if sharded:
        return objective
    devices = [topology.device] if topology.device.type == "cuda" else None
    model = DistributedDataParallel(
        objective, device_ids=devices, gradient_as_bucket_view=True, init_sync=False
    )
    if parallel.reduce_dtype == "bfloat16":
        model.register_comm_hook(None, _average_in_bfloat16)
    return model


def rewrite(units: list[nn.Module], parallel: Parallel) -> None:
    """Recompute, then compile each unit."""
    recompute(units, parallel.recompute)
    if parallel.compile:
        for unit in units:
            unit.forward = torch.compile(unit.forward)


def initialise(objective: nn.Module, initial: Initial) -> None:
    """Fill this rank's part of every parameter, and make sure that none is forgotten.

    Raises:
        RuntimeError: a parameter was not initialised.
    """
    for name, parameter in objective.named_parameters():
        fill(local(parameter), name, parameter.shape, _box(parameter), initial)


@torch.no_grad()
def fill(
    own: Tensor, name: str, shape: Sequence[int], box: Sequence[slice], initial: Initial
) -> None:
    """Fill a part of a parameter with its initial value.

    Raises:
        RuntimeError: the initialisation has left a hole.
    """
    own.fill_(torch.nan)
    rows, *rest = box
    part = (slice(None), *rest)
    own.copy_(initial(name, shape, rows)[part])
    if own.isnan().any():
        raise RuntimeError(f"parameter {name} was not initialised")


def _average_in_bfloat16(
    state: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Average a bucket of DDP's gradients; as torch's own hook, which refuses gloo."""
    low = bucket.buffer().to(torch.bfloat16).div_(dist.get_world_size())
    work = dist.all_reduce(low, async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: bucket.buffer().copy_(done.value()[0]))


def _shard(
    objective: Any, units: list[Any], topology: Topology, parallel: Parallel, dtype: torch.dtype
) -> None:
    pinned = topology.device.type == "cuda"
    options: dict[str, Any] = {
        # Inputs are not cast: the loss has its target in float32, the model casts what it embeds.
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=dtype,
            reduce_dtype=getattr(torch, parallel.reduce_dtype),
            cast_forward_inputs=False,
        ),
        "offload_policy": CPUOffloadPolicy(pinned) if parallel.offload else OffloadPolicy(),
    }
    reshard = topology.strategy.reshard_after_forward
    for whole in getattr(objective, "replicated", ()):
        fully_shard(whole, mesh=_data_parallel(topology.mesh_of_copies), **options)
    options["mesh"] = _data_parallel(topology.mesh)
    for unit in units:
        fully_shard(unit, reshard_after_forward=reshard, **options)
    fully_shard(objective, reshard_after_forward=False, **options)
    for method in getattr(objective, "methods", ()):
        register_fsdp_forward_method(objective, method)
    _prefetch(units, parallel.forward_prefetch, FSDPModule.set_modules_to_forward_prefetch)
    _prefetch(units[::-1], parallel.backward_prefetch, FSDPModule.set_modules_to_backward_prefetch)


def _data_parallel(mesh: DeviceMesh) -> DeviceMesh:
    return mesh[tuple(axis for axis in mesh.mesh_dim_names or () if axis != "tp")]


def _prefetch(units: list[Any], ahead: int | None, register: Any) -> None:
    """Have each unit gather the next ones in the order of their use."""
    if ahead is not None:
        for number, unit in enumerate(units):
            register(unit, units[number + 1 : number + 1 + ahead])


def _box(parameter: Tensor) -> tuple[slice, ...]:
    """Return which part of a parameter this rank holds, a slice for each dimension."""
    if not isinstance(parameter, DTensor):
        return tuple(slice(0, size) for size in parameter.shape)
    sizes, firsts = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    return tuple(slice(first, first + size) for first, size in zip(firsts, sizes, strict=True))


def warn(topology: Topology, parallel: Parallel) -> None:
    """Say what was asked for and may be regretted, once."""
    if topology.rank:
        return
    if parallel.reduce_dtype == "bfloat16" and topology.world_size > MANY_RANKS:
        log.warning(
            "parallel.reduce_dtype=bfloat16 on %d ranks: sums of gradients were seen to become "
            "unstable between 96 and 384 ranks; float32 is safe",
            topology.world_size,
        )
    if parallel.offload and topology.device.type == "cpu":
        log.warning("parallel.offload: this device is the host, there is nothing to move")
