"""A profile run: the training loop under a meter that sees phases, collectives and the trace.

Order of the steps: warm-up (discarded, until steps stop getting faster), measured, one whose memory
is followed, one whose FLOPs are counted, traced. Phases, collectives and energy are those of the
measured steps themselves. The later ones are slowed down by what watches them, and are no part of
the step time.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function

from hpcgeo.config import RunConfig, load
from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.machines import Grid, grid, machine
from hpcgeo.parallel.topology import Topology
from hpcgeo.phases import PHASES, watched
from hpcgeo.profiling import communication, flops, memory, trace
from hpcgeo.profiling.communication import Bookkeeping, Calls
from hpcgeo.profiling.energy import Joules
from hpcgeo.profiling.summary import summary
from hpcgeo.records import Activity, CrossCheck, Phases, Record, append
from hpcgeo.strategies import strategy
from hpcgeo.train.meter import Meter
from hpcgeo.train.pretrain import pretrain

Item = TypeVar("Item")

#: What is looked at after the measured steps, a step each, and how many are traced then.
OBSERVED = ("memory", "flops")
TRACED_STEPS = 3

#: Warm-up ends where the median of as many steps is no longer below that of those before, by this
#: part, and after so many steps more than were asked for in any case.
WINDOW, FASTER, LONGEST = 5, 0.05, 50

#: Side of the square matrices whose product is measured, on a host and on a device.
PRODUCT = {"cpu": 1536, "cuda": 8192}


@dataclass(frozen=True)
class Options:
    """What a profile run measures beside its recipe.

    Attributes:
        steps: measured steps.
        warmup: steps discarded before them, at least.
        communication: False: collectives do nothing in a step.
        reading: False: every step trains on the first batches, held in memory.
        product: measure a matrix product on a device too; on a host it always is.
        traces: folder for the trace of every rank.
        grid: that the power comes from; None: that of the machine, if known.
    """

    steps: int = 20
    warmup: int = 5
    communication: bool = True
    reading: bool = True
    product: bool = False
    traces: Path | None = None
    grid: Grid | None = None


class Clock:
    """Seconds of this rank's phases; on a device those of its stream, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.naming = False  #: phases stand in the trace
        self._marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with record_function(trace.OURS + name) if self.naming else nullcontext():
            begin = self._now()
            try:
                yield
            finally:
                self._marks.append((name, begin, self._now()))

    def take(self) -> list[float]:
        """Return the seconds of each phase since the last call; the device is synchronised."""
        seconds = dict.fromkeys(PHASES, 0.0)
        for name, begin, end in self._marks:
            spent = end - begin if self.device.type == "cpu" else begin.elapsed_time(end) * 1e-3
            seconds[name] += spent
        self._marks.clear()
        return list(seconds.values())

    def _now(self) -> Any:
        if self.device.type == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


