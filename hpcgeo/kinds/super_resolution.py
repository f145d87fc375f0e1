"""The bands of a finer image, for each of its pixels."""

from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.states import Fidelity


class SuperResolution(Kind):
    """A finer image; the input is brought to its pixels beforehand. The loss is L1."""

    title = "the bands of a finer image, for each of its pixels"
    label = "float32 (K, H, W) from 0 to 1, NaN where not known"
    metric = "psnr"
    states = (Fidelity,)
    dense = True

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        known = truth.isfinite()
        apart = (answer - truth.nan_to_num()).abs() * known
        return apart.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)

    def decide(self, answer: Tensor) -> Tensor:
        return answer
