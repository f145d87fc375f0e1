"""What a run measures of itself: a line per step, and at the end the record.

Numbers of a step stay on the device until they are reported: after every step of a CPU, the first
and every `train.log_every` steps of an accelerator, and before a checkpoint, an evaluation and the
end. In between the host is a step ahead. Times are those of the slowest rank, between two moments
of its device. Energy is that of all steps of a start, with what lies between them. A richer meter
(`hpcgeo.profiling`) overrides `measure` and `extras`.
"""

import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from rich.progress import Progress
from torch import Tensor

from hpcgeo.config import RunConfig
from hpcgeo.log import bar, log, span
from hpcgeo.machines import grid, machine
from hpcgeo.phases import phase
from hpcgeo.train.clock import Clock
from hpcgeo.train.curves import Curves
from hpcgeo.train.energy import Joules
from hpcgeo.train.job import Parts

Item = TypeVar("Item")

#: Steps that a record leaves out: the first ones build caches and grow pools.
WARMUP_STEPS = 5


@dataclass(frozen=True)
class Noted:
    """Numbers of a step before they are reported, of this rank."""

    step: int
    epoch: int
    lr: float
    scalars: dict[str, Tensor]
    seconds: Callable[[], float]
    waited_s: float
    checkpoint_s: float
    memory_bytes: int


class Copied:
    """A flag on its way to the host, to be read later."""

    def __init__(self, flag: Tensor) -> None:
        self._flag = flag
        self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._there.record()

    def answer(self) -> bool:
        """Wait for the copy, and return whether it is not zero."""
        self._there.synchronize()
        return bool(self._flag)


