"""kNN by cosine similarity: several k and weights from one pass over the training split.

A vote counts exp(similarity / 0.07), as in DINO (Caron et al. 2021, arXiv 2104.14294, appendix
F.1), or one. Training vectors are read in blocks beside a running list of the nearest: memory does
not grow with them. Of equal similarities the lower row is nearer.

Letters: n queries, N training rows, k neighbours, K outputs, S settings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hpcgeo.errors import InputError
from hpcgeo.evaluate.protocols.protocol import (
    Described,
    FittedModels,
    FrozenProtocol,
    Setting,
    known_rows,
)
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target

KS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07
#: Similarities that are held at once: it decides how many training rows.
SIMILARITIES = 2**23


def nearest(queries: Tensor, bank: Described, most: int) -> tuple[Tensor, Tensor]:
    """Return similarities and rows (n, k) of the nearest vectors, the nearest first.

    Args:
        queries: (n, D).
        bank: vectors (N, D).
        most: k, at most N.
    """
    unit = F.normalize(queries, dim=1)
    keys = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    step = max(1, SIMILARITIES // len(queries))
    for first in range(0, len(bank), step):
        block = F.normalize(bank.block(slice(first, first + step)), dim=1)
        rows = torch.arange(first, first + len(block), device=queries.device)
        keys = torch.cat([keys, _key(unit @ block.T, rows)], dim=1)
        keys = keys.topk(min(most, keys.shape[1]), dim=1).values
    return _similarity(keys), _FIRST - (keys & _FIRST)


#: What stands for row 0 in the lower half of a key.
_FIRST = 2**32 - 1


def _key(similarity: Tensor, rows: Tensor) -> Tensor:
    """Return integers in the order of float32 similarities, among equal ones of falling rows."""
    bits = (similarity + 0.0).view(torch.int32)  # -0 is 0
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (rising.long() << 32) | (_FIRST - rows)


def _similarity(keys: Tensor) -> Tensor:
    rising = (keys >> 32).int()
    return torch.where(rising < 0, rising ^ 0x7FFFFFFF, rising).view(torch.float32)


def shares(
    similar: Tensor, labels: Tensor, classes: int, settings: Sequence[Setting], temperature: float
) -> Tensor:
    """Return weighted means of the labels of neighbours, float64 (S, n, K).

    Args:
        similar: (n, k) similarities, falling.
        labels: of the neighbours, classes (n, k) or numbers (n, k, K), NaN where not known.
        classes: K.
        settings: with `k` and `weights`.
        temperature: by which similarities are divided.
    """
    found = similar.new_zeros(len(settings), len(similar), classes, dtype=torch.float64)
    for kind in {setting["weights"] for setting in settings}:
        weights = torch.ones_like(similar, dtype=torch.float64)
        if kind == "similarity":
            weights = ((similar - similar[:, :1]).double() / temperature).exp()
        total, known = torch.zeros_like(found[0]), torch.zeros_like(found[0])
        before = 0
        asked = [(int(each["k"]), n) for n, each in enumerate(settings) if each["weights"] == kind]
        for k, number in sorted(asked):
            weight, label = weights[:, before:k], labels[:, before:k]
            if label.ndim == 2:
                total.scatter_add_(1, label, weight)
                known += weight.sum(1, keepdim=True)
            else:
                there = weight[..., None] * label.isfinite()
                total += (there * label.nan_to_num()).sum(1)
                known += there.sum(1)
            found[number] = total / known.clamp(min=torch.finfo(torch.float64).tiny)
            before = k
    return found


class Neighbours(FittedModels):
    """The training split itself."""

    def __init__(self, bank: Described, target: Target, settings: Sequence[Setting]) -> None:
        self.bank, self.target, self.settings = bank, target, settings

    def answers(self, vectors: Tensor) -> Tensor:
        most = max(int(setting["k"]) for setting in self.settings)
        similar, rows = nearest(vectors, self.bank, most)
        labels = torch.from_numpy(self.bank.truth[rows.cpu().numpy()]).to(vectors.device)
        found = shares(
            similar, labels, len(self.target.names), self.settings, TEMPERATURE
        )  # (S, n, K)
        if kind_of(self.target).standardised:
            return found
        return found.log() if labels.ndim == 2 else found.logit()


class KNN(FrozenProtocol):
    """kNN: a weighted vote of classes or labels, a weighted mean of numbers."""

    title = "k nearest neighbours by cosine; k and weights chosen on validation"
    rows = 1024

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [
            {"k": k, "weights": weights}
            for weights in ("similarity", "uniform")
            for k in KS
            if k <= max(1, size)
        ]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        rows = known_rows(train.truth)
        bank = train if len(train.truth[rows]) == len(train) else train.of(rows)
        for k in (setting["k"] for setting in settings):
            if not 1 <= int(k) <= len(bank):
                raise InputError(
                    f"k {k}: at least 1, at most the {len(bank)} samples that have a label"
                )
        return Neighbours(bank, target, settings)
