"""Metrics by name: which is better, and the value from each state it can be computed from.

Of several numbers or classes a metric is their mean; of two classes the second one's, which is what
is looked for (building, change). All pixels count alike, in whichever image they are. K is the
number of outputs of the task (`Target.names`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from hpcgeo.errors import InputError
from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.states import (
    Confusion,
    Hits,
    Mean,
    Moments,
    PooledRanking,
    Ranking,
    State,
    TopFive,
)
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Array, Float64, Target
from hpcgeo.tables import find, loaded, plugins

#: What is left of a difference of equal sums.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Metric:
    """A number of a task; `of` says how it is computed from a state, for each that it can be."""

    better: Literal["higher", "lower"]
    of: Mapping[type[State], Callable[..., Any]]

    def suits(self, kind: Kind) -> bool:
        """Return whether tasks of a kind have it."""
        return any(state in self.of for state in kind.states)


def start(name: str, target: Target, resamples: int = 0) -> State:
    """Return the state of a metric before any sample.

    Raises:
        InputError: no such metric, or none of this kind of task.
    """
    metric = metrics()[metric_of(name, target)]
    kind = kind_of(target)
    state = next(each for each in kind.states if each in metric.of)
    return state(kind, target, metric.of[state], resamples)


def metric_of(name: str | None, target: Target) -> str:
    """Return what a task is judged by; an InputError where its kind has no such metric.

    Args:
        name: as it was asked for; None: the usual one of the kind.
        target: of the task.
    """
    kind = kind_of(target)
    name = name or kind.metric
    if not find(metrics(), name, "metric").suits(kind):
        fitting = ", ".join(suiting(kind))
        raise InputError(f"metric {name} is none of {target.kind}: choose one of {fitting}")
    return name


def suiting(kind: Kind) -> list[str]:
    """Return the names of the metrics of a kind of task, the usual one first."""
    names = [name for name, row in metrics().items() if row.suits(kind)]
    return sorted(names, key=lambda name: name != kind.metric)


def _accuracy(sums: Float64, target: Target) -> float:
    confusion = sums.reshape(len(target.names), -1)
    return confusion.trace() / confusion.sum()


def _balanced(sums: Float64, target: Target) -> float:
    """Return the mean recall of the classes that there are."""
    confusion = sums.reshape(len(target.names), -1)
    return _mean(confusion.diagonal(), confusion.sum(axis=1))


def _kappa(sums: Float64, target: Target) -> float:
    """Return Cohen's kappa: the agreement above that of chance, of what there was to gain."""
    confusion = sums.reshape(len(target.names), -1) / sums.sum()
    chance = confusion.sum(axis=0) @ confusion.sum(axis=1)
    return (confusion.trace() - chance) / (1 - chance)


def _top_five(sums: Float64, _: Target) -> float:
    return sums.reshape(2, -1)[0].sum() / sums.sum()


