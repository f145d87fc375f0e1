"""One of several classes for each pixel."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.pictures import Chips
from hpcgeo.kinds.states import Confusion
from hpcgeo.kinds.target import IGNORED, Array, Target


class Segmentation(Kind):
    """One of several classes for each pixel; pixels without a label count for nothing."""

    title = "one of several classes for each pixel"
    label = f"int64 (H, W), {IGNORED} where not labelled"
    metric = "iou"
    states = (Confusion,)
    dense = True
    picture = Chips("input")
    maps = ("class", "probabilities")

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        each = F.cross_entropy(
            answer.transpose(1, 2), truth, ignore_index=IGNORED, reduction="none"
        )  # (b, Q)
        return each.sum(1) / (truth != IGNORED).sum(1).clamp(min=1)

    def decide(self, answer: Tensor) -> Tensor:
        return answer.argmax(dim=1)

    def averaged(self, answer: Tensor, target: Target) -> Tensor:
        return answer.softmax(dim=1)

    def baselines(self, seed: int) -> dict[str, Any]:
        from hpcgeo.kinds import estimators

        return {"forest": estimators.forest_of_pixels(seed)}

    def answer(self, model: Any, vectors: Array, target: Target) -> Tensor:
        from hpcgeo.kinds import estimators

        return estimators.log_probabilities(model, vectors, len(target.names))
