"""Attentive pooling: one learned query reads the tokens of a frozen backbone.

As in V-JEPA (Bardes et al. 2024, arXiv 2404.08471) and CAPI (Darcet et al. 2025, arXiv
2502.08769): the query attends to all tokens in several heads, what it reads is projected, a linear
layer answers. A query times a key projection is one vector of a head: that is what is learned.

Letters: n samples, T tokens, W features, H heads, S settings, K outputs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hpcgeo.evaluate.protocols.principal import Standard
from hpcgeo.evaluate.protocols.protocol import (
    Described,
    FittedModels,
    FrozenProtocol,
    Setting,
    known_rows,
)
from hpcgeo.evaluate.protocols.training import drawn, summed_loss, trained
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.parallel.device import usable_device

#: Features of a head of attention.
HEAD = 64
RATES, DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (0.01, 0.4)
EPOCHS, BATCH = 20, 256


class Pooled(FittedModels):
    """Queries (S, W, H), projections (S, H, W, W / H), weights (S, W, K), biases (S, K)."""

    def __init__(self, standard: Standard, parameters: Sequence[Tensor]) -> None:
        self.standard, self.parameters = standard, parameters

    def answers(self, vectors: Tensor) -> Tensor:
        query, projection, weights, biases = self.parameters
        tokens = self.standard.apply(vectors)  # (n, T, W)
        scores = torch.einsum("ntw,swh->snth", tokens, query) / HEAD**0.5
        read = torch.einsum("snth,ntw->snhw", scores.softmax(2), tokens)
        pooled = torch.einsum("snhw,shwv->snhv", read, projection).flatten(2)  # (S, n, W)
        return torch.einsum("snw,swk->snk", pooled, weights) + biases[:, None]


class Attentive(FrozenProtocol):
    """A learned query over tokens (N, T, W), trained by AdamW."""

    title = "attentive pooling of tokens; rate and weight decay chosen on validation"
    reads = "tokens"
    rows = 64

    def __init__(self, epochs: int = EPOCHS, batch: int = BATCH) -> None:
        self.epochs, self.batch = epochs, batch

    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        return [{"lr": lr, "weight_decay": decay} for decay in DECAYS for lr in RATES]

    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        width, outputs, count = train.vectors.shape[-1], len(target.names), len(settings)
        heads = width // HEAD if width % HEAD == 0 else 1
        shapes = [(width, heads), (heads, width, width // heads), (width, outputs)]
        parameters = [
            drawn(shape, std, count, 0, seed + number).to(usable_device())
            for number, (shape, std) in enumerate(
                zip(shapes, (0.02, width**-0.5, 0.01), strict=True)
            )
        ]
        parameters.append(parameters[0].new_zeros(count, outputs))
        for parameter in parameters:
            parameter.requires_grad_()
        model, kind = Pooled(Standard.of(train), parameters), kind_of(target)
        rows = known_rows(train.truth)

        def loss(some: Tensor) -> Tensor:
            index = rows[some.numpy()]
            tokens = torch.from_numpy(np.array(train.vectors[index], np.float32))
            truth = torch.from_numpy(np.array(train.truth[index])).to(parameters[0].device)
            return summed_loss(kind, model.answers(tokens.to(truth.device)), truth)

        trained(
            parameters,
            settings,
            loss,
            size=len(rows),
            batch=self.batch,
            epochs=self.epochs,
            seed=seed,
        )
        return Pooled(model.standard, [parameter.detach() for parameter in parameters])
