"""A meter that watches the steps of a training loop: their phases, collectives and a trace.

Order of the steps: warm-up (discarded, until steps stop getting faster), measured, one whose memory
is followed, one whose FLOPs are counted, traced. Phases, collectives and energy are those of the
measured steps themselves. The later ones are slowed down by what watches them, and are no part of
the step time.
"""

import math
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.machines import Grid
from hpcgeo.measured import Activity, CrossCheck, Phases
from hpcgeo.parallel.group import barrier
from hpcgeo.phases import PHASES, watched
from hpcgeo.profiling import flops, memory, trace, waits
from hpcgeo.profiling.communication import Bookkeeping, Calls
from hpcgeo.records import Record
from hpcgeo.train.clock import Clock
from hpcgeo.train.meter import Meter
from hpcgeo.train.record import describe

Item = TypeVar("Item")

#: What follows the measured steps. The first traced one, in which the trace starts, is left out.
TRACED_STEPS = 4
LATER = ("memory", "flops", *["traced"] * TRACED_STEPS)

#: Warm-up ends where the median of as many steps is no longer below that of those before, by this
#: fraction, and after so many steps more than requested in any case; not before SHORTEST: in the
#: first steps DeepSpeed compares what ranks do, and collectives are left alone.
WINDOW, FASTER, LONGEST, SHORTEST = 5, 0.05, 50, 4

#: Up to so many ranks each leaves a trace, beyond it the first of each host.
TRACES = 8

#: What a device does in a traced step: a field of `Activity`, and its name in a trace.
ACTIVITIES = {
    "compute_s": "compute",
    "exposed_comm_s": "exposed_comm",
    "host_to_device_s": "host_to_device_copy",
    "data_wait_s": "data_wait",
    "idle_s": "idle",
}

#: Side of the square matrices whose product is measured, on a host and on a device.
PRODUCT = {"cpu": 1536, "cuda": 8192}


@dataclass(frozen=True)
class Options:
    """What a profile run measures beside its recipe.

    Attributes:
        steps: measured steps.
        warmup: steps discarded before them, at least.
        communication: False: collectives do nothing in a step.
        reading: False: every step trains on cached batches, the first ones.
        product: measure a matrix product in any case; where no peak is tabled it always is.
        traces: folder for traces, a file a rank.
        grid: that the power comes from; None: that of the machine, if known.
    """

    steps: int = 20
    warmup: int = 5
    communication: bool = True
    reading: bool = True
    product: bool = False
    traces: Path | None = None
    grid: Grid | None = None