class Profiler(Meter):
    """A meter that watches phases and collectives, and traces the last steps."""

    def __init__(
        self,
        folder: Path,
        topology: Topology,
        *arguments: Any,
        options: Options,
        run: RunConfig,
        **named: Any,
    ) -> None:
        super().__init__(folder, topology, *arguments, **named)
        self.options = options
        self.run = run
        self.warmup_steps = 0
        self.stable: bool | None = None  #: None: still warming up
        self._clock = Clock(topology.device)
        self._book = Bookkeeping(topology.device, communication=options.communication)
        self._watching = watched(self._clock)
        self._standing = self._book.installed()
        self._joules = Joules(topology)
        self._found: dict[str, Any] = {}  #: fields of the record, as they become known
        self._held: list[Any] = []
        self._trace: Any = None
        self._own: list[list[float]] = []  #: phases and the whole, of each step of this rank
        self._calls: list[Calls] = []  #: of each step of this rank

    def __enter__(self) -> "Profiler":
        self._standing.__enter__()
        self._watching.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._watching.__exit__(*raised)
        self._standing.__exit__(*raised)
        super().__exit__(*raised)

    def waiting(self, batches: Iterator[Item], count: int) -> Iterator[Item]:
        if self.options.reading:
            yield from super().waiting(batches, count)
            return
        if not self._held:
            self._held = list(super().waiting(batches, count))
        yield from super().waiting(iter(self._held), count)

    def measure(self, step: Callable[[], Item]) -> tuple[Item, float]:
        traced = self._number >= self.options.steps + len(OBSERVED)
        if traced and self._trace is None:
            self._start_trace()
        dist.barrier()  # rank 0 has written the line of the step before; it is not late for that
        self._clock.take()
        if len(self.rows) > 3:  # in its first steps DeepSpeed compares ranks: let it
            self._book.begin()
        with record_function(trace.STEP) if traced else nullcontext():
            answer, seconds = super().measure(partial(self._observed, step))
        calls, phases = self._book.end(), self._clock.take()
        if self._number >= 0:
            self._calls.append(calls)
            self._own.append([*phases, seconds])
        return answer, seconds

    def record(self, *arguments: Any, **named: Any) -> bool:
        stop = super().record(*arguments, **named)
        if self.stable is None:
            self._warm_up()
        elif self._number == self.options.steps:
            images = self.options.steps * self.global_batch
            self._found["energy"] = self._joules.stop(images, self.options.grid)
        if self._done:
            self._trace.stop()
        return stop or self._done

    def measured(self) -> list[dict[str, Any]]:
        return self.rows[self.warmup_steps :][: self.options.steps]

    def extras(self) -> dict[str, Any]:
        if not self._done:
            raise InputError(
                f"stopped after {len(self.rows)} steps, {self.options.steps} were to be measured "
                f"after warm-up: nothing is recorded; give the run more time"
            )
        fields: dict[str, Any] = {
            "stable": self.stable,
            "communication": "on" if self.options.communication else "off",
            **self._phases(),
            **self._activity(),
            **self._collectives(),
            **self._product(),
            **self._found,
        }
        if not self.options.reading:
            fields["data"] = "held"
        return fields

    @property
    def _number(self) -> int:
        """Steps since the end of warm-up; -1 before."""
        return -1 if self.stable is None else len(self.rows) - self.warmup_steps

    @property
    def _done(self) -> bool:
        return self._number == self.options.steps + len(OBSERVED) + TRACED_STEPS

    def _observed(self, step: Callable[[], Item]) -> Item:
        """Run a step, under the eye that its number asks for."""
        place = self._number - self.options.steps
        if not 0 <= place < len(OBSERVED):
            return step()
        if OBSERVED[place] == "memory":
            answer, own = memory.observe(
                self.engine, self.topology, step, compiled=self.run.parallel.compile
            )
            self._found["memory"] = memory.worst(own, self.topology)
        else:
            answer, counted = flops.counted(step, self.topology.device, self.run.parallel)
            self._found["counted_flops"] = counted
        return answer

    def _warm_up(self) -> None:
        times = [row["step_s"] for row in self.rows]
        over = len(times) >= self.options.warmup + LONGEST
        if len(times) >= self.options.warmup and (settled(times) or over):
            self.stable = settled(times)
            self.warmup_steps = len(times)
            log.info("warm after %d steps; measuring %d", len(times), self.options.steps)
            if not self.stable:
                log.warning("steps are still getting faster after %d", len(times))
            self._joules.start()

    def _start_trace(self) -> None:
        activities = [ProfilerActivity.CPU]
        if self.topology.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would say that it starts and stops
        self._clock.naming = True
        self._trace = profile(activities=activities)
        self._trace.start()

    def _phases(self) -> dict[str, Any]:
        """Return phases, of the mean rank: the mean of the middle half of the steps, by their time.

        As robust as a median, and the parts sum to the whole.
        """
        own = torch.tensor(self._own[: self.options.steps], dtype=torch.float64)
        steps = _mean_of_ranks(own, self.topology)
        steps = steps[np.argsort(steps[:, -1])]
        quarter = len(steps) // 4
        *seconds, whole = steps[quarter : len(steps) - quarter].mean(axis=0).tolist()
        named = {f"{name}_s": value for name, value in zip(PHASES, seconds, strict=True)}
        return {"phases": Phases(step_s=whole, other_s=whole - sum(seconds), **named)}

    def _activity(self) -> dict[str, Any]:
        """Return what the device did in the traced steps, and the same figures by two paths."""
        with tempfile.TemporaryDirectory(prefix="hpcgeo-trace-") as folder:
            path = Path(folder) / f"rank{self.topology.rank}.json"
            if self.options.traces:
                self.options.traces.mkdir(parents=True, exist_ok=True)
                path = self.options.traces / path.name
            self._trace.export_chrome_trace(str(path))
            steps = trace.read(path)
        calls = self._calls[-TRACED_STEPS:]
        noted = [
            statistics.fmean(values)
            for values in (
                [row[-1] for row in self._own[-TRACED_STEPS:]],
                [made.busy_s for made in calls],
                [len(made.kinds) for made in calls],
            )
        ]
        read = [steps.total.mean(), steps.comm.mean(), steps.calls.mean()]
        parts = [value.mean() for value in steps.activity.values()]
        own = torch.tensor([*noted, *read, *parts], dtype=torch.float64)
        mean = _mean_of_ranks(own, self.topology).tolist()
        activity = dict(zip(steps.activity, mean[6:], strict=True))
        return {
            "activity": Activity(
                step_s=mean[3],
                comm_s=mean[4],
                compute_s=activity["compute"],
                exposed_comm_s=activity["exposed_comm"],
                host_to_device_s=activity["host_to_device_copy"],
                data_wait_s=activity["data_wait"],
                idle_s=activity["idle"],
            ),
            "cross_check": CrossCheck(
                step_s=(mean[0], mean[3]), comm_s=(mean[1], mean[4]), calls=(mean[2], mean[5])
            ),
        }

    def _collectives(self) -> dict[str, Any]:
        """Return communication of the measured steps, and who waited for whom."""
        measured = self._calls[: self.options.steps]
        busy = torch.tensor([calls.busy_s for calls in measured], dtype=torch.float64)
        comm_s = float(np.median(_mean_of_ranks(busy, self.topology)))
        ranks = communication.gathered(measured)
        if ranks is None or not self.options.communication:
            return {"comm_s": comm_s if self.options.communication else None}
        step_s = statistics.median(row["step_s"] for row in self.measured())
        hosts = [place.host for place in self.topology.places]
        return {
            "comm_s": comm_s,
            "traffic": communication.traffic(ranks),
            "wait": communication.wait(ranks, hosts, step_s),
        }

    def _product(self) -> dict[str, Any]:
        """Return the rate of a matrix product; a host, which no table knows, is held against it."""
        on_host = self.topology.device.type == "cpu"
        if not (on_host or self.options.product):
            return {}
        own = torch.tensor(
            _product_rate(getattr(torch, self.run.train.dtype), self.topology.device),
            dtype=torch.float64,
        )
        rate = float(_mean_of_ranks(own, self.topology))
        peak = {"peak_flops_per_s": rate, "peak_source": "measured"} if on_host else {}
        return {"product_flops_per_s": rate, **peak}


