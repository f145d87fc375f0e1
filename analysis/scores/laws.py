"""Scaling laws of scores: how the error falls with size or cost, as a power of it.

Members of a study that were pretrained by one objective on one data set differ in size or duration.
Of at least three, error = factor x cost^-exponent is fitted to the logarithms by least squares
(Kaplan et al. 2020, arXiv 2001.08361, without an irreducible part, which takes more points than a
study has). The interval of the exponent is that of 95 % of the slope, by Student's t.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpcgeo.scores import Score
from hpcgeo_analysis.formatting import digits

#: Points of a fit, at least; and those of a line that is drawn.
LEAST, DRAWN = 3, 24
#: The largest cost is at least so many times the smallest one: less is noise of measurements.
RANGE = 2.0


@dataclass(frozen=True)
class ScalingLaw:
    """How an error falls.

    Attributes:
        exponent, low, high: of the cost; positive where the error falls.
        factor: the error at a cost of 1.
        first, last: costs between which it was fitted.
        count: of scores.
        error: whether the score is an error itself; else the error is what it lacks to 1.
    """

    exponent: float
    low: float
    high: float
    factor: float
    first: float
    last: float
    count: int
    error: bool

    def at(self, cost: float) -> float:
        """Return the score at a cost."""
        error = float(self.factor * cost**-self.exponent)
        return error if self.error else 1 - error

    def places(self) -> list[tuple[float, float]]:
        """Return costs and scores along the line."""
        return [(float(c), self.at(float(c))) for c in np.geomspace(self.first, self.last, DRAWN)]

    def words(self, cost: str) -> str:
        """Say it, with its interval.

        >>> ScalingLaw(0.2, 0.1, 0.3, 1.0, 1.0, 9.0, 4, False).words("FLOPs")
        'error ~ FLOPs^−0.200 (95 %: −0.300 to −0.100; of 4 models)'
        """
        told = f"(95 %: {_signed(-self.high)} to {_signed(-self.low)}; of {self.count} models)"
        if self.low > 0:
            return f"error ~ {cost}^{_signed(-self.exponent)} {told}"
        return f"no power law of {cost} is shown: exponent {_signed(-self.exponent)} {told}"


def laws(
    scores: Sequence[Score], cost: Callable[[Score], float | None], *, of_size: bool = False
) -> Iterator[tuple[str, ScalingLaw]]:
    """Yield objective and law of the models of a column that were pretrained alike.

    Args:
        scores: of trained encoders.
        cost: of a score, None where it is not known.
        of_size: the cost is that of the model, so models of one law saw as many samples; else they
            were trained on devices of one kind.
    """
    alike: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for score in scores:
        at, error = cost(score), _error(score)
        if score.pretraining and at and error:
            took = score.pretraining
            key = took.objective, took.data, took.samples if of_size else took.device
            alike.setdefault(key, []).append((at, error))
    error_itself = bool(scores) and scores[0].better == "lower"
    for (objective, *_), pairs in alike.items():
        costs = {at for at, _ in pairs}
        if len(costs) >= LEAST and max(costs) >= RANGE * min(costs):
            yield str(objective), _fitted(pairs, error_itself)


def _signed(value: float) -> str:
    return digits(value).replace("-", "\N{MINUS SIGN}")


def _error(score: Score) -> float | None:
    """Return the error of a score; None where nothing says what is perfect, or it is."""
    if score.value is None:
        return None
    error = score.value if score.better == "lower" else 1 - score.value
    return error if error > 0 else None


def _fitted(pairs: Sequence[tuple[float, float]], error_itself: bool) -> ScalingLaw:
    from scipy.special import stdtrit

    costs, errors = np.log(np.array(pairs).T)
    wide = costs - costs.mean()
    slope = (wide @ errors) / (wide @ wide)
    rest = errors - errors.mean() - slope * wide
    free = len(pairs) - 2
    off = float(stdtrit(free, 0.975)) * math.sqrt(rest @ rest / free / (wide @ wide))
    return ScalingLaw(
        *(-float(slope), -float(slope) - off, -float(slope) + off),
        math.exp(errors.mean() - slope * costs.mean()),
        *(math.exp(costs.min()), math.exp(costs.max())),
        *(len(pairs), error_itself),
    )
