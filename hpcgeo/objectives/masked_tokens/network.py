"""Masked tokens: latents read the visible ones, queries ask what the hidden ones held.

Self-supervised pretraining of one model for every sensor (GPNA, roadmap step 3). A query is the
encoding of a hidden token, where and when and at what wavelength it looked; the answer are its
values. Letters: as in `hpcgeo.objectives.multitask.network`; P values of a token.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcgeo.data.labelled_batches import Bool, Drawn
from hpcgeo.data.sampling.order import uniform
from hpcgeo.models.heads import PixelHead
from hpcgeo.models.perceiver import PerceiverBackbone
from hpcgeo.models.tokenizers import Channel, ObservationGroup, Tokens, zero_of
from hpcgeo.objectives.collate import Grouping
from hpcgeo.objectives.masked_tokens.objective import MaskedTokensOptions
from hpcgeo.zoo import PerceiverArchitecture


@dataclass(frozen=True)
class Hidden:
    """Hidden tokens of the observations of one group.

    Attributes:
        group: which.
        rows: (b,) samples of the pass.
        members: (b,) observations of the group.
        index: (b, Q) which of the T L h w tokens of the observation.
        asked: (b, Q) False where there are fewer hidden ones than queries.
    """

    group: int
    rows: Tensor
    members: Tensor
    index: Tensor
    asked: Tensor


class MaskedTokensNetwork(nn.Module):
    """The error of predicted tokens."""

    methods = ("predict", "error")

    def __init__(
        self,
        architecture: PerceiverArchitecture,
        channels: Sequence[Channel],
        sizes: Sequence[int],
        config: MaskedTokensOptions,
        density: str = "uniform",
    ) -> None:
        """Build the model.

        Args:
            sizes: every P that tokens may have.
        """
        super().__init__()
        self.config = config
        self.backbone = PerceiverBackbone(architecture, channels, density)
        self.heads = Predictors(architecture, sizes)

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        return self.backbone.stacks()

    def forward(self, tokens: Tokens, hidden: Sequence[Hidden], scale: float) -> dict[str, Tensor]:
        """Return the loss of a pass: the squared error of the hidden tokens that are asked for.

        Each sample counts alike, and in it each observation with a hidden token.

        Args:
            tokens: the visible ones.
            hidden: what is asked.
            scale: passes of the step over samples of the step.
        """
        return {"loss": self._error(tokens, hidden) * scale}

    @torch.no_grad()
    def error(self, tokens: Tokens, hidden: Sequence[Hidden]) -> Tensor:
        """Return the sum over samples of what `forward` takes the mean of."""
        return self._error(tokens, hidden)

    @torch.no_grad()
    def predict(self, tokens: Tokens, hidden: Sequence[Hidden]) -> list[Tensor]:
        """Return the values (b, Q, P) of hidden tokens, by question."""
        return self._predicted(tokens, hidden)[0]

    def _error(self, tokens: Tokens, hidden: Sequence[Hidden]) -> Tensor:
        predicted, total = self._predicted(tokens, hidden)
        observations = torch.zeros(len(tokens.place), device=total.device)
        for one in hidden:
            observations.index_add_(0, one.rows, one.asked.any(1).float())
        for one, prediction in zip(hidden, predicted, strict=True):
            values = held(tokens.groups[one.group])[one.members]  # (b, T L h w, P)
            target = values.gather(1, one.index[:, :, None].expand(-1, -1, values.shape[2]))
            there = target.isfinite()
            squares = (prediction - target).where(there, 0.0).square()
            squares = squares.sum(2) / there.sum(2).clamp(min=1)  # (b, Q), of the values there are
            each = (squares * one.asked).sum(1) / one.asked.sum(1).clamp(min=1)
            total = total + (each / observations[one.rows].clamp(min=1)).sum()
        return total

    def _predicted(self, tokens: Tokens, hidden: Sequence[Hidden]) -> tuple[list[Tensor], Tensor]:
        """Return the predicted values, and a zero of all parameters."""
        read = self.backbone.tokenizer(tokens)
        latents = self.backbone(read.flat, tokens.layout)
        queries = []
        for one in hidden:
            where = read.where[one.group].expand_as(read.grids[one.group])
            places = where[one.members].flatten(1, 4)  # (b, T L h w, C)
            queries.append(places.gather(1, one.index[:, :, None].expand(-1, -1, places.shape[2])))
        sizes = [tokens.groups[one.group].size for one in hidden]
        predicted, zero = self.heads(latents, [one.rows for one in hidden], queries, sizes)
        return predicted, zero + latents.float().sum() * 0


class Predictors(nn.ModuleDict):
    """A head for every number of values that a token may have."""

    def __init__(self, architecture: PerceiverArchitecture, sizes: Sequence[int]) -> None:
        stack, width = architecture.stack, architecture.context
        super().__init__({str(P): PixelHead(stack.width, stack.heads, width, P) for P in sizes})

    def forward(
        self,
        latents: Tensor,
        rows: Sequence[Tensor],
        queries: Sequence[Tensor],
        sizes: Sequence[int],
    ) -> tuple[list[Tensor], Tensor]:
        """Return the values (b, Q, P) that each of the queries (b, Q, C) asks for, and a zero."""
        asked = zip(rows, queries, sizes, strict=True)
        return [self[str(P)](latents[own], some).float() for own, some, P in asked], zero_of(self)


def held(group: ObservationGroup) -> Tensor:
    """Return the values of all tokens of a group, (G, T L h w, P)."""
    values = group.values
    if values.dim() == 4:
        return values.flatten(1, 2)
    G, T, L, H, W = values.shape
    p = group.patch
    cells = values.reshape(G, T, L, H // p, p, W // p, p)
    return cells.permute(0, 1, 2, 3, 5, 4, 6).reshape(G, -1, p * p)


def hidden_questions(
    drawn: Sequence[Drawn],
    grouping: Grouping,
    masks: Sequence[Sequence[Bool]],
    num_queries: int,
    seed: int,
) -> tuple[Hidden, ...]:
    """Return what is asked of a pass: of each observation up to `num_queries` hidden tokens."""
    alike: dict[int, list[tuple[int, int, Any]]] = defaultdict(list)
    for row, one in enumerate(drawn):
        for number, mask in enumerate(masks[row]):
            found = np.flatnonzero(mask)
            if len(found):
                stream = f"asked {number}"
                noise = uniform(seed, np.array([one.position]), stream, len(found))[0]
                group, member = grouping.find(row, number)
                alike[group].append(
                    (row, member, found[noise.argsort(kind="stable")[:num_queries]])
                )
    questions = []
    for group, rows in alike.items():
        most = max(len(found) for *_, found in rows)
        index, asked = np.zeros((len(rows), most), np.int64), np.zeros((len(rows), most), bool)
        for place, (*_, found) in enumerate(rows):
            index[place, : len(found)], asked[place, : len(found)] = found, True
        questions.append(
            Hidden(
                group,
                torch.tensor([row for row, *_ in rows]),
                torch.tensor([member for _, member, _ in rows]),
                torch.from_numpy(index),
                torch.from_numpy(asked),
            )
        )
    return tuple(questions)
