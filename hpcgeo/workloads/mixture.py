"""Runs on mixtures of labelled data sets: several tasks at once, or masked tokens of all of them.

The passes of a step are as many as the rank with the most tokens needs: ranks agree on their number
before the step, and one with fewer tokens fills up with smaller or empty passes. In a pass every
rank runs the same collectives, whatever samples it has.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled import TaskSet, open_tasks
from hpcgeo.data.labelled_batches import Bool, Drawn, DrawnBatches
from hpcgeo.data.loader import Loader
from hpcgeo.data.sample import Signal
from hpcgeo.data.sampling.mixture import Mixture
from hpcgeo.data.sampling.packing import passes
from hpcgeo.errors import InputError
from hpcgeo.launch.environment import discover
from hpcgeo.log import log
from hpcgeo.models import coordinates
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.collate import moved, padding
from hpcgeo.optimizers.table import optimizer
from hpcgeo.options import Mixture as Options
from hpcgeo.parallel.engine import Engine, Initial, Inputs
from hpcgeo.parallel.topology import Topology
from hpcgeo.phases import phase
from hpcgeo.sensors import Band, sensors
from hpcgeo.strategies import strategy
from hpcgeo.tables import find
from hpcgeo.weights.initial import Carried
from hpcgeo.workloads.workload import Alive, Source, Step
from hpcgeo.zoo import PerceiverArchitecture, perceiver

#: DeepSpeed gathers modules when they are called (3) and puts gradients into buckets when they are
#: there (2), rank by rank: with other tasks on each, sums are of unlike things, or never end.
OUT_OF_STEP = ("ZERO2", "ZERO3", "ZERO3_HPZ")


@dataclass(frozen=True)
class MixedSource:
    """The data sets of a mixture, as one source of samples."""

    sizes: Mapping[str, int]
    digest: str
    kind: str = "mixture"

    def __len__(self) -> int:
        return sum(self.sizes.values())


class MixtureRun(ABC):
    """What both kinds of runs share; see `hpcgeo.workloads.workload.Workload`."""

    done = False

    def __init__(self, run: RunConfig) -> None:
        """Open the data sets.

        Raises:
            InputError: no such model, reader, data; or they do not fit together.
        """
        assert isinstance(run.data, Options)
        self.run, self.data = run, run.data
        if run.parallel.strategy in OUT_OF_STEP:
            raise InputError(
                f"parallel.strategy {run.parallel.strategy}: it gathers or sums parameters in the "
                "order of their use, and in a mixture that differs between ranks: choose ZERO1, "
                "SHARD_GRAD_OP or FULL_SHARD"
            )
        self.model = architecture_of(run)
        # A density that cannot be read is said before anything starts.
        coordinates.height(torch.zeros(1), torch.ones(1), run.model.spread)
        self.sets = open_sets(run)
        self.signals = tuple(
            sorted({signal for part in self.sets.values() for signal in part.signals})
        )
        self.bands = partial(band_of, self.data.sensors)
        for signal in self.signals:
            self.bands(signal)  # an unknown sensor is said before anything starts
        sizes = {name: len(part) for name, part in self.sets.items()}
        digests = json.dumps({name: part.digest for name, part in self.sets.items()})
        self.dataset: Source = MixedSource(sizes, hashlib.sha256(digests.encode()).hexdigest())
        tasks = self.data.chosen
        ranks = discover().world_size // run.parallel.tensor
        self.mixture = Mixture(
            sizes,
            weights={name: task.weight for name, task in tasks.items()},
            temperature=self.data.temperature,
            epochs={name: task.epochs for name, task in tasks.items()},
            seed=run.seed,
            total=run.train.steps * run.train.micro_batch * run.train.accumulate * ranks,
        )

    @property
    @abstractmethod
    def unnamed(self) -> float:
        """Fraction of observations whose bands are read as unknown ones."""

    @abstractmethod
    def objective(self) -> Any:
        """Return the module that is trained."""

    @abstractmethod
    def visible(self, drawn: Sequence[Drawn]) -> list[tuple[Bool, ...]]:
        """Return which tokens of each sample the latents may read."""

    @abstractmethod
    def inputs(self, drawn: Sequence[Drawn], visible: Sequence[tuple[Bool, ...]]) -> Inputs:
        """Return what the objective takes of a pass, beside `scale`."""

    @abstractmethod
    def look(
        self, engine: Engine, topology: Topology, folder: Path, step: int, alive: Alive
    ) -> None:
        """Look at the model after a step."""

    def part(self, split: str) -> dict[str, TaskSet]:
        """Return another part of the data sets, of those that have one, by the name of the task."""
        others = {name: part.other(split) for name, part in self.sets.items()}
        return {name: part for name, part in others.items() if len(part)}

    def refuse_cut(self, tensor: int) -> None:
        self.model.refuse_cut(tensor)

    def law(self, name: str, shape: Sequence[int], rows: slice) -> torch.Tensor:
        """Return rows of the random initial value of a parameter."""
        return draw(name, shape, rows, self.run.seed)

    def initial(self, objective: Any) -> Initial:
        weights = self.run.model.weights
        if weights is None:
            return self.law
        shapes = {name: parameter.shape for name, parameter in objective.named_parameters()}
        carried = Carried(weights, shapes)
        log.info("%s: %d of %d weights, others at random", weights, len(carried.names), len(shapes))

        def rows(name: str, shape: Sequence[int], rows: slice) -> torch.Tensor:
            if name not in carried.names:
                return self.law(name, shape, rows)
            first, last, _ = rows.indices(shape[0])
            return carried.rows(name, slice(first, last))

        return rows

    def batches(self, topology: Topology, first_step: int) -> Loader[list[Drawn]]:
        train = self.run.train
        batches = DrawnBatches(
            self.sets,
            self.mixture,
            self.run.seed,
            train.micro_batch,
            topology.data_rank,
            topology.layout.data_parallel,
            self.data.flip,
            self.unnamed,
        )
        return Loader(
            batches,
            accumulate=train.accumulate,
            workers=self.data.workers,
            first_step=first_step,
        )

    def step(self, batches: Iterator[list[Drawn]], device: torch.device) -> Step:
        drawn = [one for batch in batches for one in batch]
        visible = self.visible(drawn)
        lengths = [1 + sum(int(part.sum()) for part in parts) for parts in visible]
        batching, parts = self.data.batching, self.split(lengths, device)
        count = len(parts)
        padded = sum(padding([lengths[i] for i in part], batching) for part in parts)

        def made() -> Iterator[Inputs]:
            for part in parts:
                with phase("host_to_device"):
                    some = [drawn[i] for i in part]
                    inputs = moved_all(self.inputs(some, [visible[i] for i in part]), device)
                yield inputs | {"scale": count / len(drawn)}  # outside: what follows is no part

        scalars = {"tokens": sum(lengths), "padding": padded, "passes": count}
        return Step(
            made(),
            count,
            {
                name: torch.tensor(value, dtype=torch.float64, device=device)
                for name, value in scalars.items()
            },
        )

    def split(self, lengths: Sequence[int], device: torch.device) -> list[list[int]]:
        """Return the samples of each pass, as many passes on all ranks; all call it together."""
        limit = self.data.batching.max_tokens
        return passes(lengths, limit, _most(len(passes(lengths, limit)), device))

    def ended(self, folder: Path, step: int) -> bool:
        return False

    def samples(self, position: Any) -> dict[str, Any]:
        task, index = self.mixture.draw(position)
        names = [self.mixture.tasks[number] for number in task]
        return {"task": names, "index": index.tolist()}

    def facts(self) -> dict[str, Any]:
        with torch.device("meta"):
            parameters = self.objective().parameters()
        return {"parameters": sum(parameter.numel() for parameter in parameters)}

    def model_flops(self, global_batch: int) -> None:
        return None

    def outlook(self, rows: Sequence[str], world_size: int) -> str:
        model, stack, parallel = self.model, self.model.stack, self.run.parallel
        parameters = self.facts()["parameters"]
        shards = strategy(parallel.strategy).layout(world_size, dict(parallel)).dp_shard
        # Weights and gradients are 8 bytes a parameter.
        held = (8 + optimizer(self.run.optim.name).other_bytes) * parameters / shards
        return "\n".join(
            [
                f"model         {model.name}, {parameters:,} parameters: "
                f"{model.latents} latents of width {stack.width}, {stack.depth} blocks",
                *(
                    f"task          {name}: {part.target.kind} of {len(part.target.names)}, "
                    f"{len(part):,} samples, {self.mixture.shares[name]:.1%} of what is drawn"
                    for name, part in self.sets.items()
                ),
                f"batching      {self.data.batching.mode}, passes of at most "
                f"{self.data.batching.max_tokens:,} tokens",
                *rows,
                f"memory        {held / 2**30:.3g} GiB a rank for parameters, "
                f"gradients and optimizer; activations are not predicted",
            ]
        )


def open_sets(run: RunConfig) -> dict[str, TaskSet]:
    """Return the training part of every data set of a mixture, by the name of the task."""
    assert isinstance(run.data, Options)
    sets: dict[str, TaskSet] = {}
    for name, task in run.data.chosen.items():
        try:
            sets[name] = open_tasks(
                task.reader,
                task.path,
                split="train",
                target=task.target,
                patch=task.patch,
                size=task.size,
                labels=task.labels,
                place=task.place,
                seed=run.seed,
            )
        except InputError as error:
            raise InputError(f"task {name}: {error}") from None
    return sets


def architecture_of(run: RunConfig) -> PerceiverArchitecture:
    """Return the architecture of a run: a row of the zoo, with its own depth and latents."""
    model = perceiver(run.model.name)
    stack = replace(model.stack, depth=run.model.depth or model.stack.depth)
    return replace(model, stack=stack, latents=run.model.latents or model.latents)


def band_of(extra: Path | None, signal: Signal) -> Band:
    """Return what is known of a signal; an InputError names an unknown sensor or band."""
    sensor = find(sensors(extra), signal.sensor, "sensor")
    return find({band.name: band for band in sensor.bands}, signal.band, f"band of {sensor.name}")


def moved_all(inputs: Inputs, device: torch.device) -> dict[str, Any]:
    """Return inputs with every tensor in them on a device."""
    return {name: moved(value, device) for name, value in inputs.items()}


def _most(count: int, device: torch.device) -> int:
    """Return the largest count of all ranks."""
    found = torch.tensor(count, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)
