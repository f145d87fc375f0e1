"""Several tasks at once: one backbone, a head for each task (GPNA, section 4).

Letters: S samples of a pass, b of a question, Q queries, C width of a token, W of a latent, K
outputs of a head.

Backbone and heads are each called once in a pass, and every parameter takes part in it,
whatever tasks and sensors it holds (`hpcgeo.models.tokenizers.zero_of`). So all ranks run the same
collectives, and a task that is not drawn in a step has a gradient of zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.models import coordinates
from hpcgeo.models.backbone import Backbone
from hpcgeo.models.features import Features
from hpcgeo.models.fourier import encode, frequencies
from hpcgeo.models.heads import ATTENTIVE, PixelHead, sample_head
from hpcgeo.models.tokenizers import Tokens, zero_of
from hpcgeo.objectives.collate import Question, centres
from hpcgeo.objectives.multitask.objective import MultiTaskOptions

#: Where a pixel lies inside its token: frequencies of the encoding that joins a local query.
INSIDE = (2, 12, 0.5, 4.0)

#: Queries of all samples that are answered at once where memory must not grow with the frame.
CHUNK = 2**16


@dataclass(frozen=True)
class Asked:
    """A task of a run.

    Attributes:
        target: what it predicts.
        loss: weight of its loss, where weights are fixed.
        local: whether a pixel's query carries what the tokens near it say.
        head: what answers for whole samples (`hpcgeo.models.heads.HEADS`).
    """

    target: Target
    loss: float = 1.0
    local: bool = True
    head: str = ATTENTIVE


class MultiTaskNetwork(nn.Module):
    """The losses of all tasks on one backbone."""

    methods = ("predict",)

    def __init__(
        self,
        backbone: Any,
        tasks: Mapping[str, Asked],
        config: MultiTaskOptions,
        density: str = "uniform",
    ) -> None:
        """Build heads on a backbone, a module that is a `Backbone`."""
        super().__init__()
        self.tasks, self.config = dict(tasks), config
        self.kinds = {name: kind_of(task.target) for name, task in tasks.items()}
        self.backbone = backbone
        self.heads = Heads(backbone, tasks, density)
        if config.balance == "uncertainty":
            self.log_variance = nn.Parameter(torch.empty(len(tasks)))

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
            loss, and for each task ``loss/task``, a sum over its samples, and ``samples/task``,
            their number, both over all samples; float32.
        """
        answers, zero = self._answers(tokens, questions)
        sums = dict.fromkeys(self.tasks, zero)
        counts = dict.fromkeys(self.tasks, 0)
        for question, answer in zip(questions, answers, strict=True):
            losses = self.kinds[question.task].loss(answer, question.target)  # (b,)
            sums[question.task] = sums[question.task] + losses.sum()
            counts[question.task] += len(question.rows)
        total, scalars = zero, {}
        for number, (name, task) in enumerate(self.tasks.items()):
            mean, share = sums[name] * scale, counts[name] * scale
            if self.config.balance == "uncertainty":
                s = self.log_variance[number].float()
                total = total + (-s).exp() * mean + share * s / 2
            else:
                total = total + task.loss * mean
            scalars[f"loss/{name}"] = mean.detach()
            scalars[f"samples/{name}"] = mean.new_full((), share)
        return {"loss": total, **scalars}

    @torch.no_grad()
    def predict(self, tokens: Tokens, questions: Sequence[Question]) -> list[Tensor]:
        """Return the answers (b, K), or of dense tasks (b, K, H, W) for all pixels, by question."""
        answers, _ = self._answers(tokens, questions)
        return [
            answer.transpose(1, 2).reshape(len(answer), -1, *question.frame)
            if question.members is not None
            else answer
            for question, answer in zip(questions, answers, strict=True)
        ]

    def _answers(
        self, tokens: Tokens, questions: Sequence[Question]
    ) -> tuple[list[Tensor], Tensor]:
        """Return the answers (b, K) or (b, Q, K), and a zero of all parameters."""
        found = self.backbone.encode(tokens)
        answers, zero = self.heads(found, questions)
        return answers, zero + found.latents.float().sum() * 0


