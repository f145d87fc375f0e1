"""What a kind of task is: its labels, loss, decision, metrics, picture and baselines, in one.

A kind is one class and one row of `hpcgeo.kinds.table`, or an entry point of the group
`hpcgeo.kinds` in any installed package. Nothing else of ours asks which kind a task is of.

Letters: b samples of a task, Q pixels of a sample, K outputs, D values of a vector.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from hpcgeo.kinds.pictures import Picture
from hpcgeo.kinds.states import State
from hpcgeo.kinds.target import Array, Target


class Kind(ABC):
    """A kind of task; it has no state of its own.

    Attributes:
        title: a sentence for `hpcgeo list kinds`.
        label: the array that a label is; the last two axes of a dense one are those of the frame of
            the first observation.
        metric: by which tasks of this kind are usually compared.
        states: what metrics of it are computed from (`hpcgeo.kinds.states`).
        labels: whether there is anything to learn from.
        dense: a label for each pixel, not for the whole sample.
        stratified: a label is one class: label subsets and validation splits take every class.
        standardised: labels are numbers, (K,), of a dense kind (K, H, W), brought to zero mean
            and unit deviation.
        mixes: labels of whole samples that can be made `soft`, so smoothed and mixed.
        picture: how predictions are looked at; None: not at all.
        maps: of dense kinds, what a map of a whole scene can show (`hpcgeo.kinds.maps`), the usual
            first.
        every_date: an answer needs a pixel at the first and the last date, not just at any.
    """

    title: ClassVar[str]
    label: ClassVar[str]
    metric: ClassVar[str]
    states: ClassVar[tuple[type[State], ...]]
    labels: ClassVar[bool] = True
    dense: ClassVar[bool] = False
    stratified: ClassVar[bool] = False
    standardised: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    picture: ClassVar[Picture | None] = None
    maps: ClassVar[tuple[str, ...]] = ()
    every_date: ClassVar[bool] = False

    @abstractmethod
    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Return the loss of each sample, (b,).

        Args:
            answer: of a head, float32 (b, K); of a dense kind (b, Q, K).
            truth: labels; of a dense kind (b, Q) for the same pixels.
        """

    @abstractmethod
    def decide(self, answer: Tensor) -> Tensor:
        """Return what answers (b, K), or (b, K, H, W) of a dense kind, come to, like labels."""

    def soft(self, label: Array, num_outputs: int, smoothing: float) -> Array:
        """Return a label as numbers, float32 (K,), of which mixtures are labels too.

        `loss` takes them in the place of labels where the kind `mixes`.

        Args:
            label: of one sample.
            num_outputs: K.
            smoothing: fraction of the label that is spread evenly over what it might be.
        """
        raise AssertionError(f"labels of {type(self).__name__} are not mixed")

    def averaged(self, answer: Tensor, target: Target) -> Tensor:
        """Return what overlapping answers of a dense kind (b, K, H, W) are averaged as."""
        return answer

    def scores(self, answer: Tensor) -> Tensor:
        """Return numbers (b, K) by which samples can be ranked for each output."""
        return answer

    def baselines(self, seed: int) -> dict[str, Any]:
        """Return models of scikit-learn by name, for vectors (N, D) of samples or of pixels."""
        return {}

    def answer(self, model: Any, vectors: Array, target: Target) -> Tensor:
        """Return what a fitted model of `baselines` answers to vectors (n, D), (n, K)."""
        return torch.as_tensor(model.predict(vectors)).reshape(len(vectors), -1)
