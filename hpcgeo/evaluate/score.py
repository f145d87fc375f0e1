"""What the models of runs, and the baselines, reach on a split of the data of each task.

Baselines are kept in a file, a line for each, so that they are fitted once.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from hpcgeo import __version__
from hpcgeo.checkpoint.folders import MANIFEST
from hpcgeo.checkpoint.manifest import opened
from hpcgeo.config import RunConfig
from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.sample import Float64
from hpcgeo.errors import InputError
from hpcgeo.evaluate.baselines import fit_and_score, suits
from hpcgeo.files import write_text
from hpcgeo.kinds.metrics import metric_of
from hpcgeo.kinds.states import RESAMPLES, interval
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.launch.environment import Environment, discover
from hpcgeo.log import log, set_up
from hpcgeo.objectives.table import OBJECTIVES
from hpcgeo.options import Parallel, Task
from hpcgeo.parallel.group import on_rank_0
from hpcgeo.parallel.topology import lay_out
from hpcgeo.strategies import strategy
from hpcgeo.train.loop import meet, new_engine
from hpcgeo.train.provenance import command, commit, versions
from hpcgeo.weights.export import Weights, chosen, config_of
from hpcgeo.workloads.choice import objective_of
from hpcgeo.workloads.mixture import MixtureRun
from hpcgeo.workloads.scores import Found

#: Every rank holds the whole model, so that any number of ranks does.
SPREAD = "DDP"
#: File of the baselines that were fitted.
KEPT = "baselines.jsonl"


class ScoredData(NamedTuple):
    """What a task is scored on: runs are compared where it is the same."""

    reader: str
    target: str | None
    fingerprint: str
    metric: str
    size: int | None


class Reached(NamedTuple):
    """The metric of a task, and its values over resamples of the samples; NaN: not defined."""

    value: float
    resampled: Float64


class Fitted(BaseModel):
    """What a baseline reached, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    baseline: str
    reader: str
    target: str | None
    fingerprint: str
    size: int | None
    patch: int
    labels: float
    seed: int
    split: str
    metric: str
    hpcgeo: str
    value: float | None = None  #: None: not yet, or the metric is not defined
    resampled: tuple[float | None, ...] = ()

    @property
    def reached(self) -> Reached:
        """Its score."""
        value, *resampled = np.array([self.value, *self.resampled], dtype=np.float64)
        return Reached(float(value), np.array(resampled))


@dataclass(frozen=True)
class Case:
    """A run to be scored: its model of a step, and a split of the data of its tasks."""

    folder: Path
    step: int
    checkpoint: Path
    run: RunConfig
    work: MixtureRun
    sets: Mapping[str, TaskSet]

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of the run, by name."""
        return self.work.data.chosen

    def data(self, name: str) -> ScoredData:
        """Return what a task is scored on."""
        task, scored = self.tasks[name], self.sets[name]
        size = task.size if kind_of(scored.target).dense else None
        metric = metric_of(task.metric, scored.target)
        return ScoredData(task.reader, task.target, scored.split_fingerprint, metric, size)


def open_case(folder: Path, split: str, step: int | None, moved: Sequence[str] = ()) -> Case:
    """Open a run and a split of its data, which may have moved (`config_of`).

    Raises:
        InputError: no such run, checkpoint or split; it has no tasks; its data has changed.
    """
    run = config_of(folder, moved)
    chosen_objective = objective_of(run)
    if not chosen_objective.labels:
        fitting = ", ".join(name for name, row in OBJECTIVES.items() if row.labels)
        raise InputError(
            f"{folder} is a run of {run.objective.name}, which answers no task: give runs with "
            f"objective.name {fitting}, or look at its backbone (hpcgeo probe)"
        )
    # Whole on every rank, from a checkpoint, whatever trained it.
    run = run.model_copy(update={"parallel": Parallel(strategy=SPREAD)})
    step, checkpoint = chosen(folder, step)
    with found_or_moved():
        work = MixtureRun(run, chosen_objective)
    refuse_other_data(folder, checkpoint, work.dataset.fingerprint)
    sets = work.sets_of(split)
    for name in work.sets:
        if name not in sets:
            raise InputError(f"{folder}: task {name} has no samples in the split {split!r}")
    return Case(folder, step, checkpoint, run, work, sets)


@contextmanager
def found_or_moved() -> Iterator[None]:
    """Say of data that a run no longer finds how to tell where it is."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{error}\nIf the data lies elsewhere now: --data PATH, of a mixture --data TASK=PATH"
        ) from None


def refuse_other_data(folder: Path, checkpoint: Path, found: str) -> None:
    """Refuse data with other means and deviations than a run was trained on."""
    kept = found
    with suppress(ValueError, OSError):  # a damaged one is said when its weights are read
        kept = opened((checkpoint / MANIFEST).read_text("utf-8")).data
    if kept != found:
        raise InputError(
            f"{folder} was trained on other data than is there now, which has other means and "
            f"deviations: restore it, or train again"
        )


