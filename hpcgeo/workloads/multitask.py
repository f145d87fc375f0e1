"""Runs on several tasks at once, with their labels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.labelled_batches import Bool, Drawn
from hpcgeo.errors import InputError
from hpcgeo.kinds.metrics import default_metric, metrics
from hpcgeo.log import log
from hpcgeo.objectives.collate import questions, tokens, whole
from hpcgeo.objectives.masked_tokens import hide
from hpcgeo.objectives.multitask import Asked, MultiTaskObjective
from hpcgeo.options import MultiTask, Task
from hpcgeo.parallel.engine import Engine, Inputs
from hpcgeo.parallel.topology import Topology
from hpcgeo.tables import find
from hpcgeo.workloads.mixture import MixtureRun, moved_all
from hpcgeo.workloads.scores import Found, Score, keep, read_scores, scores
from hpcgeo.workloads.task_pictures import Album
from hpcgeo.workloads.workload import Alive


class MultiTaskRun(MixtureRun):
    """Several tasks at once, with their labels."""

    def __init__(self, run: RunConfig) -> None:
        super().__init__(run)
        assert isinstance(run.objective, MultiTask)
        self.options = run.objective
        if self.options.patience and not run.train.eval_every:
            raise InputError(
                f"objective.patience {self.options.patience} counts looks, and train.eval_every is "
                f"{run.train.eval_every}: set it to so many steps between looks"
            )
        for name, task in self.data.chosen.items():
            if self.sets[name].target.kind == "unlabelled":
                raise InputError(
                    f"task {name}: {task.path} has no labels, and objective.name multitask learns "
                    f"from labels: leave the task out, or pretrain with masked_tokens"
                )
            metric_of(task, self.sets[name])
            if self.options.balance == "uncertainty" and task.loss != 1:
                raise InputError(
                    f"data.tasks.{name}.loss {task.loss} has no effect where objective.balance is "
                    f"uncertainty: leave it out, or choose fixed"
                )
            if hasattr(nn.ModuleDict, name):
                raise InputError(f"task {name}: torch has that word for itself: name it otherwise")

    @property
    def unnamed(self) -> float:
        return self.options.unnamed

    def objective(self) -> MultiTaskObjective:
        tasks = {
            name: Asked(self.sets[name].target, task.loss, task.local)
            for name, task in self.data.chosen.items()
        }
        spread = self.run.model.spread
        return MultiTaskObjective(self.model, self.signals, tasks, self.options, spread)

    def visible(self, drawn: Sequence[Drawn]) -> list[tuple[Bool, ...]]:
        tasks, seed = self.data.chosen, self.run.seed
        return [
            hide(one, ratio, seed)[0] if (ratio := tasks[one.task].hide) else one.kept
            for one in drawn
        ]

    def inputs(self, drawn: Sequence[Drawn], visible: Sequence[tuple[Bool, ...]]) -> Inputs:
        return self._asked(drawn, visible, self.options.queries)

    def look(
        self, engine: Engine, topology: Topology, folder: Path, step: int, alive: Alive
    ) -> None:
        """Score every task on its validation part, and see which no longer get better."""
        album = Album(folder, step, topology)
        found = self.score(engine, topology, self.part("validation"), album, alive)
        now = keep(found, topology, folder, step)
        self.done = self._waited(now)
        if self.done:
            log.info(
                "no task got better in %d looks: the run ends at step %d",
                *(self.options.patience, step),
            )

    def ended(self, folder: Path, step: int) -> bool:
        return self._waited([score for score in read_scores(folder) if score.step == step])

    def _waited(self, now: Sequence[Score]) -> bool:
        """Return whether all tasks of a look have been waited for long enough."""
        waited = min((score.since for score in now), default=0)
        return self.options.patience is not None and waited >= self.options.patience

    def score(
        self,
        engine: Engine,
        topology: Topology,
        sets: Mapping[str, TaskSet],
        album: Album | None = None,
        alive: Alive = lambda: None,
        resamples: int = 0,
    ) -> list[Found]:
        """Return the metric of each task on a part of its data; every rank calls it together."""

        def predict(drawn: Sequence[Drawn]) -> Iterator[tuple[list[int], torch.Tensor]]:
            for part in self.split([one.length for one in drawn], topology.device):
                alive()
                some = [drawn[row] for row in part]
                inputs = self._asked(some, whole(some), None)
                rows = [[part[row] for row in one.rows.tolist()] for one in inputs["questions"]]
                answers = engine.evaluate("predict", moved_all(inputs, topology.device))
                yield from zip(rows, answers, strict=True)

        metrics = {name: metric_of(self.data.chosen[name], part) for name, part in sets.items()}
        size = self.run.train.micro_batch
        return scores(predict, sets, metrics, topology, size, album, resamples)

    def _asked(
        self, drawn: Sequence[Drawn], visible: Sequence[tuple[Bool, ...]], queries: int | None
    ) -> Inputs:
        made, grouping = tokens(drawn, self.data.batching, self.bands, visible)
        asked = questions(drawn, grouping, queries, self.run.seed)
        return {"tokens": made, "questions": asked}


def metric_of(task: Task, part: TaskSet) -> str:
    """Return what a task is judged by; an InputError where its kind has no such metric."""
    kind = part.target.kind
    name = task.metric or default_metric(kind)
    if kind not in find(metrics(), name, "metric").kinds:
        fitting = ", ".join(other for other, row in metrics().items() if kind in row.kinds)
        raise InputError(f"metric {name} is none of {kind}: choose one of {fitting}")
    return name
