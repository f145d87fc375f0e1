"""Masked tokens: latents read the visible ones, queries ask what the hidden ones held.

Self-supervised pretraining of one model for every sensor (GPNA, roadmap step 3). A query is the
encoding of a hidden token, where and when and at what wavelength it looked; the answer are its
values. Letters: as in `hpcgeo.objectives.multitask`; P values of a token.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpcgeo.data.drawn import Bool, Drawn
from hpcgeo.data.draws import uniform
from hpcgeo.knobs import MaskedTokens
from hpcgeo.models.heads import PixelHead
from hpcgeo.models.perceiver import Perceiver
from hpcgeo.models.tokenizers import Group, Signal, Tokenizer, Tokens
from hpcgeo.objectives.passes import Grouping
from hpcgeo.zoo import PerceiverArchitecture

#: What is hidden together: any tokens, all bands and dates of a place, a date, a band, a sensor.
WAYS = ("tokens", "places", "dates", "bands", "sensors")


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


class MaskedTokensObjective(nn.Module):
    """The error of predicted tokens."""

    methods = ("predict", "error")

    def __init__(
        self,
        architecture: PerceiverArchitecture,
        signals: Sequence[Signal],
        sizes: Sequence[int],
        config: MaskedTokens,
        spread: str = "uniform",
    ) -> None:
        """Build the model.

        Args:
            sizes: every P that tokens may have.
        """
        super().__init__()
        self.config = config
        self.tokenizer = Tokenizer(signals, architecture.context, spread)
        self.backbone = Perceiver(architecture)
        stack = architecture.stack
        self.heads = nn.ModuleDict(
            {
                str(size): PixelHead(stack.width, stack.heads, architecture.context, size)
                for size in sizes
            }
        )

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        return self.backbone.stacks()

    def leaves(self) -> list[nn.Module]:
        """Return the modules whose parts are used without being called."""
        return [self.tokenizer]

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
        latents, where = self._latents(tokens)
        return [self._predicted(one, tokens.groups[one.group], latents, where) for one in hidden]

    def _error(self, tokens: Tokens, hidden: Sequence[Hidden]) -> Tensor:
        latents, where = self._latents(tokens)
        total = latents.float().sum() * 0
        for head in self.heads.values():  # one that is not asked answers for no sample
            total = total + head(latents[:0], latents.new_empty(0, 1, self.tokenizer.width)).sum()
        observations = torch.zeros(len(latents), device=latents.device)
        for one in hidden:
            observations.index_add_(0, one.rows, one.asked.any(1).float())
        for one in hidden:
            group = tokens.groups[one.group]
            values = held(group)[one.members]  # (b, T L h w, P)
            target = values.gather(1, one.index[:, :, None].expand(-1, -1, values.shape[2]))
            squares = (self._predicted(one, group, latents, where) - target).square().mean(2)
            each = (squares * one.asked).sum(1) / one.asked.sum(1).clamp(min=1)
            total = total + (each / observations[one.rows].clamp(min=1)).sum()
        return total

    def _latents(self, tokens: Tokens) -> tuple[Tensor, list[Tensor]]:
        read = self.tokenizer(tokens)
        where = [w.expand_as(grid) for w, grid in zip(read.where, read.grids, strict=True)]
        return self.backbone(read.flat, tokens.layout), where

    def _predicted(
        self, one: Hidden, group: Group, latents: Tensor, where: Sequence[Tensor]
    ) -> Tensor:
        places = where[one.group][one.members].flatten(1, 4)  # (b, T L h w, C)
        queries = places.gather(1, one.index[:, :, None].expand(-1, -1, places.shape[2]))
        size = group.patch**2 * max(1, group.signals[0][2])
        answer: Tensor = self.heads[str(size)](latents[one.rows], queries)
        return answer.float()


def held(group: Group) -> Tensor:
    """Return the values of all tokens of a group, (G, T L h w, P)."""
    values = group.values
    if values.dim() == 4:
        return values.flatten(1, 2)
    G, T, L, H, W = values.shape
    p = group.patch
    cells = values.reshape(G, T, L, H // p, p, W // p, p)
    return cells.permute(0, 1, 2, 3, 5, 4, 6).reshape(G, -1, p * p)


def hide(drawn: Drawn, ratio: float, seed: int) -> tuple[tuple[Bool, ...], tuple[Bool, ...]]:
    """Return which tokens of a sample stay visible, and which are hidden, by observation.

    One of `WAYS` is drawn from (seed, position); whole units of it are hidden until the next would
    leave fewer than 1 - ratio of the tokens, and single tokens make up the rest.
    """
    position = np.array([drawn.position])
    way = WAYS[int(uniform(seed, position, "way", 1)[0, 0] * len(WAYS))]
    sizes = [kept.size for kept in drawn.kept]
    names = np.concatenate([_units(kept, number, way) for number, kept in enumerate(drawn.kept)])
    kept = np.concatenate([part.ravel() for part in drawn.kept])
    units, unit_of = np.unique(names, return_inverse=True)
    order = uniform(seed, position, "hide", len(units))[0].argsort()
    held = np.bincount(unit_of, weights=kept, minlength=len(units))
    budget = int(ratio * kept.sum())
    chosen = np.zeros(len(units), dtype=bool)
    left = float(budget)
    for unit in order:
        if held[unit] <= left:
            chosen[unit] = True
            left -= held[unit]
    hidden = chosen[unit_of] & kept
    rest = np.flatnonzero(kept & ~hidden)
    noise = uniform(seed, position, "rest", len(rest))[0] if len(rest) else np.zeros(0)
    hidden[rest[noise.argsort()[: budget - int(hidden.sum())]]] = True
    parts = np.split(hidden, np.cumsum(sizes)[:-1])
    masks = tuple(part.reshape(k.shape) for part, k in zip(parts, drawn.kept, strict=True))
    return tuple(k & ~m for k, m in zip(drawn.kept, masks, strict=True)), masks


def _units(kept: Bool, number: int, way: str) -> Any:
    """Return the unit that each token of an observation belongs to, as a number."""
    shape = (*kept.shape, 1, 1)[:4]
    t, b, i, j = np.indices(shape).reshape(4, -1)
    units = {
        "tokens": np.arange(kept.size),
        "places": i * shape[3] + j,
        "dates": t,
        "bands": b,
        "sensors": np.zeros(kept.size, dtype=np.int64),
    }[way]
    return units + number * 10**9  # never shared between observations


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
                alike[group].append((row, member, found[noise.argsort()[:num_queries]]))
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
