"""What a run learns, and from what: all of a step that is not distribution."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hpcgeo.parallel.engine import Engine, Initial, Inputs
from hpcgeo.parallel.topology import Topology
from hpcgeo.zoo import Forms

#: Says that a rank still moves: what takes long calls it now and then.
Alive = Callable[[], None]


class Source(Protocol):
    """What samples are read from."""

    @property
    def kind(self) -> str:
        """Where samples come from: shards, synthetic, mixture."""

    @property
    def fingerprint(self) -> str:
        """Checksum of all samples."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Step:
    """What this rank does in one step.

    Attributes:
        passes: what each forward takes, made when it is asked for.
        count: of the passes; equal on all ranks.
        scalars: of this rank, for the line of metrics; averaged over ranks.
    """

    passes: Iterable[Inputs]
    count: int
    scalars: dict[str, Tensor] = field(default_factory=dict)


class Workload(Protocol):
    """A kind of run; `hpcgeo.workloads.images` and `hpcgeo.workloads.mixture` are the two."""

    done: bool  #: an evaluation has found that nothing is left to learn, although steps remain

    forms: Forms | None  #: closed forms of one image, where the objective has them

    @property
    def dataset(self) -> Source:
        """What samples are read from."""

    def refuse_cut(self, tensor: int) -> None:
        """Refuse tensor parallelism over ranks that do not divide the model; an InputError."""

    def objective(self) -> Any:
        """Return the module that is trained; called where the meta device is the default."""

    def initial(self, objective: Any) -> Initial:
        """Return where its first weights come from."""

    def batches(self, topology: Topology, first_step: int) -> Iterable[Any]:
        """Return this rank's micro-batches from a step on, without end."""

    def step(self, batches: Iterator[Any], device: torch.device) -> Step:
        """Return what to do with the micro-batches of one step; every rank calls it together."""

    def evaluate(
        self, engine: Engine, topology: Topology, folder: Path, step: int, alive: Alive
    ) -> None:
        """Evaluate the model after a step and leave in the folder what was found.

        Every rank calls it together; `alive` is called now and then.
        """

    def keep(self, folder: Path) -> None:
        """Leave in the folder what those who use the model need to know of its data, if anything.

        Rank 0 alone calls it.
        """

    def ended(self, folder: Path, step: int) -> bool:
        """Return whether an evaluation of an earlier start, at a step, found nothing left."""

    def samples(self, position: Any) -> dict[str, Any]:
        """Name the samples at positions of the run, for people."""

    def facts(self) -> dict[str, Any]:
        """Return fields of the record: parameters, bands, chip."""

    def model_flops(self, global_batch: int) -> float | None:
        """Return the model FLOPs of a step, or None where they are not known."""

    def about(self) -> list[str]:
        """Say what is trained on what, a line each."""

    def commands(self) -> list[str]:
        """Return what follows on a run, each a command with RUN for its folder."""
