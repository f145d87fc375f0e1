"""Probes: a simple model is fitted to what a frozen backbone says of samples.

What it says are its latents side by side, a vector (N_l W,), each number standardised over the
labelled samples, as for the linear probe of MAE (He et al. 2022, arXiv 2111.06377, appendix); not
their mean, as every latent of a Perceiver reads something else. Beside it the same model on latents
of weights that were never trained, and on the samples themselves (the baseline).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from hpcgeo.config import RunConfig
from hpcgeo.data.drawn import plain
from hpcgeo.data.sample import Float64, Target
from hpcgeo.data.tasks import TaskSet
from hpcgeo.errors import InputError
from hpcgeo.evaluate.baselines import (
    BATCH,
    WHOLE,
    Array,
    fit_and_score,
    fit_vectors,
    linear,
    neighbours,
)
from hpcgeo.evaluate.score import SPREAD, refuse_other_data
from hpcgeo.evaluate.table import provenance
from hpcgeo.knobs import MaskedTokens, Mixture, Parallel
from hpcgeo.launch.environment import discover
from hpcgeo.log import log, track
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.metrics import METRICS
from hpcgeo.objectives.passes import moved, tokens, whole
from hpcgeo.objectives.tally import RESAMPLES, Tally, interval
from hpcgeo.tables import find
from hpcgeo.train.export import Weights, chosen, config_of
from hpcgeo.train.masked import MaskedRun
from hpcgeo.train.mixture import MixtureRun, open_sets
from hpcgeo.train.multitask import MultiTaskRun, metric_of

#: What is fitted, by its name, which is also that of a baseline.
MODELS: dict[str, Callable[[Target, int], Any]] = {"linear": linear, "neighbours": neighbours}

#: What it is fitted to: latents of the run, of the weights it would begin from, the samples.
OF = ("trained", "random", "samples")


class Described(NamedTuple):
    """Vectors (N, N_l W) of samples, by whose latents they are; their labels and groups."""

    vectors: dict[str, Array]
    truth: Array
    groups: list[str]


def probe(
    folder: Path,
    *,
    part: str = "test",
    step: int | None = None,
    labels: float = 1.0,
    seeds: Sequence[int] = (0,),
    model: str = "linear",
) -> dict[str, Any]:
    """Score probes of a run's backbone on each of its tasks with a label for a whole sample.

    Args:
        folder: of the run, of either objective.
        part: that is scored, "test" or "validation".
        step: of the checkpoint; by default the newest.
        labels: fraction of the training part that is fitted to, of every class at least one.
        seeds: of the draws of that fraction; random weights are of the same seed.
        model: one of `MODELS`.

    Returns:
        A row for each task: metric, number of samples and labels, `values` by `OF` for each seed,
        and `leads` of the trained latents, means over seeds, with the interval of 95 % over
        resamples of the part.

    Raises:
        InputError: no such run, checkpoint, part or model; no task to probe; several ranks.
    """
    find(MODELS, model, "model")
    if discover().world_size > 1:
        raise InputError("hpcgeo probe runs in one process: start it without a launcher")
    work = _opened(folder)
    step, checkpoint = chosen(folder, step)
    refuse_other_data(folder, checkpoint, work)
    scored = {name: one for name, one in work.part(part).items() if one.target.kind in WHOLE}
    if not scored:
        raise InputError(
            f"{folder}: none of {', '.join(work.sets)} has a label for a whole sample and a part "
            f"{part!r}: there is nothing to fit a probe to"
        )
    weights = Weights(checkpoint)
    trained = _backbone(work, weights.read)
    rows: dict[str, dict[str, Any]] = {}
    resampled: dict[str, list[dict[str, Float64]]] = {name: [] for name in scored}
    for seed in seeds:
        backbones = {
            "trained": trained,
            "random": _backbone(work, partial(_drawn, weights, seed)),
        }
        for name, train in open_sets(_with(work.run, tuple(scored), labels, seed)).items():
            row = rows.setdefault(name, _row(work, name, scored[name], len(train), seeds))
            found = _found(model, row["metric"], backbones, work, name, train, scored[name], seed)
            for whose in OF:
                row["values"][whose].append(found[whose][0])
            resampled[name].append({whose: found[whose][1] for whose in OF})
            log.info("%s, seed %d: %s", name, seed, {of: round(found[of][0], 3) for of in OF})
    for name, row in rows.items():
        row["leads"] = {of: _lead(row, resampled[name], of) for of in OF[1:]}
    return {
        "run": str(folder),
        "step": step,
        "part": part,
        "fraction": labels,
        "model": model,
        "rows": list(rows.values()),
        "provenance": provenance(),
    }


def _opened(folder: Path) -> MixtureRun:
    """Return what a run was made of, to be read whole, whatever spread it over ranks."""
    run = config_of(folder)
    if not isinstance(run.data, Mixture):
        raise InputError(
            f"{folder} is a run of {run.objective.name}: probes are of mixtures of tasks"
        )
    run = run.model_copy(update={"parallel": Parallel(strategy=SPREAD)})
    return MaskedRun(run) if isinstance(run.objective, MaskedTokens) else MultiTaskRun(run)


def _row(
    work: MixtureRun, name: str, part: TaskSet, labels: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return what is said of a task, before any value."""
    metric = metric_of(work.data.chosen[name], part)
    return {
        "task": name,
        "metric": metric,
        "better": METRICS[metric].better,
        "samples": len(part),
        "labels": labels,
        "seeds": list(seeds),
        "values": {whose: [] for whose in OF},
    }


