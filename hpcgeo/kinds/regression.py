"""Numbers for a whole sample."""

from typing import Any

from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.pictures import Scatter
from hpcgeo.kinds.states import Moments


class Regression(Kind):
    """Standardised numbers; those that are not known count for nothing."""

    title = "numbers for a whole sample"
    label = "float32 (K,), NaN where not known"
    metric = "r2"
    states = (Moments,)
    standardised = True
    picture = Scatter()

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        known = truth.isfinite()
        squares = (answer - truth.nan_to_num()).square() * known
        return squares.sum(1) / known.sum(1).clamp(min=1)

    def decide(self, answer: Tensor) -> Tensor:
        return answer

    def baselines(self, seed: int) -> dict[str, Any]:
        from hpcgeo.kinds import estimators

        return {
            "knn": estimators.KNeighborsRegressor(10),
            "linear": estimators.ridge(),
            "forest": estimators.forest_of_numbers(seed),
        }
