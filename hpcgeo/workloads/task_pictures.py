"""Pictures of how each task does, drawn from what its scoring computed: nothing is computed again.

What they show, the kind of the task says (`hpcgeo.kinds.pictures`).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.labelled_batches import Drawn
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.parallel.topology import Topology
from hpcgeo.pictures import pages
from hpcgeo.sensors import sensors

NUM_SAMPLES = 6


class Album:
    """The pictures of one evaluation; every rank has one, and rank 0 draws."""

    def __init__(self, folder: Path, step: int, topology: Topology) -> None:
        """Begin an album.

        Args:
            folder: of the run; pictures lie in ``pictures/`` under the names of tasks and step.
            step: of the evaluation.
            topology: of the ranks that score.
        """
        self._folder, self._step, self._topology = folder / "pictures", step, topology
        self._seen: dict[int, Any] = {}

    def add(self, part: TaskSet, drawn: Sequence[Drawn], answer: Tensor) -> None:
        """Keep what is to be shown of samples (b,) and the answers to them, (b, ...)."""
        kind = kind_of(part.target)
        if (picture := kind.picture) is None:
            return
        few = set(pages.spread_out(NUM_SAMPLES, len(part)).tolist())
        for row, one in enumerate(drawn):
            if not picture.few or one.index in few:
                decision = kind.decide(answer[row : row + 1])[0].cpu().numpy()
                kept = picture.keep(partial(_views, one), decision)
                self._seen[one.index] = (kept, one.sample.target)

    def draw(self, task: str, target: Target) -> None:
        """Draw what was kept of a task; every rank calls it together."""
        seen, self._seen = self._seen, {}
        parts: list[dict[int, Any]] = [{} for _ in range(dist.get_world_size())]
        dist.gather_object(seen, parts if self._topology.rank == 0 else None)
        together = {index: kept for part in parts for index, kept in part.items()}
        picture = kind_of(target).picture
        if self._topology.rank == 0 and picture and together:
            kept, truth = zip(*(together[index] for index in sorted(together)), strict=True)
            picture.draw(self._folder / f"{task}-step-{self._step:08d}.png", kept, truth, target)


def _views(one: Drawn) -> list[pages.Rgb]:
    """Return first and last date of the first observation as red, green, blue, (3, H, W) each."""
    seen = one.sample.observations[0]
    sensor = seen.channels[0].sensor
    bands = [channel.band for channel in seen.channels]
    shown = pages.visible(bands, sensor if sensor in sensors() else None)
    return [seen.values[date][shown] for date in (0, -1)]
