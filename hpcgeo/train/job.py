"""The parts of a run, built."""

from dataclasses import dataclass

from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.topology import Topology
from hpcgeo.workloads.workload import Workload


@dataclass(frozen=True)
class Parts:
    """What trains, on what, and how it is spread; `global_batch` samples a step."""

    workload: Workload
    topology: Topology
    engine: Engine
    global_batch: int
