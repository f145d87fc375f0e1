"""Samples without labels, for pretraining."""

from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.states import Mean


class Unlabelled(Kind):
    """Nothing to learn; what a model says of its own error is the metric."""

    title = "no labels: for pretraining"
    label = "empty"
    metric = "masked_mse"
    states = (Mean,)
    labels = False

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        raise AssertionError("nothing is learned from no labels")

    def decide(self, answer: Tensor) -> Tensor:
        raise AssertionError("nothing is predicted without labels")
