"""Who talks to whom: the process group, the device of this rank, and the mesh of a strategy."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from hpcgeo.errors import InputError
from hpcgeo.strategies import Strategy

Answer = TypeVar("Answer")

#: A collective that takes longer has lost a rank; before the first step ranks may load for long.
TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Topology:
    """The place of this rank, and how many ranks hold one copy of the model."""

    rank: int
    world_size: int
    device: torch.device
    strategy: Strategy
    shard_size: int

    def __str__(self) -> str:
        copies = self.world_size // self.shard_size
        return (
            f"{self.strategy.name}: {self.world_size} {self.device.type} ranks = {copies} "
            f"{'copy' if copies == 1 else 'copies'} x {self.shard_size} "
            f"{'rank' if self.shard_size == 1 else 'ranks'} a copy"
        )

    def mesh(self) -> DeviceMesh:
        """Return the mesh to shard over: (dp_shard) for one copy, else (dp_replicate, dp_shard)."""
        if self.shard_size == self.world_size:
            return init_device_mesh(
                self.device.type, (self.world_size,), mesh_dim_names=("dp_shard",)
            )
        return init_device_mesh(
            self.device.type,
            (self.world_size // self.shard_size, self.shard_size),
            mesh_dim_names=("dp_replicate", "dp_shard"),
        )


def join(
    rank: int,
    world_size: int,
    local_rank: int,
    local_size: int,
    master: tuple[str, int] | None,
    threads: int | None = None,
) -> torch.device:
    """Join the process group and return the device of this rank.

    A CPU rank gets its share of the cores it may use; a GPU rank its device (device 0 where the
    launcher shows each task one only).

    Args:
        master: address and port of rank 0; None for a single process.
        threads: of a CPU rank; None for its share.

    Raises:
        InputError: rank 0 cannot be reached.
    """
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if count > 1 and local_rank >= count:
            raise InputError(
                f"rank {rank} is number {local_rank} of {local_size} on a host with {count} "
                f"devices: start one rank a device"
            )
        device = torch.device("cuda", local_rank % count)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
        torch.set_num_threads(threads or share_of_cores(local_size))
    backend = "nccl" if device.type == "cuda" else "gloo"
    if master is None:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
        return device
    address, port = master
    try:
        dist.init_process_group(
            backend,
            init_method=f"tcp://{address}:{port}",
            rank=rank,
            world_size=world_size,
            timeout=TIMEOUT,
        )
    except dist.DistError as error:
        raise InputError(
            f"rank {rank} of {world_size} cannot meet the others at {address}:{port}: "
            f"{str(error).splitlines()[0]}; set MASTER_ADDR to the host of rank 0 and MASTER_PORT "
            f"to a free port there"
        ) from error
    return device


def share_of_cores(local_size: int) -> int:
    """Return how many cores one of `local_size` ranks on this host has for itself, at least 1.

    A launcher that binds ranks to cores has already divided them.
    """
    mine = len(os.sched_getaffinity(0))
    bound = mine < (os.cpu_count() or 1)
    return mine if bound else max(1, mine // local_size)


def on_rank_0(action: Callable[[], Answer]) -> Answer:
    """Run `action` on rank 0 and return its answer on every rank.

    Raises:
        InputError: rank 0 met one; every rank raises it, none is left waiting.
    """
    answer: list[Answer | InputError | None] = [None]
    if dist.get_rank() == 0:
        try:
            answer[0] = action()
        except InputError as error:
            answer[0] = error
    dist.broadcast_object_list(answer, src=0)
    if isinstance(answer[0], InputError):
        raise answer[0]
    return answer[0]  # type: ignore[return-value]
