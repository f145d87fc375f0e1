"""The parts of a run, built."""

from dataclasses import dataclass

from hpcgeo.data.dataset import Dataset
from hpcgeo.data.transforms import Views
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.topology import Topology


@dataclass(frozen=True)
class Parts:
    """What trains, on what, and how it is spread; `global_batch` samples a step."""

    dataset: Dataset
    topology: Topology
    engine: Engine
    views: Views
    global_batch: int
