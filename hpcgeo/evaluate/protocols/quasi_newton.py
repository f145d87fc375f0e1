"""L-BFGS for many convex problems on the same features at once.

The answers of all problems are one matrix product, so are their gradients. A step along a direction
needs no further one: answers are linear in the weights. Before L-BFGS (Liu and Nocedal 1989) the
weights of every axis are scaled by its curvature and penalty, which the principal axes make nearly
exact. Problems that have converged leave.

Letters: N samples, A axes and the intercept, P problems, K outputs of a problem.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcgeo.evaluate.protocols.products import times

#: Pairs of steps and changes of the gradient that are kept.
MEMORY = 10
#: A step is taken where the slope at its end is at most this part of the one at its beginning.
SLOPE = 0.25
#: Secant steps of a line search.
TRIES = 20

#: From answers (N, P, K) and the numbers of problems (P,) to the derivative of the loss by answers.
Derivative = Callable[[Tensor, Tensor], Tensor]


@dataclass
class _Going:
    """Problems that have not converged; every tensor has one axis of length P."""

    number: Tensor  # (P,)
    weights: Tensor  # (A, P, K)
    answers: Tensor  # (N, P, K)
    by_answer: Tensor  # (N, P, K)
    gradient: Tensor  # (A, P, K)
    penalty: Tensor  # (A, P)
    scale: Tensor  # (A, P)
    step: Tensor  # (P,) inverse curvature of the scaled problem
    memory: list[tuple[Tensor, Tensor, Tensor]]  # scaled steps and changes, their inverse products

    def keep(self, left: Tensor) -> None:
        """Go on with some of the problems."""
        for name in ("weights", "answers", "by_answer", "gradient", "penalty", "scale"):
            setattr(self, name, getattr(self, name)[:, left])
        self.number, self.step = self.number[left], self.step[left]
        self.memory = [(s[:, left], y[:, left], r[left]) for s, y, r in self.memory]

    def direction(self) -> Tensor:
        """Return the direction of L-BFGS, (A, P, K), by its two loops."""
        found = self.gradient * self.scale[..., None]
        taken = []
        for step, change, inverse in reversed(self.memory):
            taken.append(inverse * _dot(step, found))
            found = found - taken[-1][:, None] * change
        found = found * self.step[:, None]
        for (step, change, inverse), first in zip(self.memory, reversed(taken), strict=True):
            found = found + (first - inverse * _dot(change, found))[:, None] * step
        return -found * self.scale[..., None]


def minimise(
    features: Tensor,
    derivative: Derivative,
    start: Tensor,
    penalty: Tensor,
    curvature: Callable[[Tensor, Tensor], Tensor],
    *,
    tolerance: float,
    iterations: int,
) -> Tensor:
    """Return weights (A, P, K) at which the gradients of all problems are small.

    Args:
        features: (N, A) on principal axes, the last column ones.
        derivative: of the mean loss by the answers.
        start: weights (A, P, K) to begin at.
        penalty: (A, P), half of it times the squared weight is added to the loss.
        curvature: from answers and numbers of problems to the mean second derivative by an answer,
            (P,).
        tolerance: Euclidean norm of the gradient of an output at which a problem is done.
        iterations: after which it is done at the latest.
    """
    done = start.clone()
    going = _begun(features, derivative, start, penalty, curvature)
    for _ in range(iterations):
        small = going.gradient.square().sum(0).amax(-1).sqrt() <= tolerance
        if small.any():
            done[:, going.number[small]] = going.weights[:, small]
            going.keep(~small)
        if not len(going.number):
            return done
        stuck = _advance(going, features, derivative)
        if stuck.any():  # the gradient is rounding
            done[:, going.number[stuck]] = going.weights[:, stuck]
            going.keep(~stuck)
    done[:, going.number] = going.weights
    return done


def _begun(
    features: Tensor,
    derivative: Derivative,
    start: Tensor,
    penalty: Tensor,
    curvature: Callable[[Tensor, Tensor], Tensor],
) -> _Going:
    number = torch.arange(start.shape[1], device=start.device)
    answers = times(features, start)
    by_answer = derivative(answers, number)
    variance = features.square().mean(0)
    curved = curvature(answers, number).clamp(min=torch.finfo(start.dtype).eps)
    scale = (variance[:, None] + penalty / curved).clamp(min=torch.finfo(start.dtype).tiny)
    gradient = times(features.T, by_answer) + penalty[..., None] * start
    return _Going(
        number, start, answers, by_answer, gradient, penalty, scale.rsqrt(), 1 / curved, []
    )


def _advance(going: _Going, features: Tensor, derivative: Derivative) -> Tensor:
    """Take a step; return which problems cannot go down any further, (P,)."""
    direction = going.direction()
    along = times(features, direction)
    pulled = _dot(going.penalty[..., None] * going.weights, direction)
    slope = _dot(going.by_answer, along) + pulled
    bent = _dot(going.penalty[..., None] * direction, direction)
    begin = _dot(going.gradient, direction)
    length = torch.ones_like(slope)
    for _ in range(TRIES):
        ahead = going.answers + length[:, None] * along
        by_answer = derivative(ahead, going.number)
        here = _dot(by_answer, along) + pulled + length * bent
        far = here > SLOPE * slope.abs()
        if not far.any():
            break
        length = torch.where(far, length * slope / (slope - here), length)
    step = length[:, None] * direction
    weights = going.weights + step
    gradient = times(features.T, by_answer) + going.penalty[..., None] * weights
    scaled, change = step / going.scale[..., None], (gradient - going.gradient)
    change = change * going.scale[..., None]
    product, square = _dot(scaled, change), _dot(change, change)
    convex = product > torch.finfo(product.dtype).eps * square
    going.step = torch.where(convex, product / square, going.step)
    inverse = torch.where(convex, 1 / product, torch.zeros_like(product))
    going.memory = [*going.memory, (scaled, change, inverse)][-MEMORY:]
    going.weights, going.gradient = weights, gradient
    going.answers, going.by_answer = ahead, by_answer
    return ~(begin < 0)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of each problem, (P,)."""
    return (one * other).sum((0, 2))
