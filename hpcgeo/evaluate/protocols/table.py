"""The frozen protocols, by name: ours, and those of installed packages (entry points)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hpcgeo.evaluate.baselines import PROBES, fit_vectors
from hpcgeo.evaluate.protocols.attentive import Attentive
from hpcgeo.evaluate.protocols.dense import DenseKNN, DenseLinear
from hpcgeo.evaluate.protocols.lars import MaeLinear
from hpcgeo.evaluate.protocols.linear import Linear
from hpcgeo.evaluate.protocols.neighbours import KNN
from hpcgeo.evaluate.protocols.protocol import Described, FittedModels, FrozenProtocol, Setting
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find_open, loaded, plugins

PROTOCOLS: dict[str, FrozenProtocol] = {
    "knn": KNN(),
    "linear": Linear(),
    "mae_linear": MaeLinear(),
    "attentive": Attentive(),
    "dense_linear": DenseLinear(),
    "dense_knn": DenseKNN(),
}


#: Entry points of protocols; those of estimators are `hpcgeo.probes`.
GROUP = "hpcgeo.protocols"


def protocols() -> dict[str, FrozenProtocol]:
    """Return all protocols by name; those of other packages are imported."""
    return PROTOCOLS | {name: loaded(entry) for name, entry in plugins(GROUP).items()}


def protocol_of(name: str) -> FrozenProtocol:
    """Return a protocol by name: ours, an installed package's, or one of an estimator it makes.

    Raises:
        InputError: nobody has that name; the message lists the known ones.
    """
    estimators = plugins(PROBES)
    if name in estimators and name not in PROTOCOLS:
        return OfEstimator(loaded(estimators[name]))
    return find_open(PROTOCOLS, GROUP, name, "protocol", known=estimators)


class OfEstimator(FrozenProtocol):
    """A model of scikit-learn, made by (target, seed); there is nothing to choose."""

    title = "a model of scikit-learn"

    def __init__(self, make: Callable[[Target, int], Any]) -> None:
        self.make = make

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [{}]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        model = self.make(target, seed)
        fit_vectors(model, train.vectors, train.truth)
        return _Estimated(model, target, len(settings))


class _Estimated(FittedModels):
    def __init__(self, model: Any, target: Target, count: int) -> None:
        self.model, self.target, self.count = model, target, count

    def answers(self, vectors: Tensor) -> Tensor:
        found = kind_of(self.target).answer(self.model, vectors.cpu().numpy(), self.target)
        return torch.stack([found] * self.count)
