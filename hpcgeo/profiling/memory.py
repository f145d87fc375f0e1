"""Memory of a rank by cause: every tensor of one step followed from its allocation to its release.

What the causes mean, as the peak of the step finds them:

  parameters   what the engine holds between steps: weights or shards of them, float32 masters
  frozen       those of them that are not trained: a teacher, or a backbone under LoRA
  gradients    of parameters, reduced or not
  optimizer    the moments
  gathered     units gathered from shards, and the buffers they arrive in; the copies of DDP's
               autocast
  activations  made by forward, or again by recompute, and not yet released
  batch        made before forward: a micro-batch, its views, and what making them takes
  other        gradients of activations, buckets, temporaries

The dispatcher of torch sees an allocation, a weak reference to the storage its release. A step that
is observed is slower, and is no measured one. Compiled code would not run as such under an eye on
the dispatcher, so there activations are what it saves for backward, autocast's copies among them,
and `other` is what the allocator counts besides; on a CPU that is not known.
"""

import gc
import os
import weakref
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpcgeo.config import RunConfig
from hpcgeo.measured import Memory
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.topology import Topology
from hpcgeo.phases import PHASES, watched
from hpcgeo.plan.memory import predict
from hpcgeo.train.meter import peak_memory_bytes
from hpcgeo.zoo import Forms

Item = TypeVar("Item")

CAUSES = (
    *("parameters", "frozen", "gradients", "optimizer", "gathered", "activations", "batch"),
    "other",
)

#: What between steps is the model.
WEIGHTS = ("parameters", "frozen")

#: The phases in which a batch becomes what the model takes.
BEFORE = PHASES[: PHASES.index("forward")]