def _found(
    model: str,
    metric: str,
    backbones: Mapping[str, Any],
    work: MixtureRun,
    name: str,
    train: TaskSet,
    part: TaskSet,
    seed: int,
) -> dict[str, tuple[float, Float64]]:
    """Return the metric of a task for each of `OF`, and its values over resamples."""
    fitted, asked = (_described(backbones, work, name, some) for some in (train, part))
    found = {
        whose: _score(model, train.target, metric, whose, fitted, asked, seed)
        for whose in backbones
    }
    samples = fit_and_score(model, train, part, metric, seed=seed, resamples=RESAMPLES)
    return found | {"samples": samples}


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
    """Return the objective of a run with given weights in its tokenizer and backbone."""
    objective = work.objective()
    for name, parameter in objective.named_parameters():
        if name.startswith(("tokenizer.", "backbone.")):
            parameter.copy_(weight(name))
    return objective.to(_device()).eval()


def _device() -> torch.device:
    return torch.accelerator.current_accelerator() or torch.device("cpu")


@torch.no_grad()
def _described(
    backbones: Mapping[str, Any], work: MixtureRun, name: str, part: TaskSet
) -> Described:
    """Return the latents of all samples of a part, by backbone."""
    vectors: dict[str, list[Array]] = {whose: [] for whose in backbones}
    truth, groups = [], []
    for start in track(range(0, len(part), BATCH), name):
        indices = range(start, min(start + BATCH, len(part)))
        drawn = [plain(part.read(index), name, index) for index in indices]
        truth += [one.sample.target for one in drawn]
        groups += [part.group(index) for index in indices]
        made = moved(tokens(drawn, work.data.batching, work.bands, whole(drawn))[0], _device())
        for whose, objective in backbones.items():
            latents = objective.backbone(objective.tokenizer(made).flat, made.layout)
            vectors[whose].append(latents.float().flatten(1).cpu().numpy())
    return Described(
        {whose: np.concatenate(parts) for whose, parts in vectors.items()},
        np.stack(truth),
        groups,
    )


def _score(
    model: str,
    target: Target,
    metric: str,
    whose: str,
    fitted: Described,
    asked: Described,
    seed: int,
) -> tuple[float, Float64]:
    """Return the metric of a probe, and its values over resamples; see `Tally`."""
    scale = StandardScaler().fit(fitted.vectors[whose])
    # The penalties that are tried suit vectors of length one.
    known, new = (
        scale.transform(one.vectors[whose]) / np.sqrt(scale.n_features_in_)
        for one in (fitted, asked)
    )
    chosen = MODELS[model](target, seed)
    fit_vectors(chosen, known, fitted.truth)
    tally = Tally(target, RESAMPLES)
    answers = np.asarray(chosen.predict(new)).reshape(asked.truth.shape)
    tally.add(asked.groups, answers, asked.truth)
    return tally.value(metric)


def _lead(
    row: Mapping[str, Any], resampled: Sequence[Mapping[str, Float64]], over: str
) -> dict[str, float]:
    """Return how far the trained latents are ahead, in the mean over seeds, and its interval."""
    sign = 1 if row["better"] == "higher" else -1
    each = sign * np.mean([one["trained"] - one[over] for one in resampled], axis=0)
    low, high = interval(each)
    trained, other = (np.mean(row["values"][of]) for of in ("trained", over))
    return {"value": float(sign * (trained - other)), "low": low, "high": high}
