"""Training on samples of labelled data sets (`data.tasks`), any objective that takes samples.

The passes of a step are as many as the rank with the most tokens needs: ranks agree on their number
before the step, and one with fewer tokens fills up with smaller or empty passes. In a pass every
rank runs the same collectives, whatever samples it has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from hpcgeo.config import RunConfig
from hpcgeo.data.crops import refuse_crop
from hpcgeo.data.labelled import LabelledSplit, TaskSet, fingerprint_of, open_tasks
from hpcgeo.data.labelled_batches import Bool, Drawn, DrawnBatches
from hpcgeo.data.loader import Loader
from hpcgeo.data.sample import UNKNOWN_SENSOR, Channel
from hpcgeo.data.sampling.mixture import MixtureSampler
from hpcgeo.data.sampling.packing import passes
from hpcgeo.errors import InputError
from hpcgeo.kinds.metrics import metric_of
from hpcgeo.launch.environment import discover
from hpcgeo.log import log
from hpcgeo.models import coordinates
from hpcgeo.models.tokenizers import Tokens
from hpcgeo.objectives.collate import Grouping, moved, padding, tokens
from hpcgeo.objectives.collate import whole as everything
from hpcgeo.objectives.objective import Objective, SampleBatch
from hpcgeo.options import Mixture as Options
from hpcgeo.options import Model, Task
from hpcgeo.parallel.engine import Engine, Initial, Inputs
from hpcgeo.parallel.topology import Topology
from hpcgeo.phases import phase
from hpcgeo.sensors import Band, sensors
from hpcgeo.tables import find
from hpcgeo.weights.initial import initial
from hpcgeo.workloads.images import refuse_idle_options
from hpcgeo.workloads.material import material_of
from hpcgeo.workloads.preparation import keep_preparation, preparation_of
from hpcgeo.workloads.scores import Found, errors, keep, read_scores, scores, waited
from hpcgeo.workloads.task_pictures import Album
from hpcgeo.workloads.workload import Alive, Source, Step
from hpcgeo.zoo import Forms, PerceiverArchitecture, architecture

#: DeepSpeed gathers modules when they are called (3) and puts gradients into buckets when they are
#: there (2), rank by rank: with other tasks on each, sums are of unlike things, or never end. The
#: first is fine where all ranks have the same task; gathered ones lack parameters of idle heads.
OUT_OF_STEP = ("ZERO2", "ZERO3", "ZERO3_HPZ")


@dataclass(frozen=True)
class MixedSource:
    """The data sets of a mixture, as one source of samples."""

    sizes: Mapping[str, int]
    fingerprint: str
    kind: str = "mixture"

    def __len__(self) -> int:
        return sum(self.sizes.values())


class MixtureRun:
    """Samples of labelled data sets, any objective that takes them; see
    `hpcgeo.workloads.workload.Workload`.
    """

    done = False
    forms: Forms | None = None

    def __init__(self, run: RunConfig, objective: Objective) -> None:
        """Open the data sets.

        Raises:
            InputError: no such model, reader, data; or they do not fit together.
        """
        assert isinstance(run.data, Options)
        self.run, self.data, self._objective = run, run.data, objective
        self.model = architecture_of(run.model)
        # One task and images of one size: all ranks use all parameters in one order.
        alike = len(self.data.chosen) == 1 and not self.model.any_sensor
        if run.parallel.strategy in OUT_OF_STEP[int(alike) :]:
            raise InputError(
                f"parallel.strategy {run.parallel.strategy}: it gathers or sums parameters in the "
                "order of their use, and in a mixture that differs between ranks: choose ZERO1, "
                "SHARD_GRAD_OP or FULL_SHARD (or ZERO2 for a ViT on one task)"
            )
        if objective.patience and not run.train.eval_every:
            raise InputError(
                f"objective.patience {objective.patience} counts evaluations, and train.eval_every "
                f"is {run.train.eval_every}: set it to so many steps between evaluations"
            )
        # A density that cannot be read is said before anything starts.
        coordinates.height(torch.zeros(1), torch.ones(1), run.model.density)
        self.sets = open_sets(run)
        self.bands = partial(band_of, self.data.sensors)
        tasks = self.data.chosen
        self.material = material_of(self.model, run.model, self.sets, tasks)
        self.channels = self.material.channels
        for channel in self.channels:
            self.bands(channel)  # an unknown sensor is said before anything starts
        objective.check(tasks, self.sets)
        sizes = {name: len(part) for name, part in self.sets.items()}
        fingerprints = {name: part.fingerprint for name, part in self.sets.items()}
        self.dataset: Source = MixedSource(sizes, fingerprint_of(fingerprints))
        ranks = discover().world_size // run.parallel.tensor
        self.mixture = MixtureSampler(
            sizes,
            weights={name: task.weight for name, task in tasks.items()},
            temperature=self.data.temperature,
            epochs={name: task.epochs for name, task in tasks.items()},
            seed=run.seed,
            total=run.train.steps * run.train.micro_batch * run.train.accumulate * ranks,
        )

    def collate(
        self, drawn: Sequence[Drawn], visible: Sequence[Sequence[Bool]]
    ) -> tuple[Tokens, Grouping]:
        """Return the tokens of a pass, on the CPU."""
        return tokens(drawn, self.data.batching, self.bands, visible)

    def sets_of(self, split: str) -> dict[str, TaskSet]:
        """Return another split of the data sets, of those that have one, by name of the task."""
        others = {name: part.other(split) for name, part in self.sets.items()}
        return {name: part for name, part in others.items() if len(part)}

    def refuse_cut(self, tensor: int) -> None:
        self.model.refuse_cut(tensor)

    def objective(self) -> nn.Module:
        return self._objective.network(self.material)

    def initial(self, objective: nn.Module) -> Initial:
        channels = self.channels if self.material.bands else ()
        return initial(
            self.run.model, self.model, objective, self.run.seed, self._objective, channels
        )

    def visible(self, drawn: Sequence[Drawn]) -> list[tuple[Bool, ...]]:
        """Return which tokens of each sample take part in training."""
        return self._objective.visible(drawn, self.data.chosen)

    def inputs(
        self, drawn: Sequence[Drawn], visible: Sequence[tuple[Bool, ...]], whole: bool = False
    ) -> Inputs:
        """Return what one forward takes of samples, beside `scale`."""
        batch = SampleBatch(drawn, visible, self.collate, self.material, whole)
        return self._objective.task_inputs(batch)

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
            self._objective.unnamed,
            {name: task.crop for name, task in self.data.chosen.items() if task.crop},
            self._objective.mixing,
        )
        return Loader(
            batches,
            accumulate=train.accumulate,
            workers=self.data.workers,
            first_step=first_step,
            ranks=topology.local_size,
        )

    def step(self, batches: Iterator[list[Drawn]], device: torch.device) -> Step:
        drawn = [one for batch in batches for one in batch]
        visible = self.visible(drawn)
        lengths = [1 + sum(int(part.sum()) for part in parts) for parts in visible]
        batching, parts = self.data.batching, self.passes(lengths, device)
        count = len(parts)
        padded = sum(padding([lengths[i] for i in part], batching) for part in parts)

        def made() -> Iterator[Inputs]:
            for part in parts:
                with phase("collate"):
                    some = [drawn[i] for i in part]
                    inputs = self.inputs(some, [visible[i] for i in part])
                with phase("host_to_device"):
                    inputs = moved_all(inputs, device)
                yield inputs | {"scale": count / len(drawn)}  # outside: what follows is no part

        scalars = {"tokens": sum(lengths), "padding": padded, "passes": count}
        return Step(
            made(),
            count,
            {
                # Filled there: a copy would be waited for.
                name: torch.full((), value, dtype=torch.float64, device=device)
                for name, value in scalars.items()
            },
        )

    def passes(self, lengths: Sequence[int], device: torch.device) -> list[list[int]]:
        """Return the samples of each pass, as many passes on all ranks; all call it together."""
        limit = self.data.batching.max_tokens
        return passes(lengths, limit, _most(len(passes(lengths, limit)), device))

    def evaluate(
        self, engine: Engine, topology: Topology, folder: Path, step: int, alive: Alive
    ) -> None:
        """Judge every task on its validation split, and see which no longer get better.

        Objectives without labels are judged by the error of what they predict, the same hidden
        things at every evaluation. A data set without a validation split has no say.
        """
        sets = self.sets_of("validation")
        if self._objective.labels:
            found = self.score(engine, topology, sets, Album(folder, step, topology), alive)
        elif "error" in getattr(engine.objective, "methods", ()):
            found = self._errors(engine, topology, sets, alive)
        else:
            return
        self.done = waited(keep(found, topology, folder, step), self._objective.patience)
        if self.done:
            log.info(
                "no task got better in %d evaluations: the run ends at step %d",
                *(self._objective.patience, step),
            )

    def keep(self, folder: Path) -> None:
        keep_preparation(preparation_of(self.sets, self.data.chosen), folder)

    def ended(self, folder: Path, step: int) -> bool:
        now = [score for score in read_scores(folder) if score.step == step]
        return waited(now, self._objective.patience)

    def _errors(
        self, engine: Engine, topology: Topology, sets: Mapping[str, TaskSet], alive: Alive
    ) -> list[Found]:
        def error(drawn: Sequence[Drawn]) -> float:
            total = 0.0
            for part in self.passes([one.length for one in drawn], topology.device):
                alive()
                some = [drawn[row] for row in part]
                inputs = moved_all(self.inputs(some, self.visible(some)), topology.device)
                total += float(engine.evaluate("error", inputs))
            return total

        return errors(error, sets, topology, self.run.train.micro_batch)

    def score(
        self,
        engine: Engine,
        topology: Topology,
        sets: Mapping[str, TaskSet],
        album: Album | None = None,
        alive: Alive = lambda: None,
        resamples: int = 0,
    ) -> list[Found]:
        """Return the metric of each task on a split of its data; every rank calls it together."""

        def predict(drawn: Sequence[Drawn]) -> Iterator[tuple[list[int], torch.Tensor]]:
            for part in self.passes([one.length for one in drawn], topology.device):
                alive()
                some = [drawn[row] for row in part]
                inputs = self.inputs(some, everything(some), whole=True)
                rows = [[part[row] for row in one.rows.tolist()] for one in inputs["questions"]]
                answers = engine.evaluate("predict", moved_all(inputs, topology.device))
                yield from zip(rows, answers, strict=True)

        metrics = {
            name: metric_of(self.data.chosen[name].metric, part.target)
            for name, part in sets.items()
        }
        size = self.run.train.micro_batch
        return scores(predict, sets, metrics, topology, size, album, resamples)

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

    def about(self) -> list[str]:
        parameters, batching = f"{self.facts()['parameters']:,} parameters", self.data.batching
        if self.run.model.lora_rank:
            parameters += f", of the backbone those of rank {self.run.model.lora_rank} trained"
        shares, tasks = self.mixture.sampling_weights, self.data.chosen
        return [
            f"model         {self.model.name} ({self.model.family}), {parameters}",
            *(
                f"task          {name}: {tasks[name].path}, {part.target.kind} of "
                f"{len(part.target.names)}, {len(part):,} samples, "
                f"sampling weight {shares[name]:.1%}"
                for name, part in self.sets.items()
            ),
            f"batching      {batching.mode}, forward-backward passes of at most "
            f"{batching.max_tokens:,} tokens",
        ]

    def commands(self) -> list[str]:
        judged = "evaluate" if self._objective.labels else "probe"
        return [f"hpcgeo {judged} RUN", "hpcgeo export RUN --to safetensors"]


def open_sets(run: RunConfig) -> dict[str, LabelledSplit]:
    """Return the training split of every data set of a mixture, by the name of the task."""
    assert isinstance(run.data, Options)
    return {name: open_task(name, task, run.seed) for name, task in run.data.chosen.items()}


def open_task(name: str, task: Task, seed: int) -> LabelledSplit:
    """Return the training split of the data set of a task; label subsets are drawn by a seed."""
    try:
        part = open_tasks(
            task.reader,
            task.path,
            split="train",
            target=task.target,
            patch=task.patch,
            size=task.size,
            labels=task.labels,
            place=task.place,
            seed=seed,
            split_by_place=task.split_by_place,
            leave_out=task.leave_out,
        )
        if task.crop:
            refuse_crop(name, part.read(0))
    except InputError as error:
        raise InputError(f"task {name}: {error}") from None
    return part


def architecture_of(model: Model) -> Any:
    """Return the architecture of a run: a row of the zoo, a Perceiver's with its own sizes."""
    row = architecture(model.name)
    refuse_idle_options(model, row.family)
    if not isinstance(row, PerceiverArchitecture):
        return row
    stack = replace(row.stack, depth=model.depth or row.stack.depth)
    return replace(row, stack=stack, latents=model.latents or row.latents)


def band_of(extra: Path | None, channel: Channel) -> Band:
    """Return what is known of a channel; an InputError names an unknown sensor or band.

    Of a sensor that its data set does not name, nothing is.
    """
    if channel.sensor == UNKNOWN_SENSOR:
        return Band(channel.band, None, None, None)
    sensor = find(sensors(extra), channel.sensor, "sensor")
    return find({band.name: band for band in sensor.bands}, channel.band, f"band of {sensor.name}")


def moved_all(inputs: Inputs, device: torch.device) -> dict[str, Any]:
    """Return inputs with every tensor in them on a device."""
    return dict(zip(inputs, moved(tuple(inputs.values()), device), strict=True))


def _most(count: int, device: torch.device) -> int:
    """Return the largest count of all ranks."""
    found = torch.full((), count, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)
