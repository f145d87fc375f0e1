"""Each of several labels or not, for a whole sample."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.states import Hits, PooledRanking, Ranking
from hpcgeo.kinds.target import Array, Target


class Multilabel(Kind):
    """Each of several labels or not; answers are logits, above 0 for yes."""

    title = "each of several labels or not, for a whole sample"
    label = "float32 (K,) of 0 and 1"
    metric = "f1"
    states = (Hits, Ranking, PooledRanking)

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(answer, truth, reduction="none").mean(1)

    def decide(self, answer: Tensor) -> Tensor:
        return (answer > 0).long()

    def baselines(self, seed: int) -> dict[str, Any]:
        from hpcgeo.kinds import estimators

        return {
            "knn": estimators.KNeighborsClassifier(5),
            "linear": estimators.OneVsRestClassifier(estimators.logistic(seed)),
            "forest": estimators.forest_of_classes(seed),
        }

    def answer(self, model: Any, vectors: Array, target: Target) -> Tensor:
        from hpcgeo.kinds import estimators

        return estimators.log_odds(model, vectors, len(target.names))
