"""Fit the figures of a machine to measured steps, and say how well they are known.

Least squares of the logarithm of predicted over measured seconds, robust (soft L1) and drawn a
little towards data sheets, so that what no record tells stays where it began. Cells that stand out
of their own line weigh less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcgeo.errors import InputError
from hpcgeo.machines import Machine
from hpcgeo.plan.calibration import (
    FAR,
    FITTED,
    PATTERNS,
    Calibration,
    Interval80,
    Pattern,
)
from hpcgeo.plan.cases import MeasuredStep, options_of_fsdp1

#: Relative deviation of a measured step that is taken for noise.
NOISE = 0.02
#: Weights of cells: of those that stand out of their line, and of a study of prefetching.
WEIGHTS = {"": 1.0, "dip in nodes": 0.3, "dip in groups": 0.3, "collapsed": 0.1}
OF_PREFETCH = 0.5
#: Where a fit begins; links, of their data sheet by `LINK_SHARE`.
START = {
    "matmul": 0.6,
    "width_passes": 60.0,
    "hop_us": 20.0,
    "tree_us": 200.0,
    "hidden_alone": 0.15,
    "hidden_beside": 0.3,
}
LINK_SHARE = {"out_gbs": 0.6, "node_gbs": 1.0}
#: Bounds of what is fitted, and how far it may move from where it begins (of its logarithm; the
#: others are free).
BOUNDS = {
    "matmul": (0.05, 0.95),
    "width_passes": (5.0, 2000.0),
    "hop_us": (0.1, 500.0),
    "out_gbs": (0.01, 1000.0),
    "node_gbs": (0.01, 2000.0),
    "tree_us": (0.1, 5000.0),
    "hidden_alone": (0.0, 1.0),
    "hidden_beside": (0.0, 1.0),
}
DRAWN = {
    "matmul": 0.08,
    "width_passes": 1.0,
    "hop_us": 1.0,
    "out_gbs": 0.3,
    "node_gbs": 0.3,
    "tree_us": 0.5,
}
#: A share of its own size beyond which a figure is not identified.
LOOSE = 0.5
#: The least that a residual answers to a figure that the records tell.
UNTOLD = 1e-6
#: Of the interval: so many of ten measured steps lie in it.
COVERED = 0.8
FEWEST = 4
#: Factors of an interval: the least that is claimed, and where nothing was measured.
LEAST, UNKNOWN_NEAR, UNKNOWN_FAR = 1.01, 1.5, 2.0
#: Of what one measured step of one node says of others to 32 nodes, on a machine without others.
PROBED_NEAR = 1.15


@dataclass(frozen=True)
class FittedFigures:
    """Figures, and what is to be said of them.

    Attributes:
        worst_pair: of the figures, the two that are told apart worst, with their correlation.
        loose: figures that the records do not tell.
        left_out: of each model, the mean deviation of scored cells where the fit did not see it.
    """

    figures: Calibration
    worst_pair: tuple[str, str, float]
    loose: tuple[str, ...]
    left_out: dict[str, float]


def calibrate(found: Sequence[MeasuredStep], where: Machine, source: str) -> FittedFigures:
    """Fit the figures of a machine to its measured steps.

    Args:
        found: its cases.
        where: the machine.
        source: of the records, for the file.

    Raises:
        InputError: too few records.
    """
    if len(found) < FEWEST:
        raise InputError(
            f"{len(found)} measured steps of {where.name} can be predicted: a calibration takes "
            f"{FEWEST} or more (hpcgeo-profile run, on one node and on several)"
        )
    start = _start(where)
    values, covariance = _fit(found, start)
    models = sorted({case.record.model for case in found})
    apart: list[tuple[MeasuredStep, float]] = []
    for model in models if len(models) > 1 else ():
        rest, own = _split(found, model)
        if len(rest) >= FEWEST:
            figures = _with(start, _fit(rest, start)[0])
            apart += [(case, deviation(case, figures)) for case in own]
    figures = _with(start, values)
    seen = apart or [(case, deviation(case, figures)) for case in found]
    deviations = np.sqrt(np.diag(covariance))
    return FittedFigures(
        figures=figures.model_copy(
            update={
                "interval": _interval(seen, several=bool(apart)),
                "deviations": dict(zip(FITTED, deviations.round(4).tolist(), strict=True)),
                "machine": where.name,
                "source": source,
            }
        ),
        worst_pair=_worst_pair(covariance),
        loose=tuple(
            name
            for name, value, own in zip(FITTED, values, deviations, strict=True)
            if own > LOOSE * max(value, 0.05)
        ),
        left_out={
            model: float(np.mean(sizes))
            for model in models
            if (sizes := [abs(d) for case, d in apart if _of(case, model) and scored(case)])
        },
    )


def deviation(case: MeasuredStep, figures: Calibration | None) -> float:
    """Return predicted over measured seconds, less 1."""
    return case.predicted(figures).seconds / case.seconds - 1


def scored(case: MeasuredStep) -> bool:
    """Whether a case counts in a score: it trains, and does not stand out of its line."""
    return not case.odd and case.record.communication == "on"


def _start(where: Machine) -> Calibration:
    """Return where a fit begins."""
    row = dict(START)
    for name, link in (("out_gbs", where.links.out), ("node_gbs", where.links.node)):
        row[name] = LINK_SHARE[name] * link.value if link else 25.0
    unknown = Interval80(near=(0.5, 2.0), far=(0.5, 2.0))
    return Calibration(**row, interval=dict.fromkeys(PATTERNS, unknown), source="none")


def _with(figures: Calibration, values: Sequence[float] | np.ndarray) -> Calibration:
    named = dict(zip(FITTED, (float(f"{value:.4g}") for value in values), strict=True))
    return figures.model_copy(update=named)


def _of(case: MeasuredStep, model: str) -> bool:
    return case.record.model == model


def _split(
    found: Sequence[MeasuredStep], model: str
) -> tuple[list[MeasuredStep], list[MeasuredStep]]:
    own = [case for case in found if _of(case, model)]
    return [case for case in found if not _of(case, model)], own


def _weight(case: MeasuredStep) -> float:
    return OF_PREFETCH if options_of_fsdp1(case.record) else WEIGHTS[case.odd]


def _fit(found: Sequence[MeasuredStep], start: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Return the figures (n,) and their covariance (n, n)."""
    from scipy.optimize import least_squares

    begin = np.array([getattr(start, name) for name in FITTED])
    low, high = np.array([BOUNDS[name] for name in FITTED]).T
    measured = np.log([case.seconds for case in found])
    weights = np.array([_weight(case) for case in found]) / NOISE

    def residuals(values: np.ndarray) -> np.ndarray:
        figures = start.model_copy(update=dict(zip(FITTED, values.tolist(), strict=True)))
        said = np.log([case.predicted(figures).seconds for case in found])
        drawn = [
            np.log(value / first) / DRAWN[name]
            for name, value, first in zip(FITTED, values, begin, strict=True)
            if name in DRAWN
        ]
        return np.concatenate([(said - measured) * weights, drawn])

    found_at = least_squares(
        residuals,
        np.clip(begin, low, high),
        bounds=(low, high),
        x_scale=np.maximum(begin, 1e-3),
        loss="soft_l1",
        diff_step=1e-3,
    )
    covariance = np.linalg.pinv(found_at.jac.T @ found_at.jac)
    untold = np.abs(found_at.jac[: len(found)]).max(axis=0) < UNTOLD
    covariance[untold, untold] = np.maximum(found_at.x[untold], 0.1) ** 2
    return found_at.x, covariance