def _mean_iou(sums: Float64, target: Target) -> float:
    confusion = sums.reshape(len(target.names), -1)
    hits = confusion.diagonal()
    return _mean(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def _micro_f1(sums: Float64, _: Target) -> float:
    hits, alarms, misses = sums.reshape(3, -1).sum(axis=1)
    return 2 * hits / (2 * hits + alarms + misses)


def _overlap(sums: Float64, target: Target) -> Float64:
    """Return hits, false alarms and misses of each class, (3, K); of two the second alone."""
    confusion = sums.reshape(len(target.names), -1)
    hits = confusion.diagonal()
    found = np.stack([hits, confusion.sum(axis=0) - hits, confusion.sum(axis=1) - hits])
    return found[:, 1:] if len(target.names) == 2 else found


def _f1(hits: Array, alarms: Array, misses: Array) -> float:
    return _mean(2 * hits, 2 * hits + alarms + misses)


def _iou(hits: Array, alarms: Array, misses: Array) -> float:
    return _mean(hits, hits + alarms + misses)


def _mean(part: Float64, whole: Float64) -> float:
    """Return the mean over the classes that were there or were predicted."""
    return (part / whole)[whole > 0].mean() if (whole > 0).any() else float("nan")


def _overlapping(value: Callable[[Array, Array, Array], float]) -> dict[type[State], Any]:
    return {
        Confusion: lambda sums, target: value(*_overlap(sums, target)),
        Hits: lambda sums, _: value(*sums.reshape(3, -1)),
    }


def _rmse(sums: Float64, target: Target) -> float:
    n, _, _, yy, pp, yp, _ = sums.reshape(7, -1)
    return (np.sqrt(np.maximum(yy - 2 * yp + pp, 0) / n) * _std(target)).mean()


def _mae(sums: Float64, target: Target) -> float:
    n, *_, apart = sums.reshape(7, -1)
    return (apart / n * _std(target)).mean()


def _std(target: Target) -> Float64:
    return np.array(target.std) if target.std else np.ones(len(target.names))


def _r2(sums: Float64, target: Target) -> float:
    n, y, _, yy, pp, yp, _ = sums.reshape(7, -1)
    total = yy - y * y / n
    return np.where(total > _ROUNDING * yy, 1 - (yy - 2 * yp + pp) / total, np.nan).mean()


def _pearson_r2(sums: Float64, target: Target) -> float:
    n, y, p, yy, pp, yp, _ = sums.reshape(7, -1)
    spread = (yy - y * y / n) * (pp - p * p / n)
    return np.where(spread > _ROUNDING * yy * pp, (yp - y * p / n) ** 2 / spread, np.nan).mean()


def _auroc(scores: Array, is_so: Array, weights: Float64) -> Float64:
    """Return the area under the receiver operating characteristic; half of a tie counts."""
    rising, last = _ranked(scores)
    hits = _added(weights, is_so, rising, last)
    others = _added(weights, ~is_so, rising, last)
    below = others - np.diff(others, prepend=0) / 2
    with np.errstate(invalid="ignore"):
        return (np.diff(hits, prepend=0) * below).sum(1) / (hits[:, -1] * others[:, -1])


def _average_precision(scores: Array, is_so: Array, weights: Float64) -> Float64:
    """Return the sum of precisions at each threshold, weighted by the recall it adds."""
    falling, last = _ranked(-scores)
    hits = _added(weights, is_so, falling, last)
    taken = _added(weights, np.ones_like(is_so), falling, last)
    with np.errstate(invalid="ignore"):
        precision = hits / np.maximum(taken, 1)
        return (np.diff(hits, prepend=0) * precision).sum(1) / hits[:, -1]


def _ranked(scores: Array) -> tuple[Array, Array]:
    """Return the order of scores (N,) from the lowest, and where in it the last of each tie is."""
    order = np.argsort(scores, kind="stable")
    return order, np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))


def _added(weights: Float64, counted: Array, order: Array, last: Array) -> Float64:
    """Return the weight (r, ties) of the samples that count, up to the last of each tie."""
    return np.cumsum((weights * counted)[:, order], axis=1)[:, last]


_METRICS: dict[str, Metric] = {
    "accuracy": Metric("higher", {Confusion: _accuracy}),
    "balanced_accuracy": Metric("higher", {Confusion: _balanced}),
    "top5_accuracy": Metric("higher", {TopFive: _top_five}),
    "kappa": Metric("higher", {Confusion: _kappa}),
    "f1": Metric("higher", _overlapping(_f1)),
    # The same number; SustainBench calls it so for field boundaries.
    "dice": Metric("higher", _overlapping(_f1)),
    "iou": Metric("higher", _overlapping(_iou)),
    # Also of two classes the mean of both: what PANGAEA and GEO-Bench call mIoU.
    "mean_iou": Metric("higher", {Confusion: _mean_iou}),
    # Hits, false alarms and misses of all labels together.
    "micro_f1": Metric("higher", {Hits: _micro_f1}),
    "auroc": Metric("higher", {Ranking: _auroc}),
    "average_precision": Metric("higher", {Ranking: _average_precision}),
    "micro_average_precision": Metric("higher", {PooledRanking: _average_precision}),
    # 1 - residual / total: at most 1, below 0 where the mean would have been better.
    "r2": Metric("higher", {Moments: _r2}),
    # Pearson's correlation, squared, which forgives scale and offset: what SustainBench and Yeh et
    # al. 2020 call r2.
    "pearson_r2": Metric("higher", {Moments: _pearson_r2}),
    "rmse": Metric("lower", {Moments: _rmse}),
    "mae": Metric("lower", {Moments: _mae}),
    # Of hidden tokens, whose values have zero mean and unit deviation: the loss of masked_tokens.
    "masked_mse": Metric("lower", {Mean: lambda total, number: total / number}),
}


@cache
def metrics() -> Mapping[str, Metric]:
    """Return all metrics by name, also those that other packages add as `hpcgeo.metrics`."""
    return {name: loaded(entry) for name, entry in plugins("hpcgeo.metrics").items()} | _METRICS
