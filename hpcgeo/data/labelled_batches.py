"""Samples of a mixture as they are drawn: cropped, turned, mixed, their missing tokens found,
micro-batch by micro-batch.

A sample that cannot be read is drawn again from another task (`MixtureSampler.draw`): one task
whose files are damaged does not stop the others. What is drawn depends on the seed, the position
and the files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset as TorchDataset

from hpcgeo.data.crops import cropped
from hpcgeo.data.labelled import TaskSet
from hpcgeo.data.loader import positions
from hpcgeo.data.mixing import Mixing, alike, are_images
from hpcgeo.data.sample import Sample
from hpcgeo.data.sampling.mixture import MixtureSampler
from hpcgeo.data.sampling.order import Int, uniform
from hpcgeo.errors import InputError
from hpcgeo.kinds.table import kind_of
from hpcgeo.log import log

Bool = npt.NDArray[np.bool_]

#: A token is missing where less than this fraction of its values is there.
ENOUGH = 0.5


@dataclass(frozen=True)
class Drawn:
    """A sample and which of its tokens are there.

    Attributes:
        task: its name.
        index: of the sample in its task.
        position: in the run.
        sample: as it was read, or turned.
        kept: of each observation (T, L, h, w), or (T, L) of vectors: what is not missing.
        named: of each observation: whether its bands are read by their own stems.
    """

    task: str
    index: int
    position: int
    sample: Sample
    kept: tuple[Bool, ...]
    named: tuple[bool, ...]

    @property
    def length(self) -> int:
        """Tokens, with the one of the sample itself."""
        return 1 + sum(int(kept.sum()) for kept in self.kept)

    def with_sample(self, sample: Sample) -> "Drawn":
        """Return it with another sample in its place, its missing tokens found anew."""
        kept = tuple(_kept(seen.values, seen.patch) for seen in sample.observations)
        return replace(self, sample=sample, kept=kept)


def plain(sample: Sample, task: str = "", index: int = 0) -> Drawn:
    """Return a sample as it is, for evaluation."""
    kept = tuple(_kept(seen.values, seen.patch) for seen in sample.observations)
    return Drawn(task, index, index, sample, kept, (True,) * len(kept))


@dataclass(frozen=True)
class DrawnBatches(TorchDataset[list[Drawn]]):
    """The micro-batches of a rank by their number since the start of the run.

    Attributes:
        sets: training splits by the name of their task.
        mixture: what every position draws.
        seed: of the run.
        micro_batch: samples of a batch.
        rank, world: of this process among those that read different samples.
        flip: mirror and turn images.
        unnamed: fraction of observations whose bands are read as unknown ones.
        crops: of tasks whose images are cropped, least and most of their area.
        mixing: how samples are mixed with others and labels made soft; None: not at all.
    """

    sets: Mapping[str, TaskSet]
    mixture: MixtureSampler
    seed: int
    micro_batch: int
    rank: int
    world: int
    flip: bool
    unnamed: float
    crops: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mixing: Mixing | None = None

    def __getitem__(self, number: int) -> list[Drawn]:
        position = positions(number, self.micro_batch, self.rank, self.world)
        return self.at(position)

    def at(self, position: Int) -> list[Drawn]:
        """Return what is drawn at positions (B,) of the run."""
        tasks, indices = self.mixture.draw(position)
        drawn = []
        for number, place in enumerate(position.tolist()):
            name, index = self.mixture.tasks[tasks[number]], int(indices[number])
            found = self._changed(self._read(name, index, place))
            if self.mixing:
                found = self._mixed(found, self.mixing)
            unnamed = uniform(self.seed, position[number : number + 1], "unnamed", len(found.named))
            drawn.append(replace(found, named=tuple((unnamed[0] >= self.unnamed).tolist())))
        return drawn

    def _changed(self, drawn: Drawn, of: str = "") -> Drawn:
        """Return a sample cropped and turned at random; `of` tells draws of a position apart."""
        position = np.array([drawn.position])
        if drawn.task in self.crops:
            chance = uniform(self.seed, position, f"{of}crop", 3)[0]
            drawn = drawn.with_sample(cropped(drawn.sample, self.crops[drawn.task], chance))
        if self.flip:
            drawn = turned(drawn, int(uniform(self.seed, position, f"{of}turn", 1)[0, 0] * 8))
        return drawn

    def _mixed(self, drawn: Drawn, mixing: Mixing) -> Drawn:
        """Return a sample with a soft label, mixed with another of its task, where its kind can."""
        part = self.sets[drawn.task]
        kind, num_outputs = kind_of(part.target), len(part.target.names)
        if not kind.mixes:
            return drawn
        sample = mixing.softened(drawn.sample, kind, num_outputs)
        if mixing.pairs and are_images(sample):
            random = np.random.default_rng([self.seed, drawn.position])
            try:
                other = plain(part.read(int(random.integers(len(part)))), drawn.task)
            except InputError as error:
                once(f"task {drawn.task}: {error}; it is mixed with no other")
                return drawn.with_sample(sample)
            other = self._changed(replace(other, position=drawn.position), "other ")
            if alike(sample, other.sample):
                partner = mixing.softened(other.sample, kind, num_outputs)
                sample = mixing.mixed(sample, partner, random)
        return drawn.with_sample(sample)

    def _read(self, name: str, index: int, position: int, attempt: int = 0) -> Drawn:
        try:
            found = plain(self.sets[name].read(index), name, index)
            return replace(found, position=position)
        except InputError as error:
            once(f"task {name}: {error}; a sample of another task takes its place")
            attempt += 1
            task, other = self.mixture.draw(np.array([position]), attempt)
            return self._read(self.mixture.tasks[task[0]], int(other[0]), position, attempt)


@cache
def once(message: str) -> None:
    """Warn, but not again of the same thing in this process: samples come back in every epoch."""
    log.warning("%s", message)


def turned(drawn: Drawn, turn: int) -> Drawn:
    """Return a sample mirrored and turned by a quarter, in one of eight ways.

    One that is not square is mirrored and turned by halves alone.
    """
    sample = drawn.sample
    images = [seen.values for seen in sample.observations if seen.values.ndim == 4]
    dense = [sample.target] if sample.dense and images else []
    if not images:
        return drawn
    quarters, mirror = turn % 4, turn // 4
    if any(image.shape[-1] != image.shape[-2] for image in (*images, *dense)):
        quarters = 2 * (quarters % 2)

    def rotate(array: Any) -> Any:
        array = np.rot90(array, quarters, axes=(-2, -1))
        return np.ascontiguousarray(array[..., ::-1] if mirror else array)

    observations = tuple(
        replace(seen, values=rotate(seen.values)) if seen.values.ndim == 4 else seen
        for seen in sample.observations
    )
    kept = tuple(rotate(part) if part.ndim == 4 else part for part in drawn.kept)
    target = rotate(sample.target) if dense else sample.target
    sample = replace(sample, observations=observations, target=target)
    return replace(drawn, sample=sample, kept=kept)


def _kept(values: npt.NDArray[np.float32], patch: int) -> Bool:
    there = np.isfinite(values)
    if values.ndim == 3:
        return there.mean(axis=-1) >= ENOUGH
    T, L, H, W = values.shape
    cells = there.reshape(T, L, H // patch, patch, W // patch, patch)
    return cells.mean(axis=(3, 5)) >= ENOUGH
