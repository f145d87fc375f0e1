"""The model of a run that answers for the pixels of tiles; it needs no data of the run."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.sample import Sample
from hpcgeo.errors import InputError
from hpcgeo.evaluate.score import found_or_moved
from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.table import kind_of
from hpcgeo.log import log
from hpcgeo.objectives.collate import questions, tokens, whole
from hpcgeo.objectives.objective import Material
from hpcgeo.objectives.table import OBJECTIVES
from hpcgeo.options import Mixture
from hpcgeo.parallel.parallelise import initialise
from hpcgeo.tables import find
from hpcgeo.weights.export import Weights, chosen, config_of
from hpcgeo.workloads.choice import objective_of
from hpcgeo.workloads.mixture import MixtureRun, architecture_of, band_of, moved_all
from hpcgeo.workloads.preparation import (
    Preparation,
    PreparedTask,
    kept_preparation,
    preparation_of,
)


@dataclass(frozen=True)
class MapModel:
    """A task of a run, and how its samples are prepared; weights come with `loaded`.

    Attributes:
        folder, step, checkpoint: of the run.
        run: its configuration.
        preparation: of all its tasks.
        task: the name of the one that is answered.
    """

    folder: Path
    step: int
    checkpoint: Path
    run: RunConfig
    preparation: Preparation
    task: str

    @property
    def prepared(self) -> PreparedTask:
        """How the samples of the task are prepared."""
        return self.preparation.tasks[self.task]

    @property
    def kind(self) -> Kind:
        """The kind of the task."""
        return kind_of(self.prepared.target)

    @property
    def architecture(self) -> Any:
        """The architecture of the backbone."""
        return architecture_of(self.run.model)

    def tile(self, side: int | None) -> tuple[int, int]:
        """Return rows and columns of a tile: those of the chips in training, or a side.

        Raises:
            InputError: the model cannot read images of that side.
        """
        if side is None:
            assert self.prepared.chip is not None, "a dense task has images"
            return self.prepared.chip
        step = self.step_of_tiles
        if side < step or side % step:
            raise InputError(f"--tile {side}: a multiple of {step}, the pixels of a token")
        return side, side

    @property
    def step_of_tiles(self) -> int:
        """The pixels on a side of a token."""
        patches = {self.prepared.patch, *self.prepared.patches}
        own = () if self.architecture.any_sensor else (self.architecture.patch,)
        return max((*patches, *own))


def open_model(
    folder: Path, task: str | None, step: int | None, moved: Sequence[str] = ()
) -> MapModel:
    """Return a task of a run, without its weights.

    Args:
        folder: of the run.
        task: its name; None: the only dense one.
        step: of the checkpoint; None: the newest.
        moved: where the data of a run lies that kept no preparation; see `config_of`.

    Raises:
        InputError: no such run, checkpoint or task, or it answers for no pixels.
    """
    run = config_of(folder, moved)
    if not objective_of(run).labels or not isinstance(run.data, Mixture):
        fitting = ", ".join(name for name, row in OBJECTIVES.items() if row.labels)
        raise InputError(
            f"{folder} is a run of {run.objective.name}, which answers no task: give a run with "
            f"objective.name {fitting}"
        )
    step, checkpoint = chosen(folder, step)
    preparation = kept_preparation(folder)
    if preparation is None:
        log.info("%s keeps no preparation of its samples: reading its data", folder)
        with found_or_moved():
            work = MixtureRun(run, objective_of(run))
        preparation = preparation_of(work.sets, work.data.chosen)
    elif moved:
        raise InputError(
            f"--data {moved[0]}: {folder} keeps how its samples are prepared, and its data is not "
            f"read: leave --data out"
        )
    return MapModel(
        folder, step, checkpoint, run, preparation, _task(folder, preparation.tasks, task)
    )


def _task(folder: Path, tasks: Mapping[str, PreparedTask], name: str | None) -> str:
    dense = [each for each, row in tasks.items() if kind_of(row.target).maps]
    if name is None:
        if len(dense) == 1:
            return dense[0]
        there = ", ".join(f"{each} ({row.target.kind})" for each, row in tasks.items())
        which = "several tasks of pixels: choose with --task" if dense else "no task of pixels"
        raise InputError(f"{folder} has {which}; its tasks: {there}")
    find(tasks, name, "task")
    if name not in dense:
        fitting = f": choose {' or '.join(dense)}" if dense else ""
        raise InputError(
            f"task {name} of {folder} is a {tasks[name].target.kind}, which answers for whole "
            f"samples and has no map{fitting}"
        )
    return name


class TaskAnswers:
    """The network of a run, whole on this rank, with its weights."""

    def __init__(self, model: MapModel, device: torch.device) -> None:
        """Load the weights.

        Raises:
            InputError: the checkpoint is damaged.
        """
        self.model, self._device = model, device
        assert isinstance(model.run.data, Mixture)
        self._batching = model.run.data.batching
        self._bands = partial(band_of, model.run.data.sensors)
        with torch.device("meta"):
            self._network: Any = objective_of(model.run).network(_material(model))
        self._network.to_empty(device=device)
        weights, digest = Weights(model.checkpoint), hashlib.sha256()

        def read(name: str, shape: Sequence[int], rows: slice) -> Tensor:
            value = weights.read(name)
            digest.update(name.encode())
            digest.update(value.numpy().tobytes())
            return value[rows]

        initialise(self._network, read)
        self._network.eval()
        self.fingerprint = digest.hexdigest()[:32]  #: of the weights
        self._dtype = getattr(torch, model.run.train.dtype)

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Return what answers to samples (b) are averaged as, float32 (b, K, H, W), on the CPU."""
        model = self.model
        drawn = [plain(sample, model.task, number) for number, sample in enumerate(samples)]
        made, grouping = tokens(drawn, self._batching, self._bands, whole(drawn))
        inputs = moved_all(
            {"tokens": made, "questions": questions(drawn, grouping, None, 0)}, self._device
        )
        with torch.inference_mode(), self._autocast():
            answers = self._network.predict(**inputs)
        rows = torch.cat([question.rows for question in inputs["questions"]]).cpu()
        answer = torch.cat(answers).float()
        averaged = model.kind.averaged(answer, model.prepared.target).cpu()
        return averaged[rows.argsort()]


def _material(model: MapModel) -> Material:
    """Return what the network of a run was built for."""
    assert isinstance(model.run.data, Mixture)
    row, sets = model.architecture, model.preparation.tasks
    channels = tuple(sorted({channel for part in sets.values() for channel in part.channels}))
    single = not row.any_sensor
    return Material(
        row,
        len(channels) if single else 0,
        next(iter(sets.values())).chip if single else None,
        channels,
        sets,
        model.run.data.chosen,
        model.run.model.density,
    )
