"""MAE's own linear protocol, many settings at once on cached features.

As in He et al. 2022 (arXiv 2111.06377, appendix A.1): batch norm without affine parameters, one
linear layer, LARS with momentum 0.9 and no weight decay, 90 epochs of batches of 16,384, base
learning rate 0.1, times the batch over 256, 10 epochs of warm-up, half a cosine. Features are
cached: images have no random crops. Few samples have few steps, so higher rates are tried too.

Letters: b samples of a batch, D features, S settings, K outputs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hpcgeo.evaluate.protocols.products import times
from hpcgeo.evaluate.protocols.protocol import (
    Described,
    FittedModels,
    FrozenProtocol,
    Setting,
    known_rows,
)
from hpcgeo.evaluate.protocols.training import batches, drawn, rate, summed_loss, values
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.optimizers.layerwise import TRUST

EPOCHS, WARM_UP, BATCH = 90, 10, 16384
MOMENTUM, NORM_EPS = 0.9, 1e-6
#: Of the weights that a head begins with.
STD = 0.01
#: Base learning rates, the published one first, and weight decays.
RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
DECAYS = (0.0, 1e-4)


class Normalised(FittedModels):
    """Batch norm by running moments (D,), then weights (D, S, K) and biases (S, K)."""

    def __init__(self, mean: Tensor, variance: Tensor, weights: Tensor, biases: Tensor) -> None:
        self.mean, self.variance, self.weights, self.biases = mean, variance, weights, biases

    def answers(self, vectors: Tensor) -> Tensor:
        seen = F.batch_norm(vectors, self.mean, self.variance, eps=NORM_EPS)
        return (times(seen, self.weights) + self.biases).movedim(1, 0)


class MaeLinear(FrozenProtocol):
    """One linear layer behind batch norm, trained by LARS."""

    title = "MAE's linear probe: batch norm, LARS, 90 epochs; rate chosen on validation"

    def __init__(self, epochs: int = EPOCHS, warm_up: float = WARM_UP, batch: int = BATCH) -> None:
        self.epochs, self.warm_up, self.batch = epochs, warm_up, batch

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [{"lr": lr, "weight_decay": decay} for decay in DECAYS for lr in RATES]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        rows, kind = known_rows(train.truth), kind_of(target)
        vectors = train.block(slice(None))
        truth = torch.from_numpy(np.array(train.truth)).to(vectors.device)
        width, outputs = vectors.shape[1], len(target.names)
        weights = drawn((width, outputs), STD, len(settings), 1, seed).to(vectors)
        weights.requires_grad_()
        biases = weights.new_zeros(len(settings), outputs, requires_grad=True)
        mean, variance = weights.new_zeros(width), weights.new_ones(width)
        momenta = [torch.zeros_like(weights), torch.zeros_like(biases)]
        batch = min(self.batch, len(rows))
        rates = values(settings, "lr", weights) * batch / 256
        decays = values(settings, "weight_decay", weights)
        for epoch, some in batches(len(rows), batch, self.epochs, seed):
            index = torch.from_numpy(rows)[some].to(vectors.device)
            seen = F.batch_norm(vectors[index], mean, variance, training=True, eps=NORM_EPS)
            found = times(seen, weights) + biases  # (b, S, K)
            loss = summed_loss(kind, found.movedim(1, 0), truth[index])
            gradients = torch.autograd.grad(loss, (weights, biases))
            factor = rate(epoch, self.epochs, self.warm_up)
            _lars(weights, biases, momenta, gradients, factor * rates, decays)
        return Normalised(mean, variance, weights.detach(), biases.detach())


@torch.no_grad()
def _lars(
    weights: Tensor,
    biases: Tensor,
    momenta: Sequence[Tensor],
    gradients: Sequence[Tensor],
    rates: Tensor,
    decays: Tensor,
) -> None:
    """Take a step of `hpcgeo.optimizers.layerwise.LARS` with each setting; biases do not adapt."""
    update = gradients[0] + decays[:, None] * weights
    lengths, steps = (each.square().sum((0, 2)).sqrt() for each in (weights, update))
    ratios = torch.where((lengths > 0) & (steps > 0), TRUST * lengths / steps, 1.0)
    momenta[0].mul_(MOMENTUM).add_(update * ratios[:, None])
    momenta[1].mul_(MOMENTUM).add_(gradients[1])
    weights.sub_(momenta[0] * rates[:, None])
    biases.sub_(momenta[1] * rates[:, None])
