"""Runs on masked tokens of all samples of a mixture, without their labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from hpcgeo.config import RunConfig
from hpcgeo.data.labelled_batches import Bool, Drawn
from hpcgeo.data.sample import UNKNOWN
from hpcgeo.objectives.collate import tokens
from hpcgeo.objectives.masked_tokens import LARGER, MaskedTokensObjective, hidden_questions, hide
from hpcgeo.options import MaskedTokens
from hpcgeo.parallel.engine import Engine, Inputs
from hpcgeo.parallel.topology import Topology
from hpcgeo.workloads.mixture import MixtureRun, moved_all
from hpcgeo.workloads.scores import errors, keep
from hpcgeo.workloads.workload import Alive


class MaskedRun(MixtureRun):
    """Masked tokens of all samples, without their labels."""

    def __init__(self, run: RunConfig) -> None:
        super().__init__(run)
        assert isinstance(run.objective, MaskedTokens)
        self.options = run.objective

    @property
    def unnamed(self) -> float:
        return self.options.unnamed

    def law(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        gain = next((gain for end, gain in LARGER.items() if name.endswith(end)), 1)
        return gain * super().law(name, shape, rows)

    def objective(self) -> MaskedTokensObjective:
        sizes = {task.patch**2 for task in self.data.chosen.values()} | {1}
        sizes |= {length for *_, length in self.channels if length}
        sizes |= {patch**2 for part in self.sets.values() for patch in part.patches}
        spread = self.run.model.spread
        return MaskedTokensObjective(self.model, self.channels, sorted(sizes), self.options, spread)

    def visible(self, drawn: Sequence[Drawn]) -> list[tuple[Bool, ...]]:
        return [self._hide(one)[0] for one in drawn]

    def inputs(self, drawn: Sequence[Drawn], visible: Sequence[tuple[Bool, ...]]) -> Inputs:
        # The sample's own token does not say how high it lies: that may be what is hidden.
        nowhere = [replace(one, sample=replace(one.sample, elevation_m=UNKNOWN)) for one in drawn]
        made, grouping = tokens(nowhere, self.data.batching, self.bands, visible)
        masks = [
            tuple(kept & ~seen for kept, seen in zip(one.kept, parts, strict=True))
            for one, parts in zip(drawn, visible, strict=True)
        ]
        asked = hidden_questions(drawn, grouping, masks, self.options.queries, self.run.seed)
        return {"tokens": made, "hidden": asked}

    def evaluate(
        self, engine: Engine, topology: Topology, folder: Path, step: int, alive: Alive
    ) -> None:
        """Say how well hidden tokens of the validation parts are predicted.

        The same ones are hidden at every look. A data set without a validation part has no say.
        """

        def error(drawn: Sequence[Drawn]) -> float:
            total = 0.0
            for part in self.split([one.length for one in drawn], topology.device):
                alive()
                some = [drawn[row] for row in part]
                inputs = moved_all(self.inputs(some, self.visible(some)), topology.device)
                total += float(engine.evaluate("error", inputs))
            return total

        found = errors(error, self.part("validation"), topology, self.run.train.micro_batch)
        keep(found, topology, folder, step)

    def _hide(self, one: Drawn) -> tuple[tuple[Bool, ...], tuple[Bool, ...]]:
        return hide(one, self.options.mask_ratio, self.run.seed)
