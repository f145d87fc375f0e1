"""How ranks meet: the process group, its store, and what one rank does for all."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed._functional_collectives import all_gather_tensor_autograd
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.rendezvous import _torchelastic_use_agent_store

from hpcgeo.errors import InputError
from hpcgeo.parallel.device import refuse_shared

Answer = TypeVar("Answer")

#: A collective that takes longer is given up by the backend: the last resort, behind the watchdog
#: of the training loop, which knows what the ranks are doing and says so.
TIMEOUT = timedelta(minutes=20)
#: What stands where a start that nobody waited for has ended.
_OVER = "over"


def join(
    rank: int,
    world_size: int,
    local_rank: int,
    local_size: int,
    meeting: tuple[str, int, str] | None,
    threads: int | None = None,
    *,
    run: str,
    host: str,
    rendezvous_timeout_s: float,
) -> torch.device:
    """Join the process group and return the device of this rank.

    A rank gets its share of the cores it may use, and a GPU rank its device (device 0 where the
    launcher shows each task one only).

    Args:
        meeting: address and port of rank 0, and what the launcher calls this start (empty:
            nothing); None for a single process.
        threads: of a rank on its host; None for its share.
        run: what all ranks work at, and those of another run do not: a port can be shared.
        host: of this rank.
        rendezvous_timeout_s: seconds to wait for the others.

    Raises:
        InputError: rank 0 cannot be reached or is of another run, or others do not come.
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
    # Of a GPU rank they update what is offloaded; torchrun would leave it one.
    torch.set_num_threads(threads or share_of_cores(local_size))
    # No device_id, which would connect them here: meshes then split their groups off this one
    # (ncclCommSplit), and that has not been run on devices yet.
    backend = "nccl" if device.type == "cuda" else "gloo"
    if meeting is None:
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=alone, rank=0, world_size=1)
        return device
    try:
        store = _meet(rank, world_size, host, meeting, run, rendezvous_timeout_s)
        if device.type == "cuda":
            refuse_shared(store, rank, world_size, host, device)
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT
        )
    except (dist.DistError, OSError) as error:
        address, port, _ = meeting
        raise InputError(
            f"cannot meet the other ranks at {address}:{port}: "
            f"{str(error).splitlines()[0]}; set MASTER_ADDR to the host of rank 0 and MASTER_PORT "
            f"to a free port there, or raise "
            f"launch.rendezvous_timeout_s = {rendezvous_timeout_s:g} s where rank 0 starts later"
        ) from error
    return device


def _meet(
    rank: int, world_size: int, host: str, meeting: tuple[str, int, str], run: str, timeout_s: float
) -> Store:
    """Return the store of all ranks when all have come; rank 0 waits and says who is missing.

    The store of torchrun's agent outlives ranks that it starts again, and what dead ranks wrote
    into it stays: each start has a name of its own, drawn by its rank 0, in front of its keys.
    """
    address, port, start = meeting
    serves = rank == 0 and not _torchelastic_use_agent_store()
    if not serves:
        _reach(address, port, timeout_s)
    shared = TCPStore(
        address,
        port,
        is_master=serves,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
    )
    own = json.dumps([start, "" if start else run])
    if rank == 0:
        store, missing = _call(shared, own, world_size, host, timeout_s)
    else:
        store, missing = _answer(shared, own, rank, host, timeout_s, f"{address}:{port}")
    if missing:
        error = InputError(
            f"{missing} did not come to {address}:{port} within {timeout_s:g} s: see what they or "
            f"their hosts say, or raise launch.rendezvous_timeout_s where ranks start later"
        )
        error.shared = True
        raise error
    store.set_timeout(TIMEOUT)
    return store


def _call(
    shared: Store, own: str, world_size: int, host: str, timeout_s: float
) -> tuple[Store, str]:
    """Begin a start, on rank 0; return its store, and which ranks have not come in time."""
    before = shared.get("start") if shared.check(["start"]) else b""
    name = uuid4().hex
    store = PrefixStore(name, shared)
    store.set("host/0", host)
    store.add("arrived", 1)
    shared.set("start", f"{name} {own}")
    if before:  # ranks that answered a start whose rank 0 is dead look again
        PrefixStore(before.decode().partition(" ")[0], shared).set("met", _OVER)
    missing = _missing(store, world_size, timeout_s)
    store.set("met", missing)
    return store, missing


