"""Heads of several settings that are trained on the same batches, as one.

Every parameter has the settings as an axis; their losses are added up, so that each has its own
gradient. Batches and their order are the same for all.

Letters: S settings, b samples of a batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from hpcgeo.evaluate.protocols.protocol import Setting
from hpcgeo.kinds.kind import Kind

#: Of AdamW.
BETAS, EPS = (0.9, 0.999), 1e-8


def rate(epoch: float, epochs: int, warm_up: float) -> float:
    """Return the factor of learning rates: up a line, then down half a cosine.

    >>> [rate(epoch, 90, 10) for epoch in (0, 5, 10, 50, 90)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if epoch < warm_up:
        return epoch / warm_up
    return 0.5 * (1 + math.cos(math.pi * (epoch - warm_up) / (epochs - warm_up)))


def batches(size: int, batch: int, epochs: int, seed: int) -> Iterator[tuple[float, Tensor]]:
    """Yield the epoch, with its fraction, and the rows of each batch; the last short one is left.

    Args:
        size: samples of an epoch.
        batch: samples of a batch, at most `size`.
        epochs: passes over the samples.
        seed: of their order.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = size // batch
    for epoch in range(epochs):
        order = torch.randperm(size, generator=generator)
        for step in range(steps):
            yield epoch + step / steps, order[step * batch : (step + 1) * batch]


def drawn(shape: Sequence[int], std: float, settings: int, axis: int, seed: int) -> Tensor:
    """Return truncated normal numbers, the same for each of so many settings along an axis."""
    one = torch.nn.init.trunc_normal_(
        torch.empty(*shape), std=std, generator=torch.Generator().manual_seed(seed)
    )
    return torch.stack([one] * settings, axis)


def values(settings: Sequence[Setting], name: str, like: Tensor) -> Tensor:
    """Return one number of each setting, (S,)."""
    return torch.tensor([float(each[name]) for each in settings]).to(like)


def summed_loss(kind: Kind, answers: Tensor, truth: Tensor) -> Tensor:
    """Return the mean losses of all settings, added up.

    Args:
        kind: of the task.
        answers: (S, b, K), of a dense kind (S, b, Q, K).
        truth: (b, ...).
    """
    repeated = truth.expand(len(answers), *truth.shape).flatten(0, 1)
    return kind.loss(answers.flatten(0, 1).float(), repeated).sum() / len(truth)


class AdamW:
    """AdamW (Loshchilov and Hutter 2019) of parameters (S, ...) with a rate and decay for each."""

    def __init__(self, parameters: Sequence[Tensor], rates: Tensor, decays: Tensor) -> None:
        self.parameters, self.rates, self.decays = parameters, rates, decays
        self.means = [torch.zeros_like(parameter) for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """Update all parameters; `factor` is that of the schedule."""
        self.steps += 1
        first, second = (1 - beta**self.steps for beta in BETAS)
        for parameter, gradient, mean, square in zip(
            self.parameters, gradients, self.means, self.squares, strict=True
        ):
            rate = (factor * self.rates).view(-1, *[1] * (parameter.ndim - 1))
            decay = self.decays.view(rate.shape)
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            parameter.mul_(1 - rate * decay)
            parameter.sub_(rate * (mean / first) / ((square / second).sqrt() + EPS))


def trained(
    parameters: Sequence[Tensor],
    settings: Sequence[Setting],
    loss: Callable[[Tensor], Tensor],
    *,
    size: int,
    batch: int,
    epochs: int,
    seed: int,
) -> None:
    """Train parameters (S, ...) by AdamW with `lr` and `weight_decay` of each setting.

    Args:
        parameters: leaves that need gradients.
        settings: S.
        loss: of all settings, added up, of a batch of rows.
        size: samples there are.
        batch: samples of a step, or all where there are fewer.
        epochs: passes over them; the first tenth warms up.
        seed: of the order.
    """
    rates, decays = (values(settings, name, parameters[0]) for name in ("lr", "weight_decay"))
    optimizer = AdamW(parameters, rates, decays)
    for epoch, rows in batches(size, min(batch, size), epochs, seed):
        gradients = torch.autograd.grad(loss(rows), parameters)
        optimizer.step(gradients, rate(epoch, epochs, epochs / 10))
