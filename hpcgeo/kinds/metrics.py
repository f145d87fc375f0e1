"""Metrics of a task from sums that add up over batches and ranks.

`sums` of any split of the samples, added, are those of all of them: one vector of float64 to
all-reduce, whatever the metric. K is the number of outputs of the task (`Target.names`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hpcgeo.data.sample import IGNORED, Float64, Kind, Target
from hpcgeo.errors import InputError
from hpcgeo.tables import find, loaded, plugins

Array = npt.NDArray[Any]


#: What is left of a difference of equal sums.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Metric:
    """A number of a task: which kinds of task have it, and its value from (sums, target)."""

    better: Literal["higher", "lower"]
    kinds: tuple[Kind, ...]
    value: Callable[[Float64, Target], float]


def sums(prediction: Array, truth: Array, target: Target) -> Float64:
    """Return what the metrics of a batch follow from.

    Args:
        prediction: what was decided: classes of whole samples (B,) or pixels (B, H, W), 0 or 1 of
            several labels (B, K), or standardised numbers (B, K).
        truth: of the same shape, and standardised too; `IGNORED` classes and NaN numbers do not
            count.
        target: of the task.

    Returns:
        Of classes how often each was taken for each (K truth x K predicted); of several labels
        hits, false alarms and misses (3 x K); of numbers n and the sums of y, p, y², p², y p and
        |y - p| (7 x K).
    """
    assert prediction.shape == truth.shape, (prediction.shape, truth.shape)
    num_outputs = len(target.names)
    if target.kind == "regression":
        known = np.isfinite(truth)
        y = np.where(known, truth, 0).astype(np.float64)
        p = np.where(known, prediction, 0).astype(np.float64)
        found = np.stack([known, y, p, y * y, p * p, y * p, abs(y - p)]).sum(axis=1)
    elif target.kind == "multilabel":
        said, is_so = prediction > 0.5, truth > 0.5
        found = np.stack([said & is_so, said & ~is_so, ~said & is_so]).sum(axis=1)
    else:
        counted = truth != IGNORED
        pairs = truth[counted].astype(np.int64) * num_outputs + prediction[counted]
        found = np.bincount(pairs, minlength=num_outputs**2)
        assert len(found) == num_outputs**2, "a class that the task does not have"
    return found.astype(np.float64).ravel()


def size(target: Target) -> int:
    """Return how many numbers `sums` gives."""
    rows = {"regression": 7, "multilabel": 3}.get(target.kind, len(target.names))
    return rows * len(target.names)


def value(name: str, sums: Float64, target: Target) -> float:
    """Return a metric; NaN where the samples do not define it.

    Raises:
        InputError: no such metric, or none of this kind of task.
    """
    metric = find(metrics(), name, "metric")
    if target.kind not in metric.kinds:
        fitting = [other for other, row in metrics().items() if target.kind in row.kinds]
        raise InputError(f"metric {name!r} is none of {target.kind}: {', '.join(fitting)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(metric.value(sums, target))


def default_metric(kind: Kind) -> str:
    """Return the metric by which tasks of a kind are usually compared."""
    defaults: dict[Kind, str] = {
        "classification": "accuracy",
        "multilabel": "f1",
        "regression": "r2",
        "segmentation": "iou",
        "change": "f1",
        "unlabelled": "masked_mse",
    }
    return defaults[kind]


def _accuracy(sums: Float64, target: Target) -> float:
    confusion = sums.reshape(len(target.names), -1)
    return confusion.trace() / confusion.sum()


def _f1(sums: Float64, target: Target) -> float:
    hits, alarms, misses = _overlap(sums, target)
    return _mean(2 * hits, 2 * hits + alarms + misses)


def _iou(sums: Float64, target: Target) -> float:
    hits, alarms, misses = _overlap(sums, target)
    return _mean(hits, hits + alarms + misses)


def _overlap(sums: Float64, target: Target) -> Float64:
    """Return hits, false alarms and misses of each class, (3, K); of two the second alone."""
    if target.kind == "multilabel":
        return sums.reshape(3, -1)
    confusion = sums.reshape(len(target.names), -1)
    hits = confusion.diagonal()
    found = np.stack([hits, confusion.sum(axis=0) - hits, confusion.sum(axis=1) - hits])
    return found[:, 1:] if len(target.names) == 2 else found


def _mean(part: Float64, whole: Float64) -> float:
    """Return the mean over the classes that were there or were predicted."""
    return (part / whole)[whole > 0].mean() if (whole > 0).any() else float("nan")


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


def _error(sums: Float64, target: Target) -> float:
    """Return the mean from the sum of errors and the number of samples, (2,)."""
    return sums[0] / sums[1]


_CLASSES: tuple[Kind, ...] = ("classification", "segmentation", "change")
_OVERLAPS: tuple[Kind, ...] = (*_CLASSES, "multilabel")

#: Of several numbers or classes: their mean; of two classes: the second one's, which is
#: what is looked for (building, change). All pixels count alike, in whichever image they are.
_METRICS: dict[str, Metric] = {
    "accuracy": Metric("higher", _CLASSES, _accuracy),
    "f1": Metric("higher", _OVERLAPS, _f1),
    # The same number; SustainBench calls it so for field boundaries.
    "dice": Metric("higher", ("segmentation", "change"), _f1),
    "iou": Metric("higher", ("segmentation", "change"), _iou),
    # 1 - residual / total: at most 1, below 0 where the mean would have been better.
    "r2": Metric("higher", ("regression",), _r2),
    # Pearson's correlation, squared, which forgives scale and offset: what SustainBench and Yeh et
    # al. 2020 call r2.
    "pearson_r2": Metric("higher", ("regression",), _pearson_r2),
    "rmse": Metric("lower", ("regression",), _rmse),
    "mae": Metric("lower", ("regression",), _mae),
    # Of hidden tokens, whose values have zero mean and unit deviation: the loss of masked_tokens.
    "masked_mse": Metric("lower", ("unlabelled",), _error),
}


@cache
def metrics() -> Mapping[str, Metric]:
    """Return all metrics by name, also those that other packages add as `hpcgeo.metrics`."""
    return {name: loaded(entry) for name, entry in plugins("hpcgeo.metrics").items()} | _METRICS


def metric_of(name: str | None, target: Target) -> str:
    """Return what a task is judged by; an InputError where its kind has no such metric.

    Args:
        name: as it was asked for; None: the default of the kind.
        target: of the task.
    """
    name = name or default_metric(target.kind)
    if target.kind not in find(metrics(), name, "metric").kinds:
        fitting = ", ".join(other for other, row in metrics().items() if target.kind in row.kinds)
        raise InputError(f"metric {name} is none of {target.kind}: choose one of {fitting}")
    return name
