"""Probes: a simple model is fitted to what a frozen backbone says of samples.

What it says is the vector of its features (`hpcgeo.models.features`), each number standardised over
the labelled samples, as for the linear probe of MAE (He et al. 2022, arXiv 2111.06377, appendix).
Beside it the same model on features of weights that were never trained, and on the samples
themselves (the baseline).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled import ONLY, TaskSet
from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.sample import Float64
from hpcgeo.errors import InputError
from hpcgeo.evaluate.baselines import (
    BATCH,
    fit_and_score,
    fit_vectors,
    probe_model,
    whole,
)
from hpcgeo.evaluate.protocols.protocol import Described
from hpcgeo.evaluate.score import (
    SPREAD,
    found_or_moved,
    interval_of_means,
    refuse_one_class,
    refuse_other_data,
)
from hpcgeo.evaluate.table import provenance
from hpcgeo.kinds.metrics import metric_of, metrics, start
from hpcgeo.kinds.states import RESAMPLES
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.launch.environment import discover
from hpcgeo.log import log, track
from hpcgeo.models.backbone import backbone
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.collate import moved
from hpcgeo.objectives.collate import whole as everything
from hpcgeo.options import Data, Mixture, Parallel
from hpcgeo.parallel.device import usable_device
from hpcgeo.tables import find
from hpcgeo.weights.export import Weights, chosen, config_of
from hpcgeo.weights.initial import BACKBONE
from hpcgeo.workloads.choice import as_samples, objective_of
from hpcgeo.workloads.mixture import MixtureRun, open_sets

#: What it is fitted to: latents of the run, of the weights it would begin from, the samples.
OF = ("trained", "random", "samples")

#: Label subsets. A few may mislead: of 5 % of 1,509 labels the mean of six subsets still has a
#: standard error of some 0.05 in r2.
REPLICATES = 20


def probe(
    folder: Path,
    *,
    split: str = "test",
    step: int | None = None,
    labels: float = 1.0,
    replicates: int | None = None,
    model: str = "linear",
    tasks: Sequence[str] = (),
    moved: Sequence[str] = (),
) -> dict[str, Any]:
    """Score probes of a run's backbone on tasks with a label for a whole sample.

    Args:
        folder: of the run, of either objective.
        split: that is scored, "test" or "validation".
        step: of the checkpoint; by default the newest.
        labels: fraction of the training split that is fitted to, of every class at least one.
        replicates: label subsets of that size, by seeds 0, 1, ..., which are also those of the
            random weights; by default `REPLICATES`, and one of all labels.
        model: what is fitted: linear, knn, forest, or that of an installed package.
        tasks: of `data.tasks`; by default all such tasks that the run read. Of others it must know
            the bands.
        moved: where its data lies now, see `config_of`.

    Returns:
        A row for each task: metric, number of samples and labels, `values` by `OF` for each label
        subset, and `leads` of the trained latents, means over subsets, with the interval of 95 %
        over resamples of the scored split and of the subsets.

    Raises:
        InputError: no such run, checkpoint, split, model or task; no task to probe; no replicates;
            several ranks.
    """
    if replicates is None:
        replicates = REPLICATES if labels < 1 else 1
    if replicates < 1:
        raise InputError(f"replicates {replicates}: at least one")
    if not 0 < labels <= 1:
        raise InputError(f"labels {labels}: a fraction above 0, at most 1")
    if discover().world_size > 1:
        raise InputError("hpcgeo probe runs in one process: start it without a launcher")
    work = _opened(folder, moved)
    step, checkpoint = chosen(folder, step)
    refuse_other_data(folder, checkpoint, _trained_on(folder, work))
    if tasks:
        work = _of(work, tasks)
    scored = {name: one for name, one in work.sets_of(split).items() if whole(kind_of(one.target))}
    if not scored:
        raise InputError(
            f"{folder}: none of {', '.join(work.sets)} has a label for a whole sample and a split "
            f"{split!r}: there is nothing to fit a probe to"
        )
    for name, one in scored.items():
        refuse_one_class(name, one.target)
        probe_model(model, one.target, 0)  # is there one? before the work
    weights = Weights(checkpoint)
    trained = _backbone(work, weights.read)
    asked = {name: _described(trained, work, name, one) for name, one in scored.items()}
    rows: dict[str, dict[str, Any]] = {}
    resampled: dict[str, list[dict[str, Float64]]] = {name: [] for name in scored}
    for seed in range(replicates):
        random = _backbone(work, partial(_drawn, weights, seed))
        for name, train in open_sets(_with(work.run, tuple(scored), labels, seed)).items():
            row = rows.setdefault(name, _row(work, name, scored[name], len(train)))
            metric, describe = row["metric"], partial(_described, work=work, name=name)
            score = partial(_score, model, train.target, metric, seed=seed)
            found = {
                "trained": score(describe(trained, part=train), asked[name]),
                "random": score(describe(random, part=train), describe(random, part=scored[name])),
                "samples": fit_and_score(
                    model, train, scored[name], metric, seed=seed, resamples=RESAMPLES
                ),
            }
            for whose in OF:
                row["values"][whose].append(found[whose][0])
            resampled[name].append({whose: found[whose][1] for whose in OF})
            values = {of: round(found[of][0], 3) for of in OF}
            log.info("%s, label subset %d: %s", name, seed, values)
    for name, row in rows.items():
        row["leads"] = {of: _lead(row, resampled[name], of) for of in OF[1:]}
    return {
        "run": str(folder),
        "step": step,
        "split": split,
        "fraction": labels,
        "replicates": replicates,
        "model": model,
        "rows": list(rows.values()),
        "provenance": provenance(),
    }


def _opened(folder: Path, moved: Sequence[str]) -> MixtureRun:
    """Return what a run was made of, to be read whole, whatever strategy trained it.

    Images of `data.path` are read as labelled samples; a ViT whole, so that a pass holds no more
    than images of one size.
    """
    run = config_of(folder, moved).model_copy(update={"parallel": Parallel(strategy=SPREAD)})
    samples = as_samples(run)
    with found_or_moved():
        return _made(samples)


def _trained_on(folder: Path, work: MixtureRun) -> str:
    """Return the fingerprint of the data of a run, as its checkpoints hold it."""
    images = isinstance(config_of(folder).data, Data)
    return work.sets[ONLY].fingerprint if images else work.dataset.fingerprint


def _made(run: RunConfig) -> MixtureRun:
    return MixtureRun(run, objective_of(run))


def _of(work: MixtureRun, tasks: Sequence[str]) -> MixtureRun:
    """Return a run as if it had read these tasks, whose bands it knows."""
    for name in tasks:
        find(work.data.tasks, name, "task of data.tasks")
    data = work.data.model_copy(update={"only": tuple(tasks)})
    other = _made(work.run.model_copy(update={"data": data}))
    if new := sorted(set(other.channels) - set(work.channels)):
        bands = ", ".join(f"{channel[0]}/{channel[1]}" for channel in new)
        raise InputError(f"{', '.join(tasks)}: the run never saw {bands}: only tasks of its bands")
    return other


def _row(work: MixtureRun, name: str, part: TaskSet, labels: int) -> dict[str, Any]:
    """Return what is said of a task, before any value."""
    metric = metric_of(work.data.chosen[name].metric, part.target)
    return {
        "task": name,
        "metric": metric,
        "better": metrics()[metric].better,
        "samples": len(part),
        "labels": labels,
        "values": {whose: [] for whose in OF},
    }


def _with(run: RunConfig, only: tuple[str, ...], labels: float, seed: int) -> RunConfig:
    """Return a run that reads some of its tasks, with so many labels, drawn by a seed."""
    assert isinstance(run.data, Mixture)
    tasks = {
        name: task.model_copy(update={"labels": labels}) for name, task in run.data.tasks.items()
    }
    data = run.data.model_copy(update={"tasks": tasks, "only": only})
    return run.model_copy(update={"seed": seed, "data": data})


def _drawn(weights: Weights, seed: int, name: str) -> torch.Tensor:
    return draw(name, weights.shapes[name], slice(None), seed)


@torch.no_grad()
def _backbone(work: MixtureRun, weight: Callable[[str], torch.Tensor]) -> Any:
    """Return the backbone of a run with given weights."""
    made = work.material
    found = backbone(made.architecture, made.channels, made.bands, made.density)
    for name, parameter in found.named_parameters():
        parameter.copy_(weight(BACKBONE + name))
    return found.to(usable_device()).eval()


@torch.no_grad()
def _described(frozen: Any, work: MixtureRun, name: str, part: TaskSet) -> Described:
    """Return what a backbone says of all samples of a split."""
    vectors, truth, clusters = [], [], []
    for first in track(range(0, len(part), BATCH), name):
        indices = range(first, min(first + BATCH, len(part)))
        drawn = [plain(part.read(index), name, index) for index in indices]
        truth += [one.sample.target for one in drawn]
        clusters += [part.group(index) for index in indices]
        made = moved(work.collate(drawn, everything(drawn))[0], usable_device())
        vectors.append(frozen.encode(made).vector.float().cpu().numpy())
    return Described(np.concatenate(vectors), np.stack(truth), clusters)


def _score(
    model: str,
    target: Target,
    metric: str,
    fitted: Described,
    asked: Described,
    seed: int,
) -> tuple[float, Float64]:
    """Return the metric of a probe, and its values over resamples."""
    scale = StandardScaler().fit(fitted.vectors)
    # The penalties that are tried suit vectors of length one.
    known, new = (
        scale.transform(one.vectors) / np.sqrt(scale.n_features_in_) for one in (fitted, asked)
    )
    chosen = probe_model(model, target, seed)
    fit_vectors(chosen, known, fitted.truth)
    state = start(metric, target, RESAMPLES)
    state.update(asked.clusters, kind_of(target).answer(chosen, new, target), asked.truth)
    return state.compute()


def _lead(
    row: Mapping[str, Any], resampled: Sequence[Mapping[str, Float64]], over: str
) -> dict[str, float]:
    """Return how far the trained latents are ahead, in the mean over subsets, and its interval.

    Both the scored split and the label subsets are resampled: other labels might have been known.
    """
    sign = 1 if row["better"] == "higher" else -1
    ahead = np.stack([one["trained"] - one[over] for one in resampled])  # (replicates, resamples)
    low, high = interval_of_means(sign * ahead)
    trained, other = (np.mean(row["values"][of]) for of in ("trained", over))
    return {"value": float(sign * (trained - other)), "low": low, "high": high}