def agree(cases: Sequence[Case]) -> None:
    """Refuse runs whose tasks of one name are not the same; an InputError says how they differ."""
    first: dict[str, Case] = {}
    for case in cases:
        for name in case.tasks:
            other = first.setdefault(name, case)
            here, there = case.data(name), other.data(name)
            for what, mine, others in zip(ScoredData._fields, here, there, strict=True):
                if mine != others:
                    raise InputError(
                        f"task {name} of {case.folder} has another {what} ({mine}) than that of "
                        f"{other.folder} ({others}): evaluate them apart"
                    )


def score_all(cases: Sequence[Case]) -> list[list[Found]]:
    """Return the metrics of every run; every rank calls it, and joins the others here."""
    environment = discover()
    set_up(environment.rank, environment.host)
    device = meet(cases[0].run, environment)
    return [_score(case, environment, device) for case in cases]


def _score(case: Case, environment: Environment, device: torch.device) -> list[Found]:
    chosen = strategy(SPREAD)
    layout = chosen.layout(environment.world_size, dict(case.run.parallel))
    topology = lay_out(
        environment.rank, environment.local_rank, environment.host, device, chosen, layout
    )
    weights = Weights(case.checkpoint)

    def initial(name: str, shape: Sequence[int], rows: slice) -> Tensor:
        return weights.read(name)[rows]

    engine = new_engine(case.run, case.work, topology, initial)
    found = case.work.score(engine, topology, case.sets, resamples=RESAMPLES)
    log.info("%s: step %d scored on %d tasks", case.folder, case.step, len(found))
    return found


def refuse_one_class(name: str, target: Target) -> None:
    """Refuse a task whose labels are all of one class; an InputError names it."""
    if kind_of(target).stratified and len(target.names) < 2:
        raise InputError(
            f"{name}: all samples with a label are {', '.join(target.names)}: a probe needs two "
            f"classes; name other tasks or data"
        )


def interval_of_means(resampled: Float64) -> tuple[float, float]:
    """Return the interval of 95 % of means over label subsets, of values (subsets, resamples).

    The subsets are resampled too: other labels might have been known.
    """
    drawn = np.random.default_rng(0).integers(len(resampled), size=resampled.shape)
    return interval(np.take_along_axis(resampled, drawn, axis=0).mean(0))


def provenance() -> dict[str, Any]:
    """Return the fields of a score record that say where it is from."""
    head, changed = commit()
    return {
        "commit": head,
        "uncommitted_changes": changed,
        "command": command(),
        "versions": versions(),
        "host": discover().host,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def defined(number: float) -> float | None:
    """Return a metric, or None where the samples do not define it."""
    return number if math.isfinite(number) else None


def fitted(
    case: Case, name: str, split: str, baselines: Iterable[str], kept: Path
) -> dict[str, Reached]:
    """Return what each baseline that suits a task reaches; every rank calls it together.

    It is fitted to the split that the run is trained on, where the file has no line of it yet.

    Args:
        name: of the task.
        split: that is scored.
        baselines: names.
        kept: the file.
    """
    task = case.tasks[name]
    answers = {}
    for baseline in baselines:
        if not suits(baseline, case.work.sets[name]):
            continue
        wanted = Fitted(
            **case.data(name)._asdict() | {"size": task.size},
            baseline=baseline,
            patch=task.patch,
            labels=task.labels,
            seed=case.run.seed,
            split=split,
            hpcgeo=__version__,
        )
        answers[baseline] = on_rank_0(partial(_fit, case, name, wanted, kept))
    return answers


def _fit(case: Case, name: str, wanted: Fitted, kept: Path) -> Reached:
    """Return what a baseline reaches; what was fitted is kept at once."""
    there = _read(kept)
    for line in there:
        same = line.model_copy(update={"value": None, "resampled": ()}) == wanted
        if same and len(line.resampled) == RESAMPLES:
            return line.reached
    log.info("fitting %s to %s", wanted.baseline, name)
    train, test = case.work.sets[name], case.sets[name]
    value, resampled = fit_and_score(
        wanted.baseline, train, test, wanted.metric, seed=wanted.seed, resamples=RESAMPLES
    )
    numbers = tuple(defined(round(float(each), 6)) for each in resampled)
    done = wanted.model_copy(update={"value": defined(value), "resampled": numbers})
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_text(kept, "".join(line.model_dump_json() + "\n" for line in [*there, done]))
    return done.reached


def _read(kept: Path) -> list[Fitted]:
    """Return what was fitted; lines that are none are fitted again."""
    lines = []
    if kept.exists():
        for line in kept.read_text("utf-8", "replace").splitlines():
            with suppress(ValidationError):
                lines.append(Fitted.model_validate_json(line))
    return lines
