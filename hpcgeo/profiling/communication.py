"""Bookkeeping of collectives: every one that this process starts, when, over whom, how large.

Each operation of torch.distributed, whoever starts it (DDP's reducer in C++, FSDP2, DTensor,
DeepSpeed), passes the dispatcher as ``c10d::...``. Our kernel stands before the one of the
backend, notes the operation and hands it on; no name of a device's kernel is looked at. The same
place can leave it out: then a step costs what it costs without communication (and its numbers mean
nothing).
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from hpcgeo.train.clock import Clock

#: Operation of c10d -> its name, and the argument that is the whole message.
OPERATIONS = {
    "allreduce_": ("all_reduce", 0),
    "allreduce_coalesced_": ("all_reduce", 0),
    "_allgather_base_": ("all_gather", 0),
    "allgather_": ("all_gather", 0),
    "allgather_into_tensor_coalesced_": ("all_gather", 0),
    "_reduce_scatter_base_": ("reduce_scatter", 1),
    "reduce_scatter_": ("reduce_scatter", 1),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", 1),
    "broadcast_": ("broadcast", 0),
    "reduce_": ("reduce", 0),
    "alltoall_base_": ("all_to_all", 1),
    "alltoall_": ("all_to_all", 1),
    "barrier": ("barrier", 0),
}

#: Bus bandwidth over algorithm bandwidth of n ranks (nccl-tests, doc/PERFORMANCE.md).
BUS: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
}

#: Where our kernel stands: every collective passes it, also those of operators in C++ that have
#: left autograd, on any device; nothing of c10d is registered there.
KEY = torch._C.DispatchKey.ADInplaceOrView

#: Python's lock is handed on so soon to the thread that notes the end of a collective.
SWITCH_S = 1e-4

Array = npt.NDArray[np.float64]


class RankGroup(NamedTuple):
    """The ranks of a process group."""

    name: str  #: axis of the mesh, or world
    ranks: tuple[int, ...]


class CollectiveKind(NamedTuple):
    """What a collective is: two ranks of a group agree in it call by call."""

    collective: str
    group: RankGroup
    message_bytes: int


@dataclass
class _Call:
    """A collective under way, and its moments."""

    kind: CollectiveKind
    begin: Any
    end: Any = None
    queues: bool = False  #: it runs on a stream of its group, behind the one before


@dataclass(frozen=True)
class Calls:
    """The collectives of one step of one rank, in the order they were started."""

    kinds: tuple[CollectiveKind, ...]
    begin: Array  #: (N,) seconds on the clock of this rank
    seconds: Array  #: (N,) until completion

    @property
    def busy_s(self) -> float:
        """Seconds in which at least one of them ran."""
        return float(union_s(self.begin[None], self.begin[None] + self.seconds)[0])


class Bookkeeping:
    """The collectives of this process, from `begin` to `end` of a step."""

    def __init__(self, device: torch.device, *, communication: bool = True) -> None:
        """Prepare to note collectives; without `communication` those of a step do nothing."""
        self.communication = communication
        self._clock = Clock(device)
        self._calls: list[_Call] = []
        self._noting = False
        self._groups: dict[str, RankGroup] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand between c10d and its backends for a while."""
        library: Any = torch.library.Library("c10d", "IMPL")  # type: ignore[no-untyped-call]
        for operation in OPERATIONS:
            library.impl(operation, self._kernel(operation), KEY.name)
        interval = sys.getswitchinterval()
        if not self._clock.on_device:
            sys.setswitchinterval(SWITCH_S)
        try:
            yield
        finally:
            sys.setswitchinterval(interval)
            library._destroy()

    def begin(self) -> None:
        """Note the collectives from here on: a step begins."""
        self._calls = []
        self._zero = self._clock.now()
        self._noting = True

    def end(self) -> Calls:
        """Return the collectives since `begin`; the device has been synchronised."""
        self._noting = False
        if not self._clock.on_device:
            self._wait_for_ends()
        begins, seconds = [], []
        free: dict[RankGroup, float] = {}
        for call in self._calls:
            begin = self._clock.seconds(self._zero, call.begin)
            end = self._clock.seconds(self._zero, call.end)
            if call.queues:
                begin = max(begin, free.get(call.kind.group, 0.0))
                free[call.kind.group] = end
            begins.append(begin)
            seconds.append(max(0.0, end - begin))
        kinds = tuple(call.kind for call in self._calls)
        return Calls(kinds, np.array(begins), np.array(seconds))

    def _wait_for_ends(self) -> None:
        """Wait for the thread that completes collectives: it tells just after the rank goes on."""
        patience = time.perf_counter() + 1.0
        while any(call.end is None for call in self._calls) and time.perf_counter() < patience:
            time.sleep(1e-4)
        for call in self._calls:
            call.end = call.end or time.perf_counter()

    def _kernel(self, operation: str) -> Any:
        collective, place = OPERATIONS[operation]
        overload = getattr(torch.ops.c10d, operation).default

        def usual(arguments: Any) -> Any:
            # Through torch.ops, which releases Python's lock: gloo frees tensors under its own.
            with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(KEY)):
                return overload(*arguments)

        def kernel(*arguments: Any) -> Any:
            if not self._noting:
                return usual(arguments)
            if not self.communication:
                return _left_out(operation, arguments)
            kind = CollectiveKind(collective, self._group(arguments), _bytes(arguments[place]))
            call = _Call(kind, self._clock.now())
            self._calls.append(call)
            answer = usual(arguments)
            work = dist.Work.unbox(answer[-1] if isinstance(answer, tuple) else answer)
            if self._clock.on_device:
                self._tell_on_device(work, call)
            else:
                # It began somewhere within the call: between making its buffers and coming back.
                call.begin = (call.begin + time.perf_counter()) / 2
                _tell(work, call)
            return answer

        return kernel

    def _tell_on_device(self, work: Any, call: _Call) -> None:
        """Have the end of a collective noted on the stream that it runs on.

        One that is waited for at once has no work, and runs on the current stream. The future of
        another one is complete as soon as it is started: its callback runs now, on a stream that
        waits for the collective.
        """

        def stop(done: Any = None) -> None:
            call.end = self._clock.now()

        if work is None:
            stop()
        else:
            call.queues = True
            work.get_future().add_done_callback(stop)

    def _group(self, arguments: Sequence[Any]) -> RankGroup:
        group = _group_of(arguments)
        if group.group_name not in self._groups:
            ranks = tuple(dist.get_process_group_ranks(group))
            name = group.group_desc.removeprefix("mesh_")
            if name in ("", "undefined"):
                name = f"group of {len(ranks)}"
            name = "world" if len(ranks) == dist.get_world_size() else name
            self._groups[group.group_name] = RankGroup(name, ranks)
        return self._groups[group.group_name]