class Meter:
    """Measures the steps of one run on every rank; rank 0 writes."""

    warmup_steps = WARMUP_STEPS

    def __init__(self, folder: Path, run: RunConfig, parts: Parts, first_step: int) -> None:
        """Open the metrics of a run that has done `first_step` of its steps."""
        self.run = run
        self.parts = parts
        self.topology = parts.topology
        self.steps = run.train.steps
        self.global_batch = parts.global_batch
        self.log_every = run.train.log_every
        self.rows: list[dict[str, Any]] = []  #: reported steps
        self.skips = 0  #: steps in a row, up to the last reported, whose numbers were not finite
        self.fresh: list[tuple[dict[str, Any], Tensor]] = []  #: just reported: row and own loss
        self._noted: list[Noted] = []
        self._clock = Clock(self.topology.device)
        self.joules = Joules(self.topology)
        self._asked: Copied | None = None
        self._waited = 0.0
        self._stood_still = 0.0
        self._writes = self.topology.rank == 0
        self._quiet = not self._writes or not sys.stderr.isatty()
        self._step = first_step
        if self._writes:
            self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
            self._curves = Curves(folder, run, first_step)
        self._bar = bar("training", self.steps, shown=self._writes)

    def __enter__(self) -> "Meter":
        self._progress: Progress = self._bar.__enter__()
        self._progress.update(self._progress.task_ids[0], completed=self._step)
        self._began = self._told = time.perf_counter()  #: of the loop, and of the last line
        self._untold = 0  #: rows before this one were in a line
        self.joules.start()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.joules.end()
        self._bar.__exit__(*raised)
        if self._writes:
            self._metrics.close()
            self._curves.close()

    def waiting(self, batches: Iterator[Item], count: int) -> Iterator[Item]:
        """Yield `count` batches, and count the time waited for each."""
        for _ in range(count):
            begin = time.perf_counter()
            with phase("data_wait"):
                batch = next(batches)
            self._waited += time.perf_counter() - begin
            yield batch

    def standing_still(self, checkpoint: Callable[[], None]) -> None:
        """Save between two steps, and count the time in the line of the step after.

        The line of the step before is on disk by then: were it written after the checkpoint, a run
        killed in between would resume without it.
        """
        begin = time.perf_counter()
        checkpoint()
        self._stood_still += time.perf_counter() - begin

    @property
    def step_s(self) -> float:
        """Seconds of the last step reported; 0 before the first."""
        return float(self.rows[-1]["step_s"]) if self.rows else 0.0

    def measure(self, step: Callable[[], Item]) -> tuple[Item, Callable[[], float]]:
        """Run one step; return its answer, and what returns its seconds once it is done."""
        begin = self._clock.now()
        answer = step()
        end = self._clock.now()
        return answer, lambda: self._clock.seconds(begin, end)

    def record(
        self,
        scalars: dict[str, Tensor],
        *,
        seconds: Callable[[], float],
        epoch: int,
        lr: float,
        grad_norm: Tensor,
        stop: bool,
        report: bool,
    ) -> bool:
        """Note the numbers of one step, and report them if it is time; return whether to stop.

        Args:
            scalars: means over this rank's samples. ``loss/x`` is a sum over the samples of a task
                and ``samples/x`` their number, both over all samples; tokens, padding: of this
                rank.
            seconds: of this rank.
            grad_norm: equal on all ranks.
            stop: whether this rank was asked to stop; one of them is enough.
            report: report in any case.
        """
        self._step += 1
        self._noted.append(
            Noted(
                *(self._step, epoch, lr, scalars | {"grad_norm": grad_norm}, seconds),
                *(self._waited, self._stood_still, peak_memory_bytes(self.topology.device)),
            )
        )
        self._waited = self._stood_still = 0.0
        stopping = self._agree(stop)
        on_host = self.topology.device.type == "cpu"
        first = not self.rows  # says how long a step is: what to reserve before the time limit
        report = report or on_host or stopping or first or self._step % self.log_every == 0
        self.fresh = self._report() if report else []
        return stopping

    def write(self) -> None:
        """Write the lines of the steps just reported."""
        if self._writes:
            for row, _ in self.fresh:
                self._write(row)

    def _agree(self, stop: bool) -> bool:
        """Return whether any rank wants to stop, as a device says it: of the step before.

        So the host is one step ahead and no more.
        """
        wanted = torch.full((), float(stop), device=self.topology.device)  # filled there
        dist.all_reduce(wanted, dist.ReduceOp.MAX)
        if wanted.device.type == "cpu":
            return bool(wanted)
        before, self._asked = self._asked, Copied(wanted.to("cpu", non_blocking=True))
        return before is not None and before.answer()

    def _report(self) -> list[tuple[dict[str, Any], Tensor]]:
        """Wait for the device; return the rows of the steps noted, each with this rank's loss."""
        noted, self._noted = self._noted, []
        names = [sorted(one.scalars) for one in noted]
        numbers = [
            one.scalars[name].double()
            for one, own in zip(noted, names, strict=True)
            for name in own
        ]
        sums = torch.stack(numbers)
        dist.all_reduce(sums)
        means = iter((sums.cpu() / self.topology.world_size).tolist())
        worst = torch.tensor(
            [[one.seconds(), one.waited_s, one.checkpoint_s, one.memory_bytes] for one in noted],
            dtype=torch.float64,
            device=self.topology.device,
        )
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        found = []
        for one, own, slowest in zip(noted, names, worst.tolist(), strict=True):
            row = self._row(one, {name: next(means) for name in own}, slowest)
            found.append((row, one.scalars["loss"]))
        self.rows += [row for row, _ in found]
        return found

    def _row(self, one: Noted, means: dict[str, float], slowest: list[float]) -> dict[str, Any]:
        """Return the line of a step from means over ranks and the numbers of the slowest one."""
        self.skips = 0 if all(map(math.isfinite, means.values())) else self.skips + 1
        step_s, waited_s, checkpoint_s, memory = slowest
        grad_norm = means.pop("grad_norm")
        return {
            "step": one.step,
            "epoch": one.epoch,
            **self._named(means, step_s),
            "lr": one.lr,
            "grad_norm": grad_norm,
            "skipped": self.skips,
            "step_s": step_s,
            "images_per_s": self.global_batch / step_s,
            "data_wait_s": waited_s,
            "checkpoint_s": checkpoint_s,
            "peak_memory_bytes": int(memory),
        }

    def _named(self, means: dict[str, float], step_s: float) -> dict[str, Any]:
        """Return the scalars of a line from means over ranks."""
        row: dict[str, Any] = {k: v for k, v in means.items() if not k.startswith("samples/")}
        for name, share in means.items():
            task = name.removeprefix("samples/")
            if task != name:  # None: no sample of this task in this step
                row[f"loss/{task}"] = means[f"loss/{task}"] / share if share else None
        if "tokens" in means:
            tokens = means["tokens"] * self.topology.layout.data_parallel
            row["tokens"] = round(tokens)
            row["tokens_per_s"] = tokens / step_s
            row["padding"] = means["padding"] / (means["padding"] + means["tokens"])
        return row

    def evaluated(self, step: int) -> None:
        """Show what an evaluation after a step has left."""
        if self._writes:
            self._curves.evaluation(step)

    def extras(self) -> dict[str, Any]:
        """Return further fields of the record; every rank calls it."""
        own = machine(self.run.launch.machine).grid
        images = len(self.rows) * self.global_batch
        return {"energy": self.joules.stop(images, grid(own) if own else None)} if images else {}

    def measured(self) -> list[dict[str, Any]]:
        """Return the rows after warm-up."""
        return self.rows[self.warmup_steps :]

    def _write(self, row: dict[str, Any]) -> None:
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        self._curves.step(row)
        detail = self._since_last_line(row)
        self._progress.update(self._progress.task_ids[0], completed=row["step"], detail=detail)
        if row["step"] % self.log_every == 0 or row["step"] == self.steps:
            self._told, self._untold = time.perf_counter(), len(self.rows)
            if self._quiet:
                log.info("step %d/%d  %s", row["step"], self.steps, detail)

    def _since_last_line(self, row: dict[str, Any]) -> str:
        """Return mean loss and throughput since the last line, whatever took time, and the rest."""
        rows, now = self.rows[self._untold :], time.perf_counter()
        losses = [one["loss"] for one in rows if not one["skipped"]]
        loss = statistics.fmean(losses) if losses else math.nan
        rate = len(rows) * self.global_batch / (now - self._told)
        noun = "samples" if "tokens" in row else "images"
        left = span((now - self._began) / len(self.rows) * (self.steps - row["step"]))
        return f"loss {loss:.4f}  {rate:.1f} {noun}/s  lr {row['lr']:.3g}  {left} left"


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory this rank has held: reserved on a device, resident on a host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