def _answer(
    shared: Store, own: str, rank: int, host: str, timeout_s: float, where: str
) -> tuple[Store, str]:
    """Answer the start that rank 0 began; return its store, and which ranks have not come."""
    # The others may have come first, and then wait a little longer than rank 0.
    end = time.monotonic() + 2 * timeout_s
    while True:
        left = timedelta(seconds=max(1.0, end - time.monotonic()))
        shared.wait(["start"], left)
        name, _, theirs = shared.get("start").decode().partition(" ")
        if theirs != own:
            named = " of ".join(filter(None, json.loads(theirs)[::-1]))
            raise InputError(
                f"at {where} the ranks of another run meet ({named}): two runs share a port; give "
                f"each a MASTER_PORT of its own"
            )
        store = PrefixStore(name, shared)
        if not store.check(["met"]):  # else: a start that is over; the next one is about to begin
            store.set(f"host/{rank}", host)
            store.add("arrived", 1)
            store.wait(["met"], left)
            if (missing := store.get("met").decode()) != _OVER:
                return store, missing
            end = time.monotonic() + 2 * timeout_s
        elif time.monotonic() > end:
            raise dist.DistNetworkError(f"rank 0 did not start within {2 * timeout_s:g} s")
        time.sleep(0.2)


def _reach(address: str, port: int, rendezvous_timeout_s: float) -> None:
    """Wait until someone listens; the store's own client fills the log with traces meanwhile."""
    end = time.monotonic() + rendezvous_timeout_s
    while True:
        try:
            left = max(1.0, end - time.monotonic())
            socket.create_connection((address, port), timeout=left).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _missing(store: Store, world_size: int, rendezvous_timeout_s: float) -> str:
    """Return in words which ranks have not come in time; nothing where all have."""
    end = time.monotonic() + rendezvous_timeout_s
    while (arrived := store.add("arrived", 0)) < world_size:
        if time.monotonic() > end:
            ranks = [rank for rank in range(world_size) if not store.check([f"host/{rank}"])]
            return f"{world_size - arrived} of {world_size} ranks ({listed(ranks)})"
        time.sleep(0.05)
    return ""


def listed(ranks: Iterable[int]) -> str:
    """Return ranks in words, the first ones where there are many.

    >>> listed([3, 5])
    'ranks 3, 5'
    """
    first = sorted(ranks)
    more = f" and {len(first) - 8} more" if len(first) > 8 else ""
    word = "rank" if len(first) == 1 else "ranks"
    return f"{word} {', '.join(map(str, first[:8]))}{more}"


def barrier() -> None:
    """Wait for all ranks, each on the device it has chosen; torch warns where it is not named."""
    nccl = dist.get_backend() == "nccl"
    dist.barrier(device_ids=[torch.cuda.current_device()] if nccl else None)


def own_store() -> Store:
    """Return a connection of its own to the store of the group; its calls hold up no others."""
    return _get_default_store().clone()  # type: ignore[attr-defined]


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
            error.shared = True
            answer[0] = error
    dist.broadcast_object_list(answer, src=0)
    if isinstance(answer[0], InputError):
        raise answer[0]
    return answer[0]  # type: ignore[return-value]


def gatherer(tensor: int) -> Callable[[Tensor], Tensor]:
    """Return what puts the samples (B, ...) of all ranks side by side, (W B, ...), in their order.

    Gradients of what others made of a rank's samples are added up on that rank.

    Args:
        tensor: ranks of tensor parallelism.

    Raises:
        InputError: ranks of tensor parallelism have the same samples.
    """
    if tensor > 1:
        raise InputError(
            f"parallel.tensor {tensor}: the objective compares samples of all ranks, and these "
            f"have the same: set parallel.tensor=1"
        )
    world = dist.group.WORLD
    assert world is not None, "ranks have met"
    return lambda value: all_gather_tensor_autograd(value.contiguous(), 0, world)
