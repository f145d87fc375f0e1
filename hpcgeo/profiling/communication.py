"""Bookkeeping of collectives: every one that this process starts, when, over whom, how large.

Each operation of torch.distributed, whoever starts it (DDP's reducer in C++, FSDP2, DTensor,
DeepSpeed), passes the dispatcher as ``c10d::...``. Our kernel stands before the one of the
backend, notes the operation and hands it on; no name of a device's kernel is looked at. The same
place can leave it out: then a step costs what it costs without communication (and its numbers mean
nothing).
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from hpcgeo.log import log
from hpcgeo.profiling.clock import Clock
from hpcgeo.records import Traffic, Wait

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

#: A rank is late where the upper half of the ranks waits longer than it by more than this share of
#: a step, in more than this share of the steps.
LATE, OFTEN = 0.05, 0.75


class Group(NamedTuple):
    """The ranks of a process group."""

    name: str  #: axis of the mesh, or world
    ranks: tuple[int, ...]


class Kind(NamedTuple):
    """What a collective is: two ranks of a group agree in it call by call."""

    collective: str
    group: Group
    message_bytes: int


@dataclass
class _Call:
    """A collective under way, and its moments."""

    kind: Kind
    begin: Any
    end: Any = None
    queues: bool = False  #: it runs on a stream of its group, behind the one before


@dataclass(frozen=True)
class Calls:
    """The collectives of one step of one rank, in the order they were started."""

    kinds: tuple[Kind, ...]
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
        self._groups: dict[str, Group] = {}

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
        free: dict[Group, float] = {}
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
            kind = Kind(collective, self._group(arguments), _bytes(arguments[place]))
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

    def _group(self, arguments: Sequence[Any]) -> Group:
        group = _group_of(arguments)
        if group.group_name not in self._groups:
            ranks = tuple(dist.get_process_group_ranks(group))
            name = group.group_desc.removeprefix("mesh_")
            if name in ("", "undefined"):
                name = f"group of {len(ranks)}"
            name = "world" if len(ranks) == dist.get_world_size() else name
            self._groups[group.group_name] = Group(name, ranks)
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


def gathered(steps: Sequence[Calls]) -> list[list[Calls]] | None:
    """Return the calls of every rank and step on rank 0, None on the others; collective.

    Args:
        steps: of this rank.
    """
    ranks: list[Any] | None = None
    if dist.get_rank() == 0:
        ranks = [None] * dist.get_world_size()
    dist.gather_object(list(steps), ranks)
    return ranks


def compared(step: Sequence[Calls]) -> tuple[Array, Array, Array] | None:
    """Return begin, seconds and the seconds of the last to come: (ranks, calls) each.

    Members of a group leave an all_reduce, all_gather or reduce_scatter together, however late they
    came: the one that spends least time in it came last. Of other collectives nothing is said: the
    seconds of the last are its own. None where the ranks did not call the same.

    Args:
        step: the calls of every rank in one step.
    """
    alike = {tuple((k.collective, k.group.name, k.message_bytes) for k in c.kinds) for c in step}
    if len(alike) > 1:
        return None
    seconds = np.stack([calls.seconds for calls in step])
    least = seconds.copy()
    together: dict[Group, list[int]] = defaultdict(list)
    for place, kind in enumerate(step[0].kinds):
        if kind.collective in BUS:
            together[kind.group].append(place)
    for columns in together.values():
        for group in {calls.kinds[columns[0]].group for calls in step}:
            block = np.ix_(group.ranks, columns)
            least[block] = seconds[block].min(axis=0)
    return np.stack([calls.begin for calls in step]), seconds, least


def wait(ranks: Sequence[Sequence[Calls]], hosts: Sequence[str], step_s: float) -> Wait | None:
    """Return who waited how long per step, and the straggler if there is one.

    A rank waits in a collective for as long as it spends more time in it than the last to come; no
    two clocks are compared, and waits that overlap count once.

    Args:
        ranks: the calls of each rank and step.
        hosts: of every rank.
        step_s: of the median step.

    Returns:
        None where the ranks did not call the same.
    """
    steps = [compared(step) for step in zip(*ranks, strict=True)]
    rows = [union_s(found[0], found[0] + found[1] - found[2]) for found in steps if found]
    if len(rows) < len(steps):
        log.warning("ranks call different collectives: of these steps no waits are recorded")
    if not rows:
        return None
    by_step = np.stack(rows, axis=1)  # (ranks, steps)
    upper = np.sort(by_step, axis=0)[len(by_step) // 2 :]
    late = np.median(upper, axis=0) - by_step
    often = (late > LATE * step_s).mean(axis=1) > OFTEN
    late_s = np.where(often, np.median(late, axis=1), 0.0)
    first, seconds = int(late_s.argmax()), np.median(by_step, axis=1).tolist()
    if not often[first]:
        return Wait(seconds=seconds)
    return Wait(
        seconds=seconds,
        straggler=first,
        host=hosts[first],
        late_s=float(late_s[first]),
        late_ranks=int(often.sum()),
    )


def traffic(ranks: Sequence[Sequence[Calls]]) -> list[Traffic]:
    """Return the collectives of a step by kind, group and size, largest share of time first.

    Args:
        ranks: the calls of each rank and step.
    """
    spent: dict[Any, list[float]] = defaultdict(list)
    alone: dict[Any, list[float]] = defaultdict(list)
    for step in zip(*ranks, strict=True):
        found = compared(step)
        for rank, calls in enumerate(step):
            for place, kind in enumerate(calls.kinds):
                of = (kind.collective, kind.group.name, len(kind.group.ranks), kind.message_bytes)
                spent[of].append(calls.seconds[place])
                if found:
                    alone[of].append(found[2][rank, place])
    seen = len(ranks) * len(ranks[0])  # ranks x steps
    rows = []
    for of in sorted(spent, key=lambda of: -sum(spent[of])):
        collective, group, size, message_bytes = of
        transfer_s = float(np.median(alone[of])) if alone[of] else None
        rate = message_bytes / transfer_s if transfer_s and size > 1 and collective in BUS else None
        rows.append(
            Traffic(
                collective=collective,
                group=group,
                ranks=size,
                message_bytes=message_bytes,
                calls=len(spent[of]) / seen,
                seconds=sum(spent[of]) / seen,
                transfer_s=transfer_s,
                algorithm_bytes_per_s=rate,
                bus_bytes_per_s=rate and rate * BUS[collective](size),
            )
        )
    return rows
