"""How well each task does on a split of its data: metrics, the best so far, and since when.

scores.jsonl in the folder of a run holds a line for every task and evaluation.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.labelled_batches import Drawn, once, plain
from hpcgeo.data.sample import Float64
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.kinds.metrics import metrics, start
from hpcgeo.kinds.states import State
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.log import log, track
from hpcgeo.parallel.group import on_rank_0
from hpcgeo.parallel.topology import Topology
from hpcgeo.workloads.task_pictures import Album

NAME = "scores.jsonl"

#: An evaluation while training has none.
NO_RESAMPLES: Float64 = np.zeros(0)

#: What is judged without labels.
UNLABELLED = Target("unlabelled", ())


class Found(NamedTuple):
    """The metric of a task on a split of its data, and on resamples of it."""

    task: str
    metric: str
    value: float
    samples: int
    resampled: Float64 = NO_RESAMPLES


class TaskScore(BaseModel):
    """One task at one evaluation: its metric, and its state for stopping early."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    task: str
    metric: str
    better: Literal["higher", "lower"]
    value: float
    samples: int
    best: float
    best_step: int
    since: int  #: evaluations since the best


def scores(
    predict: Callable[[Sequence[Drawn]], Iterable[tuple[list[int], Tensor]]],
    sets: Mapping[str, TaskSet],
    metrics: Mapping[str, str],
    topology: Topology,
    micro_batch: int,
    album: Album | None = None,
    resamples: int = 0,
) -> list[Found]:
    """Return the metric of each task on a split of its data; every rank calls it together.

    What cannot be read does not count; a metric that the rest do not define is NaN.
    Each rank takes its share of the samples, in as many rounds as the others.

    Args:
        predict: returns which of the samples, and the answers to them, (b, K) or (b, K, H, W).
        sets: splits to score, by task.
        metrics: of each task.
        micro_batch: samples of a round.
        album: what pictures are drawn from.
        resamples: of each split, see `hpcgeo.kinds.states`.
    """
    found = []
    for name, part in sets.items():
        state, whole = (start(metrics[name], part.target, resamples) for _ in range(2))
        count = 0
        for drawn in _rounds(name, part, topology, micro_batch):
            count += len(drawn)
            for rows, answer in predict(drawn):
                some = [drawn[row] for row in rows]
                truth = np.stack([one.sample.target for one in some])
                state.update([part.group(one.index) for one in some], answer, truth)
                if album:
                    album.add(part, some, answer)
        count = _merge(whole, state, count, topology)
        if album:
            album.draw(name, part.target)
        number, resampled = whole.compute()
        found.append(Found(name, metrics[name], number, count, resampled))
    return found


def errors(
    error: Callable[[Sequence[Drawn]], float],
    sets: Mapping[str, TaskSet],
    topology: Topology,
    micro_batch: int,
) -> list[Found]:
    """Return the mean error of hidden tokens of each data set; every rank calls it together.

    Args:
        error: returns the sum of the errors of samples.
        sets: splits, by task.
        micro_batch: samples of a round.
    """
    found, metric = [], kind_of(UNLABELLED).metric
    for name, part in sets.items():
        state, whole = (start(metric, UNLABELLED) for _ in range(2))
        count = 0
        for drawn in _rounds(name, part, topology, micro_batch):
            count += len(drawn)
            clusters = [part.group(one.index) for one in drawn]
            state.update(clusters, torch.tensor(error(drawn), dtype=torch.float64), np.zeros(0))
        count = _merge(whole, state, count, topology)
        if count:
            found.append(Found(name, metric, whole.compute()[0], count))
    return found


def _rounds(
    name: str, part: TaskSet, topology: Topology, micro_batch: int
) -> Iterator[list[Drawn]]:
    """Yield this rank's samples of a split, in as many rounds as the others'."""
    world, rank = topology.layout.data_parallel, topology.data_rank
    rounds = range(0, len(part), world * micro_batch)
    for first in track(rounds, f"scoring {name}", len(rounds), shown=topology.rank == 0):
        mine = range(first + rank, min(len(part), first + world * micro_batch), world)
        yield list(_readable(part, name, mine))


def _readable(part: TaskSet, name: str, indices: range) -> Iterator[Drawn]:
    for index in indices:
        try:
            yield plain(part.read(index), name, index)
        except InputError as error:
            once(f"task {name}: {error}; its score is that of the others")


def _merge(whole: State, own: State, count: int, topology: Topology) -> int:
    """Merge the states of all ranks into one, and return the number of all samples."""
    each: list[Any] = [None] * topology.world_size
    dist.all_gather_object(each, (topology.data_rank, own, count))
    found = {rank: (state, number) for rank, state, number in each}  # those of one product agree
    for state, _ in found.values():
        whole.merge(state)
    return sum(number for _, number in found.values())


def keep(found: Sequence[Found], topology: Topology, folder: Path, step: int) -> list[TaskScore]:
    """Write down the scores of an evaluation, log them, and return them with the best so far.

    A task whose metric is not defined has none.
    """
    for task, metric, number, samples, _ in found:
        if not math.isfinite(number):
            log.warning("task %s: no %s of %d samples", task, metric, samples)
    found = [one for one in found if math.isfinite(one.value)]
    earlier: list[TaskScore] = on_rank_0(lambda: kept_scores(folder, step))
    now = standing(earlier, found, step)
    if topology.rank == 0:
        with (folder / NAME).open("a", encoding="utf-8") as file:
            file.writelines(score.model_dump_json() + "\n" for score in now)
    for score in now:
        log.info(
            "step %d  %s: %s %.4f on %d validation samples; best %.4f at step %d",
            *(step, score.task, score.metric, score.value, score.samples),
            *(score.best, score.best_step),
        )
    return now


def standing(earlier: Sequence[TaskScore], found: Sequence[Found], step: int) -> list[TaskScore]:
    """Return the scores of an evaluation, with what each task's best was."""
    now = []
    for task, metric, number, samples, _ in found:
        better = metrics()[metric].better
        sign = 1 if better == "higher" else -1
        before = [score for score in earlier if score.task == task]
        best, best_step, since = number, step, 0
        if before and not sign * number > sign * before[-1].best:
            best, best_step = before[-1].best, before[-1].best_step
            since = before[-1].since + 1
        now.append(
            TaskScore(
                step=step,
                task=task,
                metric=metric,
                better=better,
                value=number,
                samples=samples,
                best=best,
                best_step=best_step,
                since=since,
            )
        )
    return now


def waited(now: Sequence[TaskScore], patience: int | None) -> bool:
    """Return whether all tasks of an evaluation have been waited for long enough.

    Args:
        now: its scores.
        patience: evaluations without a better one; None: a run never ends so.
    """
    return patience is not None and min((score.since for score in now), default=0) >= patience


def kept_scores(folder: Path, step: int) -> list[TaskScore]:
    """Return the scores before a step; later ones, of a run that was cut off, are dropped."""
    kept = [score for score in read_scores(folder) if score.step < step]
    if (folder / NAME).exists():
        write_text(folder / NAME, "".join(score.model_dump_json() + "\n" for score in kept))
    return kept


def read_scores(folder: Path) -> list[TaskScore]:
    """Return all scores of a run; a torn line is left out."""
    kept: list[TaskScore] = []
    if (folder / NAME).exists():
        for line in (folder / NAME).read_text("utf-8", "replace").splitlines():
            with suppress(ValidationError):
                kept.append(TaskScore.model_validate_json(line))
    return kept
