"""What measuring costs: steps under the profiler's phases and bookkeeping, against plain ones.

Both kinds take turns in one run, so that whatever slows the machine slows both:

    torchrun --nproc-per-node 2 benchmarks/profiler.py parallel.strategy=FULL_SHARD
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist

from hpcgeo.config import load
from hpcgeo.phases import watched
from hpcgeo.profiling.communication import Bookkeeping
from hpcgeo.train.clock import Clock
from hpcgeo.train.loop import pretrain
from hpcgeo.train.meter import Meter

Item = TypeVar("Item")
WARMUP, PAIRS = 10, 100


class Alternating(Meter):
    """Every second step is watched, in a random order within each pair."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._clock = Clock(self.topology.device)
        self._book = Bookkeeping(self.topology.device)
        first = np.random.default_rng(0).integers(0, 2, PAIRS + WARMUP)
        self._watch = np.stack([first, 1 - first], axis=1).reshape(-1).astype(bool)

    def measure(self, step: Callable[[], Item]) -> tuple[Item, Callable[[], float]]:
        if not self._watch[len(self.rows)]:
            return super().measure(step)
        with self._book.installed(), watched(self._clock):
            self._clock.take()
            self._book.begin()
            answer, seconds = super().measure(step)
            self._clock.wait()
            self._book.end()
        return answer, seconds

    def ratios(self) -> Any:
        times = np.array([row["step_s"] for row in self.rows])[2 * WARMUP :].reshape(-1, 2)
        watch = self._watch[2 * WARMUP :].reshape(-1, 2)
        return times[watch] / times[~watch]


def main() -> None:
    meters: list[Alternating] = []

    def meter(*arguments: Any, **named: Any) -> Alternating:
        meters.append(Alternating(*arguments, **named))
        return meters[0]

    with tempfile.TemporaryDirectory() as folder:
        options = [f"run.dir={folder}/run", f"train.steps={2 * (PAIRS + WARMUP)}"]
        options += ["checkpoint.every=0", "train.eval_every=null", "launch.threads=1"]
        run = load("mae_vit_tiny", [*options, *sys.argv[1:]])
        pretrain(run, partial(meter))
    if dist.get_rank() == 0:
        ratios = meters[0].ratios()
        draws = np.random.default_rng(1).choice(ratios, (2000, len(ratios)))
        low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
        print(
            f"{run.parallel.strategy} on {dist.get_world_size()}: watched / plain step, median of "
            f"{len(ratios)} pairs {np.median(ratios):.4f}, 95 % interval {low:.4f} to {high:.4f}"
        )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
