"""Several tasks at once: one tokenizer, one Perceiver, a head for each task (GPNA, section 4).

Letters: S samples of a pass, b of a question, Q queries, C width of a token, W of a latent, K
outputs of a head.

Every parameter takes part in every pass, whatever tasks and sensors it holds (see `tie`): so all
ranks reduce the same gradients, and a task that is not drawn in a step has a gradient of zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.data.sample import IGNORED, Target
from hpcgeo.knobs import MultiTask
from hpcgeo.models import coordinates
from hpcgeo.models.fourier import encode, frequencies
from hpcgeo.models.heads import PixelHead, VectorHead
from hpcgeo.models.perceiver import Perceiver
from hpcgeo.models.tokenizers import Signal, Tokenizer, Tokens
from hpcgeo.objectives.passes import Question, centres
from hpcgeo.zoo import PerceiverArchitecture

#: Where a pixel lies inside its token: frequencies of the encoding that joins a local query.
INSIDE = (2, 12, 0.5, 4.0)

#: Queries of a sample that are answered at once where memory must not grow with the frame.
CHUNK = 4096


@dataclass(frozen=True)
class Asked:
    """A task of a run.

    Attributes:
        target: what it predicts.
        loss: weight of its loss, where weights are fixed.
        local: whether a pixel's query carries what the tokens near it say.
    """

    target: Target
    loss: float = 1.0
    local: bool = True


class MultiTaskObjective(nn.Module):
    """The losses of all tasks on one backbone."""

    methods = ("predict",)

    def __init__(
        self,
        architecture: PerceiverArchitecture,
        signals: Sequence[Signal],
        tasks: Mapping[str, Asked],
        config: MultiTask,
        spread: str = "uniform",
    ) -> None:
        super().__init__()
        self.tasks, self.config, self.spread = dict(tasks), config, spread
        self.tokenizer = Tokenizer(signals, architecture.context, spread)
        self.backbone = Perceiver(architecture)
        self.heads = nn.ModuleDict({name: head(architecture, one) for name, one in tasks.items()})
        self.log_variance = nn.ParameterDict()
        if config.balance == "uncertainty":
            for name in tasks:
                self.log_variance[f"{name}_log_variance"] = nn.Parameter(torch.empty(1))

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        return self.backbone.stacks()

    def forward(
        self, tokens: Tokens, questions: Sequence[Question], scale: float
    ) -> dict[str, Tensor]:
        """Return the losses of a pass.

        Args:
            tokens: of the pass.
            questions: to the heads.
            scale: passes of the step over samples of the step: so that the mean over passes of
                what is returned is the mean over samples.

        Returns:
            loss, and for each task ``loss/task``, a sum over its samples, and ``share/task``, their
            number, both over all samples; float32.
        """
        latents, read = self._latents(tokens)
        zero = tie(latents, self._alone())
        sums = dict.fromkeys(self.tasks, zero)
        counts = dict.fromkeys(self.tasks, 0)
        for question in questions:
            answer = self._answer(question, tokens, latents, read).float()
            sums[question.task] = sums[question.task] + self._loss(question, answer).sum()
            counts[question.task] += len(question.rows)
        total, scalars = zero, {}
        for name, task in self.tasks.items():
            mean, share = sums[name] * scale, counts[name] * scale
            if self.config.balance == "uncertainty":
                s = self.log_variance[f"{name}_log_variance"][0].float()
                total = total + (-s).exp() * mean + share * s / 2
            else:
                total = total + task.loss * mean
            scalars[f"loss/{name}"] = mean
            scalars[f"share/{name}"] = torch.tensor(share, device=latents.device)
        return {"loss": total, **scalars}

    @torch.no_grad()
    def predict(self, tokens: Tokens, questions: Sequence[Question]) -> list[Tensor]:
        """Return the answers (b, K), or of dense tasks (b, K, H, W) for all pixels, by question."""
        latents, read = self._latents(tokens)
        answers = []
        for question in questions:
            answer = self._answer(question, tokens, latents, read).float()
            if question.frame != (0, 0):
                answer = answer.transpose(1, 2).reshape(len(answer), -1, *question.frame)
            answers.append(answer)
        return answers

    def _latents(self, tokens: Tokens) -> tuple[Tensor, list[Tensor]]:
        flat, read = self.tokenizer(tokens)
        return self.backbone(flat, tokens.layout), read

    def _answer(
        self, question: Question, tokens: Tokens, latents: Tensor, read: Sequence[Tensor]
    ) -> Tensor:
        head: Any = self.heads[question.task]
        own = latents[question.rows]
        if question.members is None:
            answer: Tensor = head(own)
            return answer
        grid = read[question.group][question.members]  # (b, T, L, h, w, C)
        there = tokens.groups[question.group].there()[question.members]
        local = self.tasks[question.task].local
        if question.queries is not None:
            queries = question.queries
            near = nearby(grid, there, queries) if local else None
            return head(own, features(queries, question.frame, self.spread), near)
        pixels = torch.arange(question.frame[0] * question.frame[1], device=latents.device)
        parts = []
        for some in torch.split(pixels, CHUNK):
            queries = centres(some, question.frame).expand(len(own), -1, -1)
            near = nearby(grid, there, queries) if local else None
            given = features(queries, question.frame, self.spread)
            parts.append(head(own, given, near))
        return torch.cat(parts, dim=1)

    def _loss(self, question: Question, answer: Tensor) -> Tensor:
        """Return the loss of each sample, (b,)."""
        kind, target = self.tasks[question.task].target.kind, question.target
        if kind == "regression":
            known = target.isfinite()
            squares = (answer - target.nan_to_num()).square() * known
            return squares.sum(1) / known.sum(1).clamp(min=1)
        if kind == "multilabel":
            return F.binary_cross_entropy_with_logits(answer, target, reduction="none").mean(1)
        if kind == "classification":
            return F.cross_entropy(answer, target, reduction="none")
        each = F.cross_entropy(
            answer.transpose(1, 2), target, ignore_index=IGNORED, reduction="none"
        )  # (b, Q)
        return each.sum(1) / (target != IGNORED).sum(1).clamp(min=1)

    def _alone(self) -> Iterable[nn.Parameter]:
        """Return the parameters that a pass may not touch."""
        for module in (self.tokenizer, self.heads, self.log_variance):
            yield from module.parameters()


def head(architecture: PerceiverArchitecture, task: Asked) -> nn.Module:
    """Return the head of a task."""
    stack, outputs = architecture.stack, len(task.target.names)
    if task.target.kind in ("segmentation", "change"):
        near = 2 * architecture.context + 2 * INSIDE[1] if task.local else 0
        width = coordinates.WIDTHS["frame"]
        return PixelHead(stack.width, stack.heads, width, outputs, local=near)
    return VectorHead(stack.width, stack.heads, outputs)


def features(queries: Tensor, frame: tuple[int, int], spread: str) -> Tensor:
    """Return the features (b, Q, F) of pixels at (b, Q, 2): their place in the frame."""
    half = 0.5 / torch.tensor(frame, dtype=torch.float64, device=queries.device)
    return coordinates.frame(queries, half.expand_as(queries), spread)


def nearby(grid: Tensor, there: Tensor, queries: Tensor) -> Tensor:
    """Return what the tokens around pixels say, and where in its token each pixel lies.

    Tokens are averaged over bands and interpolated between the four nearest, of those that are
    there; where none is, zeros. Of several dates the first and the last with any stand side by
    side: a change is their difference.

    Args:
        grid: (b, T, L, h, w, C)
        there: (b, T, L, h, w) which of them are not missing.
        queries: (b, Q, 2)

    Returns:
        (b, Q, 2 C + F)
    """
    h, w = grid.shape[3:5]
    some = there.flatten(2).any(2)  # (b, T)
    number = torch.arange(some.shape[1], device=some.device) * some
    dates = torch.stack([some.int().argmax(1), number.argmax(1)], dim=1)  # (b, 2)
    sample = torch.arange(len(some), device=some.device)[:, None]
    weight = there[sample, dates][..., None]  # (b, 2, L, h, w, 1)
    count = weight.sum(2)  # (b, 2, h, w, 1)
    maps = (grid[sample, dates] * weight).sum(2) / count.clamp(min=1)  # (b, 2, h, w, C)
    maps = torch.cat([maps, (count > 0).to(maps.dtype)], dim=-1)
    maps = maps.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (b, 2 (C + 1), h, w)
    places = (2 * queries.flip(-1) - 1).to(maps.dtype)[:, :, None]  # (b, Q, 1, 2): right, down
    said = F.grid_sample(maps, places, padding_mode="border", align_corners=False)[..., 0]
    said = said.unflatten(1, (2, -1))  # (b, 2, C + 1, Q)
    said = (said[:, :, :-1] / said[:, :, -1:].clamp(min=1e-6)).flatten(1, 2)
    cells = queries * torch.tensor([h, w], dtype=queries.dtype, device=queries.device)
    inside = encode(
        cells - cells.floor(), torch.zeros_like(cells), frequencies(*INSIDE).to(cells.device)
    )
    return torch.cat([said.transpose(1, 2), inside.to(said.dtype)], dim=-1)


def tie(latents: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return a zero that depends on all parameters, so that each has a gradient in every pass."""
    zero = latents.float().sum() * 0
    for parameter in parameters:
        zero = zero + parameter.float().sum() * 0
    return zero