def profile_run(recipe: str, overrides: Sequence[str], options: Options, records: Path) -> Record:
    """Measure a recipe and append its record; every rank calls it.

    Args:
        records: the file of JSON lines.

    Raises:
        InputError: the recipe cannot be run like this.
    """
    with tempfile.TemporaryDirectory(prefix="hpcgeo-profile-") as folder:
        run = configure(recipe, overrides, options.steps, options.warmup, Path(folder))
        _refuse(run, options)
        if options.grid is None and (own := machine(run.launch.machine).grid):
            options = replace(options, grid=grid(own))
        record = pretrain(run, partial(Profiler, options=options, run=run))
    if dist.get_rank() == 0:
        config = {part: knobs for part, knobs in (record.config or {}).items() if part != "run"}
        expected = memory.predicted(run, record.bands or 0, record.world_size)
        record = record.model_copy(update={"config": config, "predicted_memory": expected})
        append(records, record)
        log.info("%s\n  appended to %s", summary(record), records)
    return record


def configure(
    recipe: str, overrides: Sequence[str], steps: int, warmup: int, folder: Path
) -> RunConfig:
    """Return the configuration of a profile run: no checkpoints, no pictures, no warm-up of lr."""
    fixed = [
        f"run.dir={folder}",
        f"train.steps={warmup + LONGEST + steps + len(OBSERVED) + TRACED_STEPS}",
        "train.reconstruct_every=null",
        "checkpoint.every=0",
        "optim.warmup_steps=0",
    ]
    return load(recipe, [*overrides, *fixed])


def _refuse(run: RunConfig, options: Options) -> None:
    chosen = strategy(run.parallel.strategy)
    if not options.communication and chosen.backend == "deepspeed" and chosen.parameters != "none":
        raise InputError(
            f"communication off: {chosen.name} compares its ranks by collectives in every step and "
            f"would stop; FULL_SHARD shards the same and can be measured without"
        )


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
    side = PRODUCT[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds)


def _mean_of_ranks(values: torch.Tensor, topology: Topology) -> Any:
    """Return the mean over ranks, as an array."""
    total = values.to(topology.device)
    dist.all_reduce(total)
    return (total / topology.world_size).cpu().numpy()
