"""Samples of five generated tasks, and what a pass of them gives, step by step."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hpcgeo.data.labelled import TaskSet, open_tasks
from hpcgeo.data.labelled_batches import Drawn, plain
from hpcgeo.data.sample import Channel, Observation
from hpcgeo.data.sampling.packing import passes
from hpcgeo.models.initialise import draw
from hpcgeo.models.perceiver import PerceiverBackbone
from hpcgeo.objectives.collate import questions, tokens, whole
from hpcgeo.objectives.masked_tokens.network import MaskedTokensNetwork, hidden_questions
from hpcgeo.objectives.masked_tokens.objective import MaskedTokensOptions
from hpcgeo.objectives.masking import hide
from hpcgeo.objectives.multitask.network import Asked, MultiTaskNetwork
from hpcgeo.objectives.multitask.objective import MultiTaskOptions
from hpcgeo.options import Batching
from hpcgeo.workloads.mixture import band_of
from hpcgeo.zoo import PerceiverArchitecture, architecture

#: Pixels on a side of a token, by task.
PATCHES = {"scenes": 8, "tiles": 4, "series": 1, "table": 1, "pairs": 4}
TINY = architecture("gpna_tiny")
KNOWN = partial(band_of, None)
PADDING = Batching(mode="padding")


@cache
def sets(split: str = "train") -> dict[str, TaskSet]:
    return {
        name: open_tasks("generated", Path(name), split=split, patch=patch, size=16)
        for name, patch in PATCHES.items()
    }


def channels() -> list[Channel]:
    return sorted({channel for part in sets().values() for channel in part.channels})


def drawn(*names: str, first: int = 0) -> list[Drawn]:
    """Return a sample of each of these tasks, by default two of every one."""
    found = []
    for number, name in enumerate(names or [*PATCHES, *reversed(PATCHES)], first):
        one = plain(sets()[name].read(number), name, number)
        found.append(replace(one, position=number))
    return found


def raw(one: Drawn) -> tuple[Observation, ...]:
    """Return what was observed, NaN where it is missing."""
    return sets()[one.task].read(one.index).observations


def again(one: Drawn, *observations: Observation) -> Drawn:
    """Return a sample with other observations, its missing tokens found anew."""
    found = plain(replace(one.sample, observations=observations), one.task, one.index)
    return replace(found, position=one.position)


def initialised(objective: Any) -> Any:
    for name, parameter in objective.named_parameters():
        parameter.data.copy_(draw(name, parameter.shape, slice(None), 3))
    return objective


def multitask(
    architecture: PerceiverArchitecture = TINY, local: bool = True, **options: Any
) -> MultiTaskNetwork:
    tasks = {name: Asked(part.target, 1.0, local) for name, part in sets().items()}
    config = MultiTaskOptions(name="multitask", **options)
    return initialised(
        MultiTaskNetwork(PerceiverBackbone(architecture, channels(), "uniform"), tasks, config)
    )


def masked(architecture: PerceiverArchitecture = TINY, **options: Any) -> MaskedTokensNetwork:
    config = MaskedTokensOptions(name="masked_tokens", **options)
    return initialised(MaskedTokensNetwork(architecture, channels(), [1, 16, 64], config))


def inputs(
    objective: Any, some: Sequence[Drawn], batching: Batching = PADDING, seed: int = 0
) -> dict[str, Any]:
    """Return what an objective takes of a pass, beside `scale`."""
    if isinstance(objective, MultiTaskNetwork):
        made, grouping = tokens(some, batching, KNOWN, whole(some))
        return {"tokens": made, "questions": questions(some, grouping, 32, seed)}
    ratio, queries = objective.config.mask_ratio, objective.config.queries
    parts = [hide(one, ratio, seed) for one in some]
    made, grouping = tokens(some, batching, KNOWN, [visible for visible, _ in parts])
    asked = hidden_questions(some, grouping, [hidden for _, hidden in parts], queries, seed)
    return {"tokens": made, "hidden": asked}


def learn(
    objective: Any, some: Sequence[Drawn], batching: Batching, more: int = 0
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the scalars of a step and its gradients, split into passes as `batching` says."""
    lengths = [one.length for one in some]
    fewest = passes(lengths, batching.max_tokens)
    parts = passes(lengths, batching.max_tokens, len(fewest) + more)
    return split(objective, some, batching, parts)


def split(
    objective: Any, some: Sequence[Drawn], batching: Batching, parts: Sequence[Sequence[int]]
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return the scalars and gradients of a step of these passes."""
    objective.zero_grad()
    totals: dict[str, float] = {}
    for part in parts:
        given = inputs(objective, [some[i] for i in part], batching)
        scalars = objective(**given, scale=len(parts) / len(some))
        (scalars["loss"] / len(parts)).backward()
        for name, value in scalars.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach()) / len(parts)
    gradients = {name: value.grad.clone() for name, value in objective.named_parameters()}
    return totals, gradients


def one_by_one(objective: Any, some: Sequence[Drawn]) -> Any:
    """As `learn`, every sample alone."""
    return split(objective, some, PADDING, [[number] for number in range(len(some))])


def assert_same(found: Any, expected: Any, atol: float = 1e-5) -> None:
    (scalars, gradients), (theirs, their_gradients) = found, expected
    assert scalars.keys() == theirs.keys()
    for name, value in scalars.items():
        assert abs(value - theirs[name]) < atol, name
    for name, gradient in gradients.items():
        difference = float((gradient - their_gradients[name]).abs().max())
        assert difference < atol, (name, difference)


def answers(objective: Any, some: Sequence[Drawn], batching: Batching = PADDING) -> list[Tensor]:
    """Return what is predicted for each sample; of dense tasks for all pixels."""
    made, grouping = tokens(some, batching, KNOWN, whole(some))
    asked = questions(some, grouping, None, 0)
    found: list[Any] = [None] * len(some)
    for question, answer in zip(asked, objective.predict(made, asked), strict=True):
        for row, own in zip(question.rows.tolist(), answer, strict=True):
            found[row] = own
    return found


def worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def missing(shape: tuple[int, ...]) -> Any:
    return np.full(shape, np.nan, dtype=np.float32)
