"""Pictures of how each task does, drawn from what its scoring computed: nothing is computed again.

Of dense tasks the same few samples every time: input, truth, prediction. Of numbers a scatter
against the truth, of classes a confusion matrix, where matplotlib is installed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.labelled_batches import Drawn
from hpcgeo.data.sample import Float64, Target
from hpcgeo.log import log
from hpcgeo.parallel.topology import Topology
from hpcgeo.sensors import sensors
from hpcgeo.workloads import pictures

NUM_SAMPLES = 6
DENSE = ("segmentation", "change")


class Album:
    """The pictures of one look; every rank has one, and rank 0 draws."""

    def __init__(self, folder: Path, step: int, topology: Topology) -> None:
        """Begin an album.

        Args:
            folder: of the run; pictures lie in ``pictures/`` under the names of tasks and step.
            step: of the look.
            topology: of the ranks that score.
        """
        self._folder, self._step, self._topology = folder / "pictures", step, topology
        self._seen: dict[int, Any] = {}

    def add(self, part: TaskSet, drawn: Sequence[Drawn], decisions: Float64) -> None:
        """Keep what is to be shown of samples and what was decided on them, (b, ...)."""
        kind = part.target.kind
        shown = set(pictures.spread_out(NUM_SAMPLES, len(part)).tolist())
        for one, decision in zip(drawn, decisions, strict=True):
            if kind in DENSE and one.index in shown:
                self._seen[one.index] = (_views(one), one.sample.target, decision)
            elif kind == "regression":
                self._seen[one.index] = (one.sample.target, decision)

    def draw(self, task: str, target: Target, sums: Float64) -> None:
        """Draw what was kept of a task; every rank calls it together.

        Args:
            task: its name.
            target: of the task.
            sums: of its metrics, over all ranks.
        """
        seen, self._seen = self._seen, {}
        parts: list[dict[int, Any]] = [{} for _ in range(dist.get_world_size())]
        dist.gather_object(seen, parts if self._topology.rank == 0 else None)
        if self._topology.rank != 0:
            return
        together = {index: kept for part in parts for index, kept in part.items()}
        found = [together[index] for index in sorted(together)]
        path = self._folder / f"{task}-step-{self._step:08d}.png"
        if target.kind in DENSE and found:
            _dense(path, found, target)
        elif target.kind == "regression" and found and (charts := _charts()):
            std, mean = np.array(target.std), np.array(target.mean)
            truth, predicted = (np.stack(each) * std + mean for each in zip(*found, strict=True))
            charts.scatter(path, truth, predicted, target.names)
        elif target.kind == "classification" and (charts := _charts()):
            charts.confusion(path, sums.reshape(len(target.names), -1), target.names)


def _views(one: Drawn) -> list[pictures.Picture]:
    """Return first and last date of the first observation as red, green, blue, (3, H, W) each."""
    seen = one.sample.observations[0]
    sensor = seen.channels[0].sensor
    bands = [channel.band for channel in seen.channels]
    shown = pictures.visible(bands, sensor if sensor in sensors() else None)
    return [seen.values[date][shown] for date in (0, -1)]


def _dense(path: Path, found: Sequence[Any], target: Target) -> None:
    """Draw samples, of one size, row by row."""
    shape = found[0][1].shape
    alike = [each for each in found if each[1].shape == shape]
    first, last = (np.stack([each[0][date] for each in alike]) for date in (0, 1))
    inputs = {"before": first, "after": last} if target.kind == "change" else {"input": first}
    columns = {title: pictures.stretched(images, images) for title, images in inputs.items()}
    count = len(target.names)
    for title, number in (("truth", 1), ("prediction", 2)):
        classes = np.stack([each[number] for each in alike])
        columns[title] = pictures.coloured(classes, count)
    legend = {name: pictures.colour(number, count) for number, name in enumerate(target.names)}
    pictures.page(path, columns, legend)


def _charts() -> Any:
    """Return what draws with matplotlib; None, and a line in the log, without it."""
    try:
        from hpcgeo.workloads import charts

        return charts
    except ImportError as error:
        if error.name != "matplotlib":
            raise
        log.info("no charts without matplotlib: pip install 'hpcgeo[report]'")
        return None
