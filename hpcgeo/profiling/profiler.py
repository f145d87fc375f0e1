"""A profile run: the training loop under a meter that also sees collectives and the peak.

Order of the steps: warm-up (discarded), measured, traced. The traced ones run under
torch.profiler, which slows them down: they say where time goes and are no part of the step time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from hpcgeo.config import RunConfig, load
from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.records import Record, append
from hpcgeo.train.meter import Meter
from hpcgeo.train.pretrain import pretrain

Item = TypeVar("Item")

TRACED_STEPS = 3
PRODUCT = 1536  # side of the square matrices of the measured peak


class Profiler(Meter):
    """A meter that traces the last steps and measures the peak of a matrix product."""

    def __init__(
        self, *arguments: Any, warmup_steps: int, dtype: torch.dtype, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.warmup_steps = warmup_steps
        self.dtype = dtype
        self._comm_s: list[float] = []

    def measure(self, step: Callable[[], Item]) -> tuple[Item, float]:
        traced = len(self.rows) >= self.steps - TRACED_STEPS
        if not traced or self.topology.device.type != "cpu":
            return super().measure(step)
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            answer, seconds = super().measure(step)
        self._comm_s.append(_busy(trace, "gloo:"))
        return answer, seconds

    def measured(self) -> list[dict[str, Any]]:
        return self.rows[self.warmup_steps : -TRACED_STEPS]

    def extras(self) -> dict[str, Any]:
        if len(self.rows) < self.steps:
            raise InputError(
                f"stopped after {len(self.rows)} of {self.steps} steps: nothing is recorded; give "
                f"the run more time"
            )
        if self.topology.device.type != "cpu":
            return {}
        return {
            "comm_s": _mean_of_ranks(statistics.median(self._comm_s)),
            "peak_flops_per_s": _mean_of_ranks(_product_rate(self.dtype)),
            "peak_source": "measured",
        }


def profile_run(
    recipe: str, overrides: Sequence[str], *, steps: int, warmup: int, records: Path
) -> Record:
    """Measure a recipe and append its record; every rank calls it.

    Args:
        steps: measured steps.
        warmup: discarded steps before them.
        records: the file of JSON lines.

    Raises:
        InputError: the recipe cannot be run like this.
    """
    with tempfile.TemporaryDirectory(prefix="hpcgeo-profile-") as folder:
        run = configure(recipe, overrides, steps, warmup, Path(folder))
        dtype = getattr(torch, run.train.dtype)
        record = pretrain(run, partial(Profiler, warmup_steps=warmup, dtype=dtype))
    if dist.get_rank() == 0:
        config = {part: knobs for part, knobs in (record.config or {}).items() if part != "run"}
        record = record.model_copy(update={"config": config})
        append(records, record)
        log.info("%s: %.1f images/s, appended to %s", record.layout, record.images_per_s, records)
    return record


def configure(
    recipe: str, overrides: Sequence[str], steps: int, warmup: int, folder: Path
) -> RunConfig:
    """Return the configuration of a profile run: no checkpoints, no pictures, no warm-up of lr."""
    fixed = [
        f"run.dir={folder}",
        f"train.steps={warmup + steps + TRACED_STEPS}",
        "train.reconstruct_every=null",
        "checkpoint.every=0",
        "optim.warmup_steps=0",
    ]
    return load(recipe, [*overrides, *fixed])


def _busy(trace: profile, prefix: str) -> float:
    """Return the seconds in which at least one event whose name has `prefix` ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in trace.events() or []  # type: ignore[no-untyped-call]
        if event.name.startswith(prefix)
    )
    busy, until = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy * 1e-6  # the trace counts microseconds


def _product_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s of the best of several square matrix products on this rank."""
    a, b = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        begin = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begin)
    return 2 * PRODUCT**3 / min(seconds)


def _mean_of_ranks(value: float) -> float:
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()