def _interval(
    seen: Sequence[tuple[MeasuredStep, float]], *, several: bool
) -> dict[Pattern, Interval80]:
    """Return the factors of steps that the fit did not see, by pattern, near and far.

    What too few steps tell is as wide as where nothing was measured; a fit to one model alone was
    never held against another.

    Args:
        seen: steps, and how far off the prediction was.
        several: whether they are of models that the fit did not see.
    """
    trains = [(case, -np.log1p(d)) for case, d in seen if case.record.communication == "on"]

    def factors(pattern: Pattern, far: bool) -> tuple[float, float]:
        widest = UNKNOWN_FAR if far else UNKNOWN_NEAR
        logs = [
            log
            for case, log in trains
            if case.predicted().pattern == pattern and (case.record.nodes > FAR) == far
        ]
        if len(logs) < FEWEST:
            return round(1 / widest, 4), widest
        least = LEAST if several else widest**0.5
        low, high = np.exp(np.quantile(logs, [(1 - COVERED) / 2, (1 + COVERED) / 2]))
        return round(min(low, 1 / least), 4), round(max(high, least), 4)

    return {
        pattern: Interval80(near=factors(pattern, False), far=factors(pattern, True))
        for pattern in PATTERNS
    }


def _worst_pair(covariance: np.ndarray) -> tuple[str, str, float]:
    sizes = np.sqrt(np.maximum(np.diag(covariance), 1e-30))
    correlation = covariance / np.outer(sizes, sizes)
    np.fill_diagonal(correlation, 0)
    one, other = np.unravel_index(np.abs(correlation).argmax(), correlation.shape)
    return FITTED[one], FITTED[other], float(correlation[one, other])


def one_point(case: MeasuredStep, figures: Calibration, dtype: str) -> Calibration:
    """Return figures whose arithmetic takes as long as one measured step of one node says.

    Products, and what is written and read around them, change by one factor.

    Args:
        case: the step.
        figures: of its machine, so far.
        dtype: of what is planned.

    Raises:
        InputError: it is of several nodes, of another dtype, or no device could be so fast.
    """
    record = case.record
    if record.nodes != 1 or record.dtype != dtype:
        raise InputError(
            f"a probe is a step of one node in {dtype}: this one is of {record.nodes} nodes in "
            f"{record.dtype}"
        )
    for _ in range(20):
        step = case.predicted(figures)
        factor = (case.seconds - step.seconds + step.compute_s) / step.compute_s
        if factor <= 0 or figures.matmul / factor > BOUNDS["matmul"][1]:
            raise InputError(
                f"{record.model}: {record.images_per_s:,.4g} images/s is more than the peak of "
                f"{case.where.name} allows: look at the record"
            )
        figures = figures.model_copy(
            update={
                "matmul": figures.matmul / factor,
                "width_passes": figures.width_passes * factor,
            }
        )
    probed = f"{record.model}, {record.layout}, {record.images_per_s:,.4g} images/s on one node"
    if figures.calibrated:
        return figures.model_copy(update={"probed": probed})
    near = (round(1 / PROBED_NEAR, 4), PROBED_NEAR)
    interval = {
        pattern: one.model_copy(update={"near": near}) for pattern, one in figures.interval.items()
    }
    return figures.model_copy(update={"interval": interval, "probed": probed})
