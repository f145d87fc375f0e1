"""How the predictions of a kind of task are looked at, drawn from what its scoring computed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hpcgeo.kinds.target import Array, Target
from hpcgeo.log import log
from hpcgeo.pictures import pages


class Picture(ABC):
    """A picture of the predictions of a task; `few`: of a few samples, the same every time."""

    few: ClassVar[bool] = False

    def keep(self, views: Callable[[], Sequence[pages.Rgb]], decision: Array) -> Any:
        """Return what is to be shown of a sample beside its label.

        Args:
            views: returns the first and the last date as red, green and blue, (3, H, W) each.
            decision: what was predicted, as a label is.
        """
        return decision

    @abstractmethod
    def draw(self, path: Path, kept: Sequence[Any], truth: Sequence[Array], target: Target) -> None:
        """Write what was kept of at least one sample, and the labels, as PNG."""


class Chips(Picture):
    """Samples row by row: one or two dates, truth, prediction."""

    few = True

    def __init__(self, *titles: str) -> None:
        """Take the title of the only date, or of the first and the last."""
        self.titles = titles

    def keep(self, views: Callable[[], Sequence[pages.Rgb]], decision: Array) -> Any:
        return views(), decision

    def draw(self, path: Path, kept: Sequence[Any], truth: Sequence[Array], target: Target) -> None:
        alike = [number for number, each in enumerate(truth) if each.shape == truth[0].shape]
        columns = {}
        for date, title in enumerate(self.titles):
            images = np.stack([kept[number][0][date] for number in alike])
            columns[title] = pages.stretched(images, images)
        count = len(target.names)
        classes = {"truth": truth, "prediction": [decision for _, decision in kept]}
        for title, each in classes.items():
            columns[title] = pages.coloured(np.stack([each[number] for number in alike]), count)
        legend = {name: pages.colour(number, count) for number, name in enumerate(target.names)}
        pages.page(path, columns, legend)


class Surfaces(Picture):
    """Samples row by row: input, truth and prediction of the first number, dark to light."""

    few = True

    def keep(self, views: Callable[[], Sequence[pages.Rgb]], decision: Array) -> Any:
        return views()[0], decision

    def draw(self, path: Path, kept: Sequence[Any], truth: Sequence[Array], target: Target) -> None:
        alike = [number for number, each in enumerate(truth) if each.shape == truth[0].shape]
        images = np.stack([kept[number][0] for number in alike])
        columns = {"input": pages.stretched(images, images)}
        both = {"truth": truth, "prediction": [decision for _, decision in kept]}
        numbers = {
            title: np.stack([each[number][0] for number in alike]) for title, each in both.items()
        }  # (n, H, W)
        known = numbers["truth"][np.isfinite(numbers["truth"])]
        low, high = np.percentile(known, [1, 99]) if known.size else (0.0, 1.0)
        for title, each in numbers.items():
            columns[title] = pages.shaded(each, low, high).swapaxes(0, 1)
        mean, std = target.mean[0], target.std[0]
        legend = pages.grades(low * std + mean, high * std + mean, target.names[0])
        pages.page(path, columns, legend)


class Scatter(Picture):
    """Numbers against the truth."""

    def draw(self, path: Path, kept: Sequence[Any], truth: Sequence[Array], target: Target) -> None:
        if charts := _charts():
            std, mean = np.array(target.std), np.array(target.mean)
            charts.scatter(
                path, np.stack(truth) * std + mean, np.stack(kept) * std + mean, target.names
            )


class ConfusionMatrix(Picture):
    """How often each class was taken for each."""

    def draw(self, path: Path, kept: Sequence[Any], truth: Sequence[Array], target: Target) -> None:
        if charts := _charts():
            counts = np.zeros((len(target.names), len(target.names)))
            np.add.at(counts, (np.stack(truth), np.stack(kept)), 1)
            charts.confusion(path, counts, target.names)


def _charts() -> Any:
    """Return what draws with matplotlib; None, and a line in the log, without it."""
    try:
        from hpcgeo.pictures import charts

        return charts
    except ImportError as error:
        if error.name != "matplotlib":
            raise
        log.info("no charts without matplotlib: pip install 'hpcgeo[report]'")
        return None