def _tell(work: Any, call: _Call) -> None:
    """Have the end of a collective noted by whoever completes it."""

    def stop(done: Any = None) -> None:
        call.end = time.perf_counter()

    try:
        work.get_future().add_done_callback(stop)
    except RuntimeError:  # gloo's reduce-scatter tells nobody; FSDP2 waits for it at once, too
        work.wait()
        stop()


def _group_of(arguments: Sequence[Any]) -> Any:
    boxed = next(
        argument
        for argument in arguments
        if isinstance(argument, torch.ScriptObject) and "ProcessGroup" in str(argument._type())
    )
    return dist.ProcessGroup.unbox(boxed)


def _bytes(tensors: Any) -> int:
    if isinstance(tensors, Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(_bytes(tensor) for tensor in tensors)


def _flat(tensors: Any) -> list[Tensor]:
    if isinstance(tensors, Tensor):
        return [tensors]
    return [tensor for inner in tensors for tensor in _flat(inner)]


def _left_out(operation: str, arguments: Sequence[Any]) -> Any:
    """Return at once what the collective gives where all ranks hold the same: finite numbers."""
    group = _group_of(arguments)
    outputs, collective = _flat(arguments[0]), OPERATIONS[operation][0]
    if collective == "reduce_scatter":
        inputs = _flat(arguments[1])
        for number, output in enumerate(outputs):
            pieces = len(inputs) > len(outputs)  # one by one, or as a whole
            whole = inputs[group.rank()] if pieces else inputs[number]
            output.view(-1).copy_(whole if pieces else whole.view(group.size(), -1)[group.rank()])
    elif collective == "all_gather":
        inputs = _flat(arguments[1])
        for number, output in enumerate(outputs):
            own = inputs[min(number, len(inputs) - 1)].reshape(-1)
            rows = output.view(-1, own.numel())
            at = group.rank() if len(rows) > 1 else 0  # as a whole, or one by one
            for part in (rows[:at], rows[at + 1 :]):
                part.copy_(own)
            if rows[at].data_ptr() != own.data_ptr():  # it may be gathered in place
                rows[at].copy_(own)
    future: Any = torch.futures.Future()
    future.set_result(outputs)
    create: Any = torch._C._distributed_c10d._create_work_from_future  # type: ignore[attr-defined]
    done = create(future).boxed()
    returns = getattr(torch.ops.c10d, operation).default._schema.returns
    return (arguments[0], done) if len(returns) == 2 else done


def union_s(begin: Array, end: Array) -> Array:
    """Return the seconds in which at least one interval of a row runs: (R, N) -> (R,)."""
    if not begin.size:
        return np.zeros(len(begin))
    order = np.argsort(begin, axis=1)
    begin, end = np.take_along_axis(begin, order, 1), np.take_along_axis(end, order, 1)
    before = np.maximum.accumulate(end, axis=1)[:, :-1]
    begin[:, 1:] = np.maximum(begin[:, 1:], before)
    return np.asarray(np.maximum(end - begin, 0.0).sum(axis=1))
