"""What a model was shown in training, kept in the folder of its run: those who use it need no data.

preparation.json holds for each task what it predicts, its bands with mean and deviation, and what
its samples look like.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.sample import Channel, Sample
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.kinds.target import Target
from hpcgeo.options import Task

NAME = "preparation.json"

#: Samples that are looked at, spread over the training split.
SAMPLED = 16


class PreparedBand(NamedTuple):
    """A band with the mean and deviation of its values."""

    sensor: str
    band: str
    length: int
    mean: float
    std: float

    @property
    def channel(self) -> Channel:
        """The band."""
        return Channel(self.sensor, self.band, self.length)


class PreparedTask(BaseModel):
    """How the samples of a task are prepared.

    Attributes:
        target: what it predicts.
        bands: every one that samples may hold, standardised by these numbers.
        patch: pixels on a side of a token of an image.
        patches: those of single sensors, beside it.
        chip: height and width of the first image of a sample; None: they hold none.
        dates: of that image.
        gsd_m: the smallest and largest pixels of that image, in metres; None: not known.
        timed, placed: whether samples say when and where they were observed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Target
    bands: tuple[PreparedBand, ...]
    patch: PositiveInt
    patches: frozenset[PositiveInt] = frozenset()
    chip: tuple[PositiveInt, PositiveInt] | None
    dates: PositiveInt
    gsd_m: tuple[float, float] | None
    timed: bool
    placed: bool

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Every band that any sample may hold."""
        return tuple(band.channel for band in self.bands)


class Preparation(BaseModel):
    """How the samples of all tasks of a run are prepared, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: dict[str, PreparedTask]


def preparation_of(sets: Mapping[str, TaskSet], tasks: Mapping[str, Task]) -> Preparation:
    """Return how samples are prepared, from the training splits of the tasks of a run."""
    return Preparation(
        tasks={name: _prepared(name, part, tasks[name]) for name, part in sets.items()}
    )


def keep_preparation(preparation: Preparation, folder: Path) -> None:
    """Leave it in the folder of a run."""
    write_text(folder / NAME, preparation.model_dump_json(indent=1) + "\n")


def kept_preparation(folder: Path) -> Preparation | None:
    """Return what is kept in the folder of a run; None: nothing is, it is older.

    Raises:
        InputError: it is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return Preparation.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise InputError(
            f"{path} is not as it was written: remove it, and the data of the run is read instead"
        ) from None


def _prepared(name: str, part: TaskSet, task: Task) -> PreparedTask:
    samples = _some(name, part)
    first = [one.observations[0] for one in samples]
    images = [seen for seen in first if seen.values.ndim == 4]
    sizes = [seen.gsd_m for seen in images if np.isfinite(seen.gsd_m)]
    moments = part.moments
    height, width = images[0].values.shape[2:] if images else (0, 0)
    return PreparedTask(
        target=part.target,
        bands=tuple(
            PreparedBand(*channel, *map(float, moments[channel])) for channel in part.channels
        ),
        patch=images[0].patch if images else task.patch,
        patches=part.patches,
        chip=(height, width) if images else None,
        dates=max(len(seen.values) for seen in first),
        gsd_m=(min(sizes), max(sizes)) if sizes else None,
        timed=any(bool(np.isfinite(seen.time).all(1).any()) for seen in first),
        placed=any(bool(np.isfinite(one.place).all()) for one in samples),
    )


def _some(name: str, part: TaskSet) -> list[Sample]:
    """Return samples spread over a split, of those that can be read."""
    found, wrong = [], None
    for index in np.unique(np.linspace(0, len(part) - 1, SAMPLED).astype(np.int64)).tolist():
        try:
            found.append(part.read(index))
        except InputError as error:
            wrong = error
    if not found:
        raise InputError(f"task {name}: none of {SAMPLED} samples can be read: {wrong}")
    return found
