"""Segmentation from features of patches: a linear head, and kNN on patches.

Both answer at patches and are upsampled bilinearly to the frame of the labels, as in DINOv2 (Oquab
et al. 2023, arXiv 2304.07193). kNN has no training: each patch takes the mixture of classes of its
nearest ones in a memory bank, as in Hummingbird (Balazevic et al. 2023, arXiv 2306.01667).

Letters: n chips, h x w patches of W features, H x W pixels of labels, S settings, K classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hpcgeo.evaluate.protocols.neighbours import nearest, shares
from hpcgeo.evaluate.protocols.principal import Standard
from hpcgeo.evaluate.protocols.products import times
from hpcgeo.evaluate.protocols.protocol import Described, FittedModels, FrozenProtocol, Setting
from hpcgeo.evaluate.protocols.training import drawn, summed_loss, trained
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import IGNORED, Array, Target
from hpcgeo.parallel.device import usable_device

RATES, DECAY = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), 1e-4
EPOCHS, BATCH = 50, 16
#: A step sees each so many-th row and column of pixels, from one that is drawn: neighbours say the
#: same, and all pixels cost some ten times as much.
STRIDE = 4
#: Patches of a memory bank, its neighbours, and by what their similarities are divided.
BANK, KS, TEMPERATURE = 100_000, (5, 10, 30, 90), 0.02


class DenseFitted(FittedModels):
    """Weights (W, S, K) and biases (S, K) of patches."""

    def __init__(
        self, standard: Standard, weights: Tensor, biases: Tensor, frame: tuple[int, ...]
    ) -> None:
        self.standard, self.weights, self.biases, self.frame = standard, weights, biases, frame

    def answers(self, vectors: Tensor) -> Tensor:
        seen = self.standard.apply(vectors)  # (n, h, w, W)
        found = times(seen, self.weights) + self.biases  # (n, h, w, S, K)
        return upsampled(found.permute(3, 0, 4, 1, 2), self.frame)


class DenseLinear(FrozenProtocol):
    """A linear layer at each patch, trained by AdamW on the upsampled logits."""

    title = "a linear layer on patches, upsampled; rate chosen on validation"
    reads = "grids"
    rows = 8

    def __init__(self, epochs: int = EPOCHS, batch: int = BATCH) -> None:
        self.epochs, self.batch = epochs, batch

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [{"lr": lr, "weight_decay": DECAY} for lr in RATES]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        width, outputs, kind = train.vectors.shape[-1], len(target.names), kind_of(target)
        weights = drawn((width, outputs), 0.01, len(settings), 0, seed).to(usable_device())
        biases = weights.new_zeros(len(settings), outputs)
        parameters = [each.requires_grad_() for each in (weights, biases)]
        standard, frame = Standard.of(train), train.truth.shape[1:]
        mean, deviation = (x.to(weights) for x in (standard.mean, standard.deviation))
        deviation = deviation[:, None, None]
        stride, generator = min(STRIDE, *frame), torch.Generator().manual_seed(seed)
        tall, wide = (
            bilinear(*sides).to(weights.device)
            for sides in zip(train.vectors.shape[1:3], frame, strict=True)
        )

        def loss(some: Tensor) -> Tensor:
            chips = some.numpy()
            top, left = torch.randint(stride, (2,), generator=generator).tolist()
            rows, columns = slice(top, None, stride), slice(left, None, stride)
            truth = torch.from_numpy(np.array(train.truth[chips][:, rows, columns]))
            seen = torch.from_numpy(np.array(train.vectors[chips], np.float32)).to(weights.device)
            scaled = weights.movedim(0, 1) / deviation  # features as they are: no copy of them
            of_patches = times(seen, scaled) + biases - torch.einsum("w,wsk->sk", mean, scaled)
            answers = torch.einsum(
                "bhwsk,yh,xw->sbyxk", of_patches, tall[rows], wide[columns]
            )  # as `upsampled`, of these pixels
            return summed_loss(kind, answers.flatten(2, 3), truth.flatten(1).to(weights.device))

        trained(
            parameters,
            settings,
            loss,
            size=len(train),
            batch=self.batch,
            epochs=self.epochs,
            seed=seed,
        )
        return DenseFitted(standard, weights.detach().movedim(0, 1), biases.detach(), frame)


class Bank(FittedModels):
    """Patches with the mixture of classes of each."""

    def __init__(
        self, bank: Described, classes: int, settings: Sequence[Setting], frame: tuple[int, ...]
    ) -> None:
        self.bank, self.classes, self.settings, self.frame = bank, classes, settings, frame

    def answers(self, vectors: Tensor) -> Tensor:
        most = max(int(setting["k"]) for setting in self.settings)
        similar, rows = nearest(vectors.flatten(0, 2), self.bank, most)
        labels = torch.from_numpy(self.bank.truth[rows.cpu().numpy()]).to(vectors.device)
        found = shares(similar, labels, self.classes, self.settings, TEMPERATURE)
        found = found.reshape(len(found), *vectors.shape[:3], -1).permute(0, 1, 4, 2, 3)
        return upsampled(found.float(), self.frame).log()


class DenseKNN(FrozenProtocol):
    """kNN on a memory bank of patches, drawn by the seed."""

    title = "kNN on patches, upsampled; k chosen on validation"
    reads = "grids"
    rows = 4

    def __init__(self, bank: int = BANK) -> None:
        self.bank = bank

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [{"k": k, "weights": "similarity"} for k in KS]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        bank = memory_bank(train, len(target.names), self.bank, seed)
        fewer = [{**each, "k": min(int(each["k"]), len(bank))} for each in settings]
        return Bank(bank, len(target.names), fewer, train.truth.shape[1:])


def memory_bank(train: Described, classes: int, most: int, seed: int) -> Described:
    """Return so many patches with a labelled pixel at most, and their mixtures of classes (N, K).

    Args:
        train: of vectors (N, h, w, W).
        classes: K.
        most: patches that are kept, drawn by `seed`.
    """
    mixtures = np.concatenate(
        [mixed(truth[None], train.vectors.shape[1:3], classes) for truth in train.truth]
    ).reshape(-1, classes)
    places = np.flatnonzero(np.isfinite(mixtures[:, 0]))
    if len(places) > most:
        places = np.sort(np.random.default_rng(seed).permutation(places)[:most])
    rows = np.unravel_index(places, train.vectors.shape[:3])
    chips, which = np.unique(rows[0], return_inverse=True)
    vectors = np.empty((len(places), train.vectors.shape[-1]), np.float32)
    for number, chip in enumerate(chips):  # each chip is read once
        here = which == number
        vectors[here] = train.vectors[chip][rows[1][here], rows[2][here]]
    return Described(vectors, mixtures[places], [train.clusters[chip] for chip in rows[0]])


def mixed(truth: Array, grid: tuple[int, ...], classes: int) -> Array:
    """Return which part of the labelled pixels of each patch is of each class, float32.

    Args:
        truth: (n, H, W) classes.
        grid: (h, w) patches; a pixel is of the patch that its middle lies in.
        classes: K.

    Returns:
        (n, h, w, K), NaN where no pixel is labelled.
    """
    n, height, width = truth.shape
    row = (np.arange(height) * grid[0]) // height
    column = (np.arange(width) * grid[1]) // width
    patch = row[:, None] * grid[1] + column  # (H, W)
    known = truth != IGNORED
    place = (np.arange(n)[:, None, None] * grid[0] * grid[1] + patch) * classes + truth
    counts = np.bincount(place[known], minlength=n * grid[0] * grid[1] * classes)
    counts = counts.reshape(n, *grid, classes).astype(np.float32)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(-1, keepdims=True)


def bilinear(patches: int, pixels: int) -> Tensor:
    """Return the weights of patches in each pixel of an axis, (pixels, patches), as `upsampled`."""
    ones = torch.eye(patches)[None]
    return F.interpolate(ones, pixels, mode="linear", align_corners=False)[0].T


def upsampled(answers: Tensor, frame: tuple[int, ...]) -> Tensor:
    """Return answers of patches (S, n, K, h, w) at the pixels of a frame, (S, n, K, H, W)."""
    found = F.interpolate(answers.flatten(0, 1), frame, mode="bilinear", align_corners=False)
    return found.reshape(*answers.shape[:3], *frame)
