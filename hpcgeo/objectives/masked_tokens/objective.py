"""Masked tokens: its options, and what it takes of samples of any sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from hpcgeo.objectives.objective import (
    TASKS,
    Inputs,
    Material,
    Objective,
    ObjectiveOptions,
    SampleBatch,
)
from hpcgeo.options import Task

if TYPE_CHECKING:
    from torch import nn

    from hpcgeo.data.labelled_batches import Bool, Drawn

#: How much larger than usual a parameter begins, by the end of its name. A token is a sum of
#: which little differs within a sample, and a query begins by reading the mean of its context: so
#: prediction stays for hundreds of steps at the mean of the sample, unless places, dates and names
#: of bands begin louder and queries sharper. Labels are learned the worse for it (docs/gpna.md).
LARGER = {
    "attention.q.weight": 4,
    "encodings.frame.weight": 3,
    "encodings.ground.weight": 3,
    "encodings.moment.weight": 3,
    "flags.weight": 4,
    "own_token": 30,
}


class MaskedTokensOptions(ObjectiveOptions):
    """Predict what masked tokens hold, by queries, without labels (GPNA, roadmap step 3)."""

    name: Literal["masked_tokens"]
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="fraction of tokens that is hidden")
    queries: PositiveInt = Field(
        128, description="hidden tokens of a sample that are predicted, at random"
    )
    unnamed: float = Field(
        0.1, ge=0, le=1, description="as of multitask: bands read by the stem of unknown ones"
    )


class MaskedTokens(Objective):
    """Masked tokens of all samples, without their labels."""

    title = "predict what hidden tokens of any sensor hold, without labels (GPNA)"
    Options = MaskedTokensOptions
    backbones = ("perceiver",)
    data = (TASKS,)
    options: MaskedTokensOptions

    @property
    def unnamed(self) -> float:  # type: ignore[override]
        return self.options.unnamed

    def gain(self, name: str) -> float:
        return next((gain for end, gain in LARGER.items() if name.endswith(end)), 1)

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.masked_tokens.network import MaskedTokensNetwork

        assert material.tasks is not None and material.sets is not None
        sizes = {task.patch**2 for task in material.tasks.values()} | {1}
        sizes |= {length for *_, length in material.channels if length}
        sizes |= {patch**2 for part in material.sets.values() for patch in part.patches}
        return MaskedTokensNetwork(
            material.architecture, material.channels, sorted(sizes), self.options, material.density
        )

    def visible(self, drawn: Sequence[Drawn], tasks: Mapping[str, Task]) -> list[tuple[Bool, ...]]:
        from hpcgeo.objectives.masking import hide

        return [hide(one, self.options.mask_ratio, self.seed)[0] for one in drawn]

    def task_inputs(self, batch: SampleBatch) -> Inputs:
        from hpcgeo.data.sample import UNKNOWN
        from hpcgeo.objectives.masked_tokens.network import hidden_questions

        # The sample's own token does not say how high it lies: that may be what is hidden.
        drawn = batch.drawn
        nowhere = [replace(one, sample=replace(one.sample, elevation_m=UNKNOWN)) for one in drawn]
        made, grouping = batch.collate(nowhere, batch.visible)
        masks = [
            tuple(kept & ~seen for kept, seen in zip(one.kept, parts, strict=True))
            for one, parts in zip(drawn, batch.visible, strict=True)
        ]
        asked = hidden_questions(drawn, grouping, masks, self.options.queries, self.seed)
        return {"tokens": made, "hidden": asked}