#: Operators that carry units from and to their shards: what all their tensors are.
CARRIERS = {
    "c10d::_allgather_base_": "gathered",
    "c10d::allgather_": "gathered",
    "c10d::allgather_into_tensor_coalesced_": "gathered",
    "c10d::_reduce_scatter_base_": "gradients",
    "c10d::reduce_scatter_": "gradients",
    "fsdp::all_gather_copy_in": "gathered",
    "fsdp::split_with_sizes_copy": "gathered",
    "fsdp::chunk_cat": "gradients",
}
#: And those that hand on what they are given, outside the mathematics of the model.
COPIES = ("aten::copy_", "aten::cat")


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Books the storages of one device: a line for each allocation, resizing and release.

    Attributes:
        before: bytes of the storages that were there at the start, by their number.
        in_forward: whether the model computes its loss.
        phase: of the step, now; after `at_peak` that of the peak.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.before: dict[int, int] = {}
        self.in_forward = False
        self.phase = "other"
        self._device = device
        self._lines: list[tuple[int, int, str]] = []  # number, bytes more or fewer, phase
        self._open: dict[int, tuple[int, int, Any]] = {}  # by id: number, bytes, weak reference
        self._opened = 0
        self._held: dict[int, str] = {}  # by number, as the engine says
        self._carried: dict[int, str] = {}
        self._made: dict[int, str] = {}
        for tensor in _tensors():
            self._find(tensor)

    def hold(self, holdings: dict[str, list[Tensor]]) -> None:
        """Learn what the engine says its tensors are."""
        for cause, tensors in holdings.items():
            for tensor in tensors:
                number = self._find(tensor)
                if number is not None:
                    self._held[number] = cause

    def course(self) -> Iterator[Counter[str]]:
        """Yield the bytes by cause after each line, in one counter that goes on changing."""
        cause_of = ChainMap(self._held, self._carried, self._made)
        now: Counter[str] = Counter()
        for number, size in self.before.items():
            now[cause_of.get(number, "other")] += size
        yield now
        for number, change, phase in self._lines:
            self.phase = phase
            now[cause_of.get(number, "other")] += change
            yield now

    def at_peak(self) -> Counter[str]:
        """Return the bytes by cause at the moment when they were most."""
        peak, phase = Counter[str](), self.phase
        for now in self.course():
            if now.total() > peak.total():
                peak, phase = now.copy(), self.phase
        self.phase = phase
        return peak

    @contextmanager
    def watch(self, name: str) -> Iterator[None]:
        """Know the phase of the step, inside another one too."""
        before, self.phase = self.phase, name
        try:
            yield
        finally:
            self.phase = before

    def save(self, tensor: Tensor) -> Tensor:
        """Book what autograd saves: compiled code has made it unseen."""
        self._book(tensor, "activations")
        return tensor

    def resize(self, storage: torch.UntypedStorage) -> None:
        """Book that FSDP2 gives memory to a gathered parameter, or takes it away."""
        if id(storage) in self._open:
            self._carried[self._open[id(storage)][0]] = "gathered"
        self._resized(storage)

    def _resized(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._open:
            number, size, reference = self._open[id(storage)]
            if storage.nbytes() != size:
                self._lines.append((number, storage.nbytes() - size, self.phase))
                self._open[id(storage)] = (number, storage.nbytes(), reference)

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        if any(issubclass(kind, (DTensor, AsyncCollectiveTensor)) for kind in types):
            return NotImplemented  # the tensors inside come by as well
        named = named or {}
        answer = operator(*arguments, **named)
        again = torch._C._current_graph_task_id() >= 0 and torch.is_grad_enabled()
        made = "batch" if self.phase in BEFORE else "other"
        made = "activations" if self.in_forward or again else made
        for tensor in tree_leaves((answer, named.get("out"))):
            self._book(tensor, made)
        name = operator.name().partition(".")[0]
        if name in CARRIERS:
            self._carry((arguments, named, answer), CARRIERS[name])
        elif name in COPIES and not torch.is_grad_enabled():
            causes = [self._said(self._carried, t) for t in tree_leaves(arguments)]
            if cause := next(filter(None, causes[::-1]), None):
                self._carry(answer, cause)
        elif name == "aten::_to_copy" and self._said(self._held, arguments[0]) in WEIGHTS:
            self._carry(answer, "gathered")
        return answer

    def _said(self, causes: dict[int, str], tensor: Any) -> str | None:
        number = self._find(tensor)
        return None if number is None else causes.get(number)

    def _carry(self, tensors: Any, cause: str) -> None:
        for tensor in tree_leaves(tensors):
            number = self._find(tensor)
            if number is not None:
                self._carried[number] = cause

    def _find(self, tensor: Any) -> int | None:
        """Return the number of a tensor's storage; an unknown one was there before the start."""
        storage = self._storage(tensor)
        if storage is None:
            return None
        if id(storage) not in self._open:
            self.before[self._number(storage)] = storage.nbytes()
        return self._open[id(storage)][0]

    def _book(self, tensor: Any, made: str) -> None:
        """Write down a storage that is new, or has another size."""
        storage = self._storage(tensor)
        if storage is None:
            return
        if id(storage) in self._open:
            self._resized(storage)
        else:
            number = self._number(storage)
            self._made[number] = made
            self._lines.append((number, storage.nbytes(), self.phase))

    def _storage(self, tensor: Any) -> torch.UntypedStorage | None:
        if isinstance(tensor, DTensor):
            tensor = tensor._local_tensor
        if isinstance(tensor, AsyncCollectiveTensor):
            tensor = tensor.elem
        if not isinstance(tensor, Tensor) or tensor.device.type != self._device.type:
            return None
        return tensor.untyped_storage()

    def _number(self, storage: torch.UntypedStorage) -> int:
        self._opened += 1
        reference = weakref.ref(storage, partial(self._release, id(storage)))
        self._open[id(storage)] = (self._opened, storage.nbytes(), reference)
        return self._opened

    def _release(self, key: int, reference: Any) -> None:
        number, size, _ = self._open.pop(key)
        self._lines.append((number, -size, self.phase))


def observe(
    engine: Engine, topology: Topology, step: Callable[[], Item], *, compiled: bool = False
) -> tuple[Item, Memory]:
    """Run one training step; return its answer, and what this rank held when it held most.

    Args:
        engine: whose step it is.
        step: forward, backward and update.
        compiled: whether the units are compiled.
    """
    device = topology.device
    on_device = device.type == "cuda"
    gc.collect()
    if on_device:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
    ledger = Ledger(device)
    ledger.hold(engine.holdings())
    seen = saved_tensors_hooks(ledger.save, lambda tensor: tensor) if compiled else ledger
    with _watching(ledger, engine), watched(ledger.watch), seen:
        answer = step()
    ledger.hold(engine.holdings())
    if on_device:
        # What C++ alone holds, such as workspaces of libraries.
        ledger.before[0] = max(0, allocated - sum(ledger.before.values()))
    peak = ledger.at_peak()
    bytes_of: dict[str, int | None] = {f"{cause}_bytes": peak[cause] for cause in CAUSES}
    if compiled:
        named = peak.total() - peak["other"]
        most = torch.cuda.max_memory_allocated(device) if on_device else 0
        bytes_of["other_bytes"] = max(0, most - named) if on_device else None
    allocator, limit = _of_allocator(device), limit_bytes(topology)
    return answer, Memory(**bytes_of, **allocator, limit_bytes=limit, phase=ledger.phase)


def worst(memory: Memory, topology: Topology) -> Memory:
    """Return the memory of the rank that holds most; every rank calls it."""
    of_ranks: list[Any] = [None] * topology.world_size
    dist.all_gather_object(of_ranks, memory)
    return max(of_ranks, key=total)


def total(memory: Memory) -> int:
    """Return the bytes of all causes."""
    return sum(getattr(memory, f"{cause}_bytes") or 0 for cause in CAUSES)


def predicted(run: RunConfig, forms: Forms, world_size: int) -> Memory:
    """Return what the closed form says of a rank; no cause of it stands for all that is `other`."""
    form = predict(forms, run.parallel, run.train, world_size, run.optim)
    return Memory(**{f"{cause}_bytes": round(getattr(form, cause)) for cause in CAUSES[:-1]})


@contextmanager
def _watching(ledger: Ledger, engine: Engine) -> Iterator[None]:
    def forward(begins: bool, *_: Any) -> None:
        ledger.in_forward = begins
        if begins:
            ledger.hold(engine.holdings())  # gradients of the micro-batches before

    resize = torch.UntypedStorage.resize_

    def resize_and_book(storage: Any, size: int) -> Any:
        answer = resize(storage, size)
        ledger.resize(storage)
        return answer

    objective = engine.objective
    with ExitStack() as stack:
        for handle in (
            objective.register_forward_pre_hook(partial(forward, True), prepend=True),
            objective.register_forward_hook(partial(forward, False)),
            register_optimizer_step_pre_hook(lambda *_: ledger.hold(engine.holdings())),
        ):
            stack.callback(handle.remove)
        torch.UntypedStorage.resize_ = resize_and_book  # type: ignore
        stack.callback(setattr, torch.UntypedStorage, "resize_", resize)
        yield


def _tensors() -> Iterator[Tensor]:
    """Yield the tensors that Python holds."""
    for found in gc.get_objects():
        if type(found) in (Tensor, torch.nn.Parameter):  # others hold one of these
            yield found


def _of_allocator(device: torch.device) -> dict[str, int]:
    if device.type == "cpu":
        return {"peak_resident_bytes": peak_memory_bytes(device)}
    stats = torch.cuda.memory_stats(device)
    return {
        f"peak_{kind}_bytes": stats[f"{kind}_bytes.all.peak"]
        for kind in ("allocated", "active", "reserved")
    }


def limit_bytes(topology: Topology) -> int | None:
    """Return what a rank may have: its device's memory, or its share of what the host grants."""
    if topology.device.type == "cuda":
        return torch.cuda.get_device_properties(topology.device).total_memory
    host = topology.places[topology.rank].host
    sharers = sum(place.host == host for place in topology.places)
    return host_bytes() // sharers


def host_bytes(root: Path = Path("/")) -> int:
    """Return the memory that the processes of this job may take on this host.

    Args:
        root: of the file system, for tests.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    groups = root / "sys/fs/cgroup"
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        folder, name = groups / path.strip("/"), "memory.max"
        if controllers.split(",") == ["memory"]:
            folder, name = groups / "memory" / path.strip("/"), "memory.limit_in_bytes"
        elif controllers:
            continue
        for group in (folder, *folder.parents):
            try:
                limits.append(int((group / name).read_text()))
            except (OSError, ValueError):  # not there, or "max"
                continue
    return min(limits)
