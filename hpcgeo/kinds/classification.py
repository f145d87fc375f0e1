"""One of several classes for a whole sample."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.pictures import ConfusionMatrix
from hpcgeo.kinds.states import Confusion, Ranking, TopFive
from hpcgeo.kinds.target import Array, Target


class Classification(Kind):
    """One of several classes; answers are logits."""

    title = "one of several classes for a whole sample"
    label = "int64 ()"
    metric = "accuracy"
    states = (Confusion, Ranking, TopFive)
    stratified = True
    picture = ConfusionMatrix()

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        return F.cross_entropy(answer, truth, reduction="none")

    def decide(self, answer: Tensor) -> Tensor:
        return answer.argmax(dim=1)

    def scores(self, answer: Tensor) -> Tensor:
        return answer.float().softmax(dim=1)

    def baselines(self, seed: int) -> dict[str, Any]:
        from hpcgeo.kinds import estimators

        return {
            "knn": estimators.KNeighborsClassifier(5),
            "linear": estimators.logistic(seed),
            "forest": estimators.forest_of_classes(seed),
        }

    def answer(self, model: Any, vectors: Array, target: Target) -> Tensor:
        from hpcgeo.kinds import estimators

        return estimators.log_probabilities(model, vectors, len(target.names))