class Profiler(Meter):
    """A meter that watches phases and collectives, and traces the last steps."""

    def __init__(self, *arguments: Any, options: Options) -> None:
        super().__init__(*arguments)
        self.options = options
        self.warmup_steps = 0
        self.stable: bool | None = None  #: None: still warming up
        self.early: Record | None = None  #: what is known once all steps are measured
        device = self.topology.device
        self._clock = Clock(device, trace.OURS)
        self._book = Bookkeeping(device, communication=options.communication)
        self._watching = watched(self._clock)
        self._standing = self._book.installed()
        self._found: dict[str, Any] = {}  #: fields of the record, as they become known
        self._cached: list[Any] = []
        self._trace: Any = None
        #: By stage, for each step of this rank: phases and the whole, in seconds; collectives.
        self._own: dict[str, list[list[float]]] = defaultdict(list)
        self._calls: dict[str, list[Calls]] = defaultdict(list)

    def __enter__(self) -> "Profiler":
        self._standing.__enter__()
        self._watching.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._watching.__exit__(*raised)
        self._standing.__exit__(*raised)
        if self._trace and self._stage != "done":
            with suppress(Exception):  # of what went wrong, this is not the cause
                self._trace.stop()
        super().__exit__(*raised)

    def waiting(self, batches: Iterator[Item], count: int) -> Iterator[Item]:
        if self.options.reading:
            yield from super().waiting(batches, count)
            return
        if not self._cached:
            self._cached = list(super().waiting(batches, count))
        yield from super().waiting(iter(self._cached), count)

    def measure(self, step: Callable[[], Item]) -> tuple[Item, Callable[[], float]]:
        """Run one step, from where the device has nothing to do to where it has nothing left."""
        stage = self._stage
        if stage == "traced" and self._trace is None:
            self._start_trace()
        self._begin_together()
        # Noting a collective may hold its result for a while: not where memory is followed.
        plain = stage == "memory" and self.options.communication
        noted = len(self.rows) >= SHORTEST and not plain
        self._clock.take()
        if noted:
            self._book.begin()
        with record_function(trace.STEP) if stage == "traced" else nullcontext():
            begin = time.perf_counter()
            answer = self._observed(stage, step)
            self._clock.wait()
            seconds = time.perf_counter() - begin
        if noted:
            self._calls[stage].append(self._book.end())
        self._own[stage].append([*self._clock.take(), seconds])
        return answer, lambda: seconds

    def record(self, *arguments: Any, **named: Any) -> bool:
        stop = super().record(*arguments, **named | {"report": True})
        if self.stable is None:
            self._warm_up()
        elif self._number == self.options.steps:
            self._measured()
        if self._stage == "done":
            self._trace.stop()
        return stop or self._stage == "done"

    def measured(self) -> list[dict[str, Any]]:
        return self.rows[self.warmup_steps :][: self.options.steps]

    def extras(self) -> dict[str, Any]:
        if self._number < self.options.steps:
            raise InputError(
                f"stopped after {len(self.rows)} steps, {self.options.steps} were to be measured "
                f"after warm-up: nothing is recorded; give the run more time"
            )
        if self.early is None:  # once more at the end, with what takes longer or may fail
            return self._found
        fields = {**self._found, **self._traffic(), **self._product()}
        if self._stage == "done":
            return {**fields, **self._activity()}
        log.warning("stopped before all was observed: what is missing is not in the record")
        return fields

    @property
    def _number(self) -> int:
        """Steps since the end of warm-up; -1 before."""
        return -1 if self.stable is None else len(self.rows) - self.warmup_steps

    @property
    def _stage(self) -> str:
        """What the next step is for."""
        if self._number < self.options.steps:
            return "warm-up" if self.stable is None else "measured"
        return (*LATER, "done")[self._number - self.options.steps]

    def _begin_together(self) -> None:
        """Wait for all ranks: one that wrote metrics, or started a trace, is not late for that."""
        barrier()
        self._clock.wait()

    def _observed(self, stage: str, step: Callable[[], Item]) -> Item:
        """Run a step, under the eye of its stage."""
        if stage == "memory":
            answer, own = memory.observe(
                self.parts.engine, self.topology, step, compiled=self.run.parallel.compile
            )
            self._found["memory"] = memory.worst(own, self.topology)
        elif stage == "flops":
            answer, counted = flops.counted(step, self.topology.device, self.run.parallel)
            self._found["counted_flops"] = counted
        else:
            answer = step()
        return answer

    def _warm_up(self) -> None:
        times = [row["step_s"] for row in self.rows]
        least = max(self.options.warmup, SHORTEST)
        if len(times) >= least and (settled(times) or len(times) >= least + LONGEST):
            self.stable = settled(times)
            self.warmup_steps = len(times)
            log.info("warm after %d steps; measuring %d", len(times), self.options.steps)
            if not self.stable:
                log.warning("steps are still getting faster after %d", len(times))
            self.joules.start()

    def _measured(self) -> None:
        """Note what the measured steps say, and keep it: what comes next may fail."""
        energy = self.joules.stop(self.options.steps * self.global_batch, self.options.grid)
        self._found |= {
            "stable": self.stable,
            "communication": "on" if self.options.communication else "off",
            "phases": self._phases(),
            "energy": energy,
        }
        if not self.options.reading:
            self._found["data"] = "cached"
        if self.options.communication:
            busy = [calls.busy_s for calls in self._calls["measured"]]
            self._found["comm_s"] = float(np.median(self._mean_of_ranks(busy)))
        self.early = describe(self.run, self.parts, self)

    def _start_trace(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self.topology.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would say that it starts and stops
        self._clock.naming = True
        self._trace = profile(activities=activities)
        self._trace.start()

    def _phases(self) -> Phases:
        """Return phases, of the mean rank: the mean of the middle half of the steps, by their time.

        As robust as a median, and the parts sum to the whole.
        """
        steps = self._mean_of_ranks(self._own["measured"])
        steps = steps[np.argsort(steps[:, -1])]
        quarter = len(steps) // 4
        *seconds, whole = steps[quarter : len(steps) - quarter].mean(axis=0).tolist()
        named = {f"{name}_s": value for name, value in zip(PHASES, seconds, strict=True)}
        return Phases(step_s=whole, other_s=whole - sum(seconds), **named)

    def _activity(self) -> dict[str, Any]:
        """Return what the device did in the traced steps, and the same figures by two paths."""
        whole = [row[-1] for row in self._own["traced"][1:]]
        calls = self._calls["traced"][1:]
        busy, number = [made.busy_s for made in calls], [len(made.kinds) for made in calls]
        try:
            steps = self._read_trace()
        except (OSError, ValueError, RuntimeError) as error:
            log.warning("the trace cannot be read, activity is not recorded: %s", error)
            figures = [np.nan] * (6 + len(ACTIVITIES))
        else:
            read = [steps.activity[name] for name in ACTIVITIES.values()]
            lists: list[Any] = [whole, busy, number, steps.total, steps.comm, steps.calls, *read]
            figures = [float(np.mean(values)) for values in lists]
        mean = self._mean_of_ranks(figures).tolist()  # every rank comes here, whatever it has read
        if np.isnan(mean).any():
            return {}
        parts = dict(zip(ACTIVITIES, mean[6:], strict=True))
        return {
            "activity": Activity(step_s=mean[3], comm_s=mean[4], **parts),
            "cross_check": CrossCheck(
                step_s=(mean[0], mean[3]), comm_s=(mean[1], mean[4]), calls=(mean[2], mean[5])
            ),
        }

    def _read_trace(self) -> trace.Steps:
        rank, on_device = self.topology.rank, self.topology.device.type == "cuda"
        kept = self.topology.world_size <= TRACES or self.topology.places[rank].local_rank == 0
        with tempfile.TemporaryDirectory(prefix="hpcgeo-trace-") as folder:
            path = Path(folder) / f"rank{rank}.json"
            if self.options.traces and kept:
                self.options.traces.mkdir(parents=True, exist_ok=True)
                path = self.options.traces / path.name
            self._trace.export_chrome_trace(str(path))
            return trace.read_apart(path, on_device)

    def _traffic(self) -> dict[str, Any]:
        """Return the collectives of the measured steps, and who waited for whom; on rank 0."""
        ranks = waits.gathered(self._calls["measured"])
        if ranks is None or not self.options.communication:
            return {}
        step_s = statistics.median(row["step_s"] for row in self.measured())
        hosts = [place.host for place in self.topology.places]
        return {
            "traffic": waits.traffic(ranks),
            "wait": waits.wait(ranks, hosts, step_s),
        }

    def _product(self) -> dict[str, Any]:
        """Return the rate of a matrix product; what no table knows is held against it."""
        device, dtype = self.topology.device, self.run.train.dtype
        tabled = self.topology.model and self.topology.model.peak(dtype)
        own = math.nan
        if self.options.product or not tabled:
            try:
                own = _product_rate(getattr(torch, dtype), device)
            except torch.OutOfMemoryError as error:  # the model fills the device
                log.warning("no matrix product is measured: %s", str(error).splitlines()[0])
        rate = float(self._mean_of_ranks(own))  # every rank comes here, whatever it drives
        if math.isnan(rate):
            return {}
        peak = {} if tabled else {"peak_flops_per_s": rate, "peak_source": "measured"}
        return {"product_flops_per_s": rate, **peak}

    def _mean_of_ranks(self, values: Any) -> Any:
        """Return the mean over ranks, as an array."""
        total = torch.tensor(values, dtype=torch.float64, device=self.topology.device)
        dist.all_reduce(total)
        return (total / self.topology.world_size).cpu().numpy()


def settled(step_s: Sequence[float]) -> bool:
    """Return whether steps have stopped getting faster.

    The median of the last five (of the later half, where there are fewer than ten) is not more than
    5 % below that of the five before.

    >>> settled([9.0, 1.0]), settled([9.0, 1.0, 1.02, 1.0]), settled([1.0, 1.0])
    (False, False, True)
    """
    window = min(WINDOW, len(step_s) // 2)
    if not window:
        return False
    last, before = step_s[-window:], step_s[-2 * window : -window]
    return statistics.median(last) >= (1 - FASTER) * statistics.median(before)


def _product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Return the FLOP/s of the best of several square matrix products on this rank."""
    side, clock = PRODUCT[device.type], Clock(device)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    moments = [clock.now()]
    for _ in range(6):
        a @ b
        moments.append(clock.now())
    clock.wait()
    return 2 * side**3 / min(clock.seconds(*pair) for pair in pairwise(moments))