class Heads(nn.ModuleDict):
    """A head for every task."""

    def __init__(self, backbone: Backbone, tasks: Mapping[str, Asked], density: str) -> None:
        super().__init__({name: head(backbone, task) for name, task in tasks.items()})
        self.local = {name: task.local for name, task in tasks.items()}
        self.density = density

    def forward(
        self,
        found: Features,
        questions: Sequence[Question],
    ) -> tuple[list[Tensor], Tensor]:
        """Return the answers to each question, and a zero of all heads.

        Args:
            found: what the backbone says of the samples.
            questions: to the heads.

        Returns:
            (b, K) or (b, Q, K) of each question, float32.
        """
        answers = []
        for question in questions:
            if question.members is None:
                answers.append(self._whole(question, found).float())
                continue
            own = found.latents[question.rows]
            of = question.members
            maps = None
            if self.local[question.task]:
                grid, there = found.grids[question.group], found.there[question.group]
                maps = surroundings(grid[of], there[of])
            answers.append(self._pixels(question, own, maps).float())
        return answers, zero_of(self)

    def _whole(self, question: Question, found: Features) -> Tensor:
        """Return the answers (b, K) for whole samples."""
        head: Any = self[question.task]
        answer: Tensor = head(getattr(found, head.reads)[question.rows])
        return answer

    def _pixels(self, question: Question, own: Tensor, maps: Tensor | None) -> Tensor:
        """Return the answers (b, Q, K) for some pixels, or for all, a chunk of them at a time."""
        if question.queries is not None:
            return self._some(question, own, maps, question.queries)
        H, W = question.frame
        some = max(1, CHUNK // max(1, len(own)))
        chunks = torch.split(torch.arange(H * W, device=own.device), some)
        places = (centres(chunk, (H, W)).expand(len(own), -1, -1) for chunk in chunks)
        return torch.cat([self._some(question, own, maps, some) for some in places], dim=1)

    def _some(
        self, question: Question, own: Tensor, maps: Tensor | None, queries: Tensor
    ) -> Tensor:
        near = None if maps is None else nearby(maps, queries)
        return self[question.task](own, features(queries, question.frame, self.density), near)


def head(backbone: Backbone, task: Asked) -> nn.Module:
    """Return the head of a task."""
    outputs = len(task.target.names)
    if kind_of(task.target).dense:
        near = 2 * backbone.context + 2 * INSIDE[1] if task.local else 0
        width = coordinates.WIDTHS["frame"]
        return PixelHead(backbone.width, backbone.heads, width, outputs, local=near)
    return sample_head(task.head, backbone, outputs)


def features(queries: Tensor, frame: tuple[int, int], density: str) -> Tensor:
    """Return the features (b, Q, F) of pixels at (b, Q, 2): their place in the frame."""
    half = torch.stack([queries.new_full((), 0.5 / size, dtype=torch.float64) for size in frame])
    return coordinates.frame(queries, half, density)


@cache
def _inside(device: torch.device) -> Tensor:
    return frequencies(*INSIDE).to(device)


def surroundings(grid: Tensor, there: Tensor) -> Tensor:
    """Return maps of what tokens say: averaged over the bands that are there, on two dates.

    Of several dates the first and the last with any token stand side by side: a change is their
    difference.

    Args:
        grid: (b, T, L, h, w, C)
        there: (b, T, L, h, w) which of them are not missing.

    Returns:
        (b, 2, C + 1, h, w), float32; the last channel is 1 where a token is there, else all are 0.
    """
    some = there.flatten(2).any(2)  # (b, T)
    number = torch.arange(some.shape[1], device=some.device) * some
    dates = torch.stack([some.int().argmax(1), number.argmax(1)], dim=1)  # (b, 2)
    sample = torch.arange(len(some), device=some.device)[:, None]
    weight = there[sample, dates][..., None].float()  # (b, 2, L, h, w, 1)
    count = weight.sum(2)  # (b, 2, h, w, 1)
    mean = (grid[sample, dates].float() * weight).sum(2) / count.clamp(min=1)  # (b, 2, h, w, C)
    return torch.cat([mean, (count > 0).float()], dim=-1).permute(0, 1, 4, 2, 3)


def nearby(maps: Tensor, queries: Tensor) -> Tensor:
    """Return what the tokens around pixels say, and where in its token each pixel lies.

    Interpolated between the four nearest, of those that are there; where none is, zeros. In
    float32: bfloat16 has not the digits for the place of a pixel.

    Args:
        maps: as of `surroundings`, (b, 2, C + 1, h, w).
        queries: (b, Q, 2)

    Returns:
        (b, Q, 2 C + F)
    """
    h, w = maps.shape[-2:]
    places = (2 * queries.flip(-1) - 1).float()[:, :, None]  # (b, Q, 1, 2): right, down
    said = F.grid_sample(
        maps.flatten(1, 2), places, padding_mode="border", align_corners=False
    )  # (b, 2 (C + 1), Q, 1)
    said = said.reshape(len(maps), 2, -1, queries.shape[1])
    said = (said[:, :, :-1] / said[:, :, -1:].clamp(min=1e-6)).flatten(1, 2)  # (b, 2 C, Q)
    cells = queries * torch.stack([queries.new_full((), size) for size in (h, w)])
    inside = encode(cells - cells.floor(), cells.new_zeros(2), _inside(cells.device))
    return torch.cat([said.transpose(1, 2), inside], dim=-1)
