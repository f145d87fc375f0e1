"""The linear protocol: logistic regression of classes and labels, ridge regression of numbers.

All penalties of a path are solved at once, as in scikit-learn's terms: `C` of LogisticRegression,
`alpha` of Ridge. The penalty is chosen on the validation split.

Letters: N samples, D features, K outputs, S settings.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hpcgeo.errors import InputError
from hpcgeo.evaluate.protocols.principal import Axes, Standard, axes
from hpcgeo.evaluate.protocols.products import times
from hpcgeo.evaluate.protocols.protocol import (
    Described,
    FittedModels,
    FrozenProtocol,
    Setting,
    known_rows,
)
from hpcgeo.evaluate.protocols.quasi_newton import Derivative, minimise
from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Array, Target

#: Penalties next to each other that are solved at once; the next ones begin where these ended.
NEIGHBOURS = 5
#: Numbers of an array of answers, (N, P, K), that are held at once: it decides how many problems.
ANSWERS = 2**27


class LinearFitted(FittedModels):
    """Weights (D, S, K) and intercepts (S, K) on standardised features."""

    def __init__(self, standard: Standard, weights: Tensor, intercepts: Tensor) -> None:
        self.standard, self.weights, self.intercepts = standard, weights, intercepts

    def answers(self, vectors: Tensor) -> Tensor:
        dtype = self.weights.dtype
        seen = self.standard.apply(vectors.to(dtype), dtype)
        return (times(seen, self.weights) + self.intercepts).movedim(1, 0)


class Logistic(FrozenProtocol):
    """Multinomial logistic regression of classes, binary ones of two classes and of labels."""

    title = "logistic regression by L-BFGS, C chosen on validation"

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        tolerance: float = 1e-5,
        iterations: int = 200,
    ) -> None:
        """Take the precision and where a fit ends: norm of the gradient of the mean loss."""
        self.dtype, self.tolerance, self.iterations = dtype, tolerance, iterations

    def suits(self, kind: Kind) -> bool:
        return super().suits(kind) and not kind.standardised

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [{"C": float(c)} for c in np.logspace(-6, 1, 22)]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        standard, rows = Standard.of(train), known_rows(train.truth)
        on = axes(standard.matrix(train, self.dtype)[rows])
        truth = torch.from_numpy(np.array(train.truth[rows])).to(on.turned.device)
        strengths = [float(setting["C"]) for setting in settings]
        if min(strengths) <= 0:
            raise InputError(f"C {min(strengths):g}: above 0, the inverse of a penalty")
        if truth.ndim > 1:
            return _fitted(standard, on, self._of_labels(on, truth, strengths))
        there, label = torch.unique(truth, return_inverse=True)
        if len(there) < 2:
            only = target.names[int(there[0])] if len(there) else "gone"
            raise InputError(
                f"all samples with a label are {only}: a linear protocol needs two classes; take "
                f"more labels"
            )
        if len(there) == 2:
            found = self._of_labels(on, label[:, None], strengths)
            found = torch.cat([torch.zeros_like(found), found], dim=2)
        else:
            found = self._of_classes(on, label, len(there), strengths)
        every = found.new_zeros(*found.shape[:2], len(target.names))
        every[-1] = -torch.inf  # a class that is not there is never answered
        every[..., there] = found
        return _fitted(standard, on, every)

    def _of_classes(self, on: Axes, label: Tensor, classes: int, strengths: list[float]) -> Tensor:
        """Return weights (A + 1, S, K) of a multinomial regression."""
        size, wanted = len(label), F.one_hot(label)[:, None].to(self.dtype)

        def derivative(answers: Tensor, _: Tensor) -> Tensor:
            return answers.softmax(-1).sub_(wanted).div_(size)

        def curvature(answers: Tensor, _: Tensor) -> Tensor:
            return (1 - answers.softmax(-1).square_().sum(-1).mean(0)) / (classes - 1)

        counts = label.new_tensor([size])
        return self._path(on, derivative, curvature, strengths, counts, classes)[:, :, 0]

    def _of_labels(self, on: Axes, truth: Tensor, strengths: list[float]) -> Tensor:
        """Return weights (A + 1, S, K) of a binary regression of each label where it is known."""
        known = truth.isfinite()
        counts, yes = known.sum(0), (truth == 1).sum(0)
        found = on.turned.new_zeros(on.turned.shape[1] + 1, len(strengths), len(counts))
        found[-1] = torch.where(yes > 0, torch.inf, -torch.inf)  # no weights can say more
        if not len(both := ((yes > 0) & (yes < counts)).nonzero()[:, 0]):
            return found
        weight = (known[:, both] / counts[both]).to(self.dtype)[..., None]  # (N, L, 1)
        wanted = truth[:, both].nan_to_num().to(self.dtype)[..., None]

        def derivative(answers: Tensor, number: Tensor) -> Tensor:
            label = number % len(both)
            return answers.sigmoid().sub_(wanted[:, label]).mul_(weight[:, label])

        def curvature(answers: Tensor, number: Tensor) -> Tensor:
            probability = answers.sigmoid()
            return (probability * (1 - probability) * weight[:, number % len(both)]).sum((0, 2))

        solved = self._path(on, derivative, curvature, strengths, counts[both], 1)
        found[..., both] = solved[..., 0]
        return found

    def _path(
        self,
        on: Axes,
        derivative: Derivative,
        curvature: Callable[[Tensor, Tensor], Tensor],
        strengths: list[float],
        counts: Tensor,
        outputs: int,
    ) -> Tensor:
        """Return weights (A + 1, S, L, K) of all strengths, from the strongest penalty on.

        Args:
            on: the features.
            derivative, curvature: see `minimise`; problem number s L + l is label l of strength s.
            strengths: C.
            counts: (L,) samples of each label.
            outputs: K of a problem.
        """
        turned, labels = on.turned, len(counts)
        features = torch.cat([turned, turned.new_ones(len(turned), 1)], dim=1)
        fits = max(1, min(NEIGHBOURS, ANSWERS // (len(turned) * labels * outputs)))
        order = np.argsort(strengths, kind="stable")
        found = turned.new_zeros(features.shape[1], len(strengths), labels, outputs)
        last = found[:, 0]
        for first in range(0, len(order), fits):
            some = order[first : first + fits]
            cs = turned.new_tensor([strengths[number] for number in some])
            penalty = (1 / (cs[:, None] * counts)).flatten().repeat(features.shape[1], 1)
            penalty[-1] = 0
            solved = minimise(
                features,
                derivative,
                last.repeat(1, len(some), 1),
                penalty,
                curvature,
                tolerance=self.tolerance,
                iterations=self.iterations,
            )
            found[:, some] = solved.reshape(len(solved), len(some), labels, outputs)
            last = solved[:, -labels:]
        return found


def _fitted(standard: Standard, on: Axes, weights: Tensor) -> LinearFitted:
    """Return weights (A + 1, S, K) on principal axes as weights of the features."""
    turned = times(on.basis, weights[:-1])
    return LinearFitted(standard, turned, weights[-1] - times(on.mean, turned))


class Ridge(FrozenProtocol):
    """Ridge regression in closed form: one eigendecomposition for all penalties."""

    title = "ridge regression in closed form, alpha chosen on validation"

    def suits(self, kind: Kind) -> bool:
        return super().suits(kind) and kind.standardised

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [{"alpha": float(alpha)} for alpha in np.logspace(-3, 6, 19)]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        if (least := min(float(setting["alpha"]) for setting in settings)) <= 0:
            raise InputError(f"alpha {least:g}: above 0, a penalty")
        standard = Standard.of(train)
        features = standard.matrix(train, torch.float64)
        alphas = features.new_tensor([float(setting["alpha"]) for setting in settings])
        weights = features.new_zeros(features.shape[1], len(settings), len(target.names))
        intercepts = weights.new_zeros(weights.shape[1:])
        truth = np.array(train.truth, np.float64)
        for outputs, known in _alike(np.isfinite(truth)):
            on = axes(features[torch.from_numpy(known)])
            wanted = torch.from_numpy(truth[np.ix_(known, outputs)]).to(features)
            mean = wanted.mean(0)
            product = on.turned.T @ (wanted - mean)  # (A, outputs)
            shrunk = (on.variance * len(wanted))[:, None] + alphas  # (A, S)
            found = times(on.basis, product[:, None] / shrunk[..., None])
            weights[..., outputs] = found
            intercepts[:, outputs] = mean - times(on.mean, found)
        return LinearFitted(standard, weights, intercepts)


def _alike(known: Array) -> list[tuple[Array, Array]]:
    """Return outputs with labels of the same samples, and those samples; outputs with any."""
    masks, which = np.unique(known, axis=1, return_inverse=True)
    return [
        (np.flatnonzero(which == number), np.flatnonzero(mask))
        for number, mask in enumerate(masks.T)
        if mask.any()
    ]


class Linear(FrozenProtocol):
    """Ridge regression of numbers, logistic regression of classes and labels."""

    title = "logistic or ridge regression, its penalty chosen on validation"

    def __init__(self) -> None:
        self.logistic, self.ridge = Logistic(), Ridge()

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return self._of(target).settings(target, size)

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        return self._of(target).fit(train, target, settings, seed)

    def _of(self, target: Target) -> FrozenProtocol:
        return next(each for each in (self.logistic, self.ridge) if each.suits(kind_of(target)))
