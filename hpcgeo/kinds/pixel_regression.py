"""Numbers for each pixel."""

import torch
from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.pictures import Surfaces
from hpcgeo.kinds.states import Moments
from hpcgeo.kinds.target import Target


class PixelRegression(Kind):
    """Standardised numbers of each pixel; those that are not known count for nothing."""

    title = "numbers for each pixel"
    label = "float32 (K, H, W), NaN where not known"
    metric = "rmse"
    states = (Moments,)
    dense = True
    standardised = True
    picture = Surfaces()
    maps = ("numbers",)

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        known = truth.isfinite()  # (b, Q, K)
        squares = (answer - truth.nan_to_num()).square() * known
        return squares.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)

    def decide(self, answer: Tensor) -> Tensor:
        return answer

    def averaged(self, answer: Tensor, target: Target) -> Tensor:
        mean, std = (
            torch.tensor(each, device=answer.device)[:, None, None]
            for each in (target.mean, target.std)
        )
        return answer * std + mean
