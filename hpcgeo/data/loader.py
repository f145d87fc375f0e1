"""Micro-batches for a rank, in an order that is the same for any number of ranks and workers.

Step s covers the global positions [s G, (s + 1) G), G = micro_batch x accumulate x world; of these
micro-batch a of rank r takes the (a x world + r)-th portion. All there is to resume is the step.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from sys import maxsize
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from hpcgeo.data.sampling.order import shuffled
from hpcgeo.data.shards.dataset import Dataset, ShardDataset
from hpcgeo.data.shards.synthetic import SyntheticDataset
from hpcgeo.errors import InputError
from hpcgeo.options import SYNTHETIC, Data

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True)
class ImageBatch:
    """A micro-batch on the CPU.

    `pixels` (B, C, H, W) in their own data type; `valid` (B, 2) height and width without padding;
    `position` (B,) counts over the run, `index` (B,) is the sample in the data set.
    """

    pixels: torch.Tensor
    valid: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]

    def pin_memory(self) -> "ImageBatch":
        """Return the batch in memory that a device copies from without waiting."""
        return replace(self, pixels=self.pixels.pin_memory())


def positions(number: int, micro_batch: int, rank: int, world: int) -> npt.NDArray[np.int64]:
    """Return the global positions (B,) of micro-batch `number` of a rank since the run began."""
    first = (number * world + rank) * micro_batch
    return np.arange(first, first + micro_batch)


def open_dataset(config: Data) -> Dataset:
    """Return the data set that a configuration names.

    Raises:
        InputError: no data set there, or a layout must be chosen.
    """
    if config.path == SYNTHETIC:
        return SyntheticDataset((3, *config.chip))
    return ShardDataset(Path(config.path), config.layout)


class Loader(Generic[Item]):
    """Iterates over the micro-batches of one rank, step after step, without end."""

    def __init__(
        self, batches: TorchDataset[Item], *, accumulate: int, workers: int, first_step: int = 0
    ) -> None:
        """Plan the reading; files are opened when the first batch is asked for.

        Args:
            batches: the micro-batches of this rank, by their number since the start of the run.
            accumulate: micro-batches per step on this rank.
            workers: reader processes; 0 reads in this one.
            first_step: step to begin with.
        """
        self._loader: DataLoader[Item] = DataLoader(
            batches,
            batch_size=None,
            sampler=range(first_step * accumulate, maxsize),
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="forkserver" if workers else None,
            worker_init_fn=_belong_to_the_rank,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own: the run's random numbers are left alone
        )

    def __iter__(self) -> Iterator[Item]:
        try:
            yield from self._loader
        except InputError as error:  # a worker's error comes wrapped in its traceback
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


@dataclass(frozen=True)
class ImageBatches(TorchDataset[ImageBatch]):
    """The micro-batches of a rank by their number since the start of the run.

    Attributes:
        dataset: to read from.
        seed: of the run; the order is a function of it and the position.
        micro_batch: samples of a batch.
        rank: of this process among those that read different samples.
        world: how many such processes there are.
    """

    dataset: Dataset
    seed: int
    micro_batch: int
    rank: int
    world: int

    def __getitem__(self, number: int) -> ImageBatch:
        position = positions(number, self.micro_batch, self.rank, self.world)
        index = shuffled(position, len(self.dataset), self.seed)
        pixels, valid = self.dataset.read(index)
        return ImageBatch(torch.from_numpy(pixels), valid, position, index)


def _as_it_is(batch: Any) -> Any:
    return batch


def _belong_to_the_rank(worker: int) -> None:
    """Ignore what asks a run to stop: launchers signal whole process groups, and the rank still
    wants batches for the step it finishes. End when the rank does, also when it was killed: torch
    looks at the parent, which is the fork server, and that lives as long as its children.
    """
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_rank, daemon=True).start()


def _end_with_the_rank() -> None:
    rank = multiprocessing.parent_process()
    assert rank is not None
    rank.join()
    os._exit(1)
