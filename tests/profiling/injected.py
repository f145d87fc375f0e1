"""Faults that a process of `hpcgeo` has from its start."""

import os
import time
from typing import Any

from hpcgeo.data.shards import synthetic
from hpcgeo.profiling import memory
from hpcgeo.workloads import images as imagery

SLEEP_S = 0.05
#: Ranks of a busy machine wait for each other by some 0.1 s whoever is late: this is more.
LATE_S = 0.4


def slow_rank() -> None:
    """Rank 2 does something else for a while, in every step."""
    usual = imagery.Images._inputs

    def inputs(*arguments: Any) -> Any:
        if os.environ["RANK"] == "2":
            time.sleep(LATE_S)
        return usual(*arguments)

    imagery.Images._inputs = inputs  # type: ignore[method-assign]


def slow_loader() -> None:
    """Reading takes a while, on every rank."""
    usual = synthetic.SyntheticDataset.read

    def read(*arguments: Any) -> Any:
        time.sleep(SLEEP_S)
        return usual(*arguments)

    synthetic.SyntheticDataset.read = read  # type: ignore[method-assign]


def failing_observer() -> None:
    """The step whose memory is followed ends the run."""

    def observe(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError("no memory left to follow memory")

    memory.observe = observe
