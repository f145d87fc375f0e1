"""Micro-batches for a rank, in an order that is the same for any number of ranks and workers.

Step s covers the global positions [s G, (s + 1) G), G = micro_batch x accumulate x world; of these
micro-batch a of rank r takes the (a x world + r)-th portion. All there is to resume is the step.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from sys import maxsize
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from hpcgeo.data.sampling.order import shuffled
from hpcgeo.data.shards.dataset import Dataset
from hpcgeo.data.shards.executors import end_with_parent
from hpcgeo.errors import InputError
from hpcgeo.log import log

Item = TypeVar("Item", covariant=True)

SHARED_MEMORY = "/dev/shm"
#: Batches of a reader that lie in shared memory at a time, at most.
AHEAD = 3
#: Characters of TMPDIR that leave room for the name of a socket (108 in all, unix(7)).
TMPDIR_LENGTH = 60


@dataclass(frozen=True)
class ImageBatch:
    """Samples on the CPU.

    `pixels` (B, C, H, W) in their own data type; `valid` (B, 2) height and width without padding;
    `layout` (B,) row of the data set's moments; `position` (B,) counts over the run; `index` (B,)
    is the sample in the data set.
    """

    pixels: torch.Tensor
    valid: npt.NDArray[np.int64]
    layout: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]

    @classmethod
    def read(
        cls, dataset: Dataset, index: npt.NDArray[np.int64], position: npt.NDArray[np.int64]
    ) -> "ImageBatch":
        """Return samples of a data set, (B,), that stand at positions (B,) of the run."""
        pixels, valid = dataset.read(index)
        return cls(torch.from_numpy(pixels), valid, dataset.layout_of(index), position, index)


def positions(number: int, micro_batch: int, rank: int, world: int) -> npt.NDArray[np.int64]:
    """Return the global positions (B,) of micro-batch `number` of a rank since the run began."""
    first = (number * world + rank) * micro_batch
    return np.arange(first, first + micro_batch)


class Loader(Generic[Item]):
    """Iterates over the micro-batches of one rank, step after step, without end."""

    def __init__(
        self,
        batches: TorchDataset[Item],
        *,
        accumulate: int,
        workers: int,
        first_step: int = 0,
        ranks: int = 1,
    ) -> None:
        """Plan the reading; files are opened when the first batch is asked for.

        Args:
            batches: the micro-batches of this rank, by their number since the start of the run.
            accumulate: micro-batches per step on this rank.
            workers: reader processes; 0 reads in this one.
            first_step: step to begin with.
            ranks: of this host, which share its memory.
        """
        self._loader: DataLoader[Item] = DataLoader(
            batches,
            batch_size=None,
            sampler=range(first_step * accumulate, maxsize),
            collate_fn=_Sent(ranks),
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="forkserver" if workers else None,
            worker_init_fn=_belong_to_the_rank,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own: the run's random numbers are left alone
        )

    def __iter__(self) -> Iterator[Item]:
        if self._loader.num_workers:
            _shorten_tmpdir()
        said = False
        try:
            for batch in self._loader:
                if isinstance(batch, _Piped):
                    if not said:
                        log.warning(
                            "%s is small: batches of %.1f MB come through pipes, which is slower; "
                            "give the container more (--shm-size, --ipc=host)",
                            *(SHARED_MEMORY, batch.nbytes / 1e6),
                        )
                    said, batch = True, batch.restored()
                yield batch
        except InputError as error:  # a worker's error comes wrapped in its traceback
            raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


@dataclass(frozen=True)
class _AsArray:
    """A tensor as an array, which no shared memory is taken for."""

    values: npt.NDArray[Any]


@dataclass(frozen=True)
class _Piped:
    """A batch with its tensors as arrays, wherever in it they are."""

    batch: Any
    nbytes: int

    @classmethod
    def of(cls, batch: Any) -> "_Piped":
        arrays: list[npt.NDArray[Any]] = []

        def kept(tensor: torch.Tensor) -> _AsArray:
            arrays.append(tensor.numpy())
            return _AsArray(arrays[-1])

        return cls(_changed(batch, torch.Tensor, kept), sum(array.nbytes for array in arrays))

    def restored(self) -> Any:
        return _changed(self.batch, _AsArray, lambda array: torch.from_numpy(array.values))


def _changed(part: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return what a batch holds with every `kind` in it changed."""
    if isinstance(part, kind):
        return change(part)
    if type(part) in (tuple, list):
        return type(part)([_changed(each, kind, change) for each in part])
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{k: _changed(v, kind, change) for k, v in vars(part).items()})
    return part


class _Sent:
    """How a batch leaves its reader: through shared memory where that has room for it.

    Where it has not, the queue of a reader dies without a word and its rank waits for ever: then
    a batch goes through a pipe.
    """

    def __init__(self, ranks: int = 1) -> None:
        self._ranks = ranks
        self._has_room: bool | None = None

    def __call__(self, batch: Any) -> Any:
        reader = get_worker_info()
        if reader is None or self._has_room:
            return batch
        piped = _Piped.of(batch)
        if self._has_room is None:
            self._has_room = _free() >= piped.nbytes * AHEAD * reader.num_workers * self._ranks
        return batch if self._has_room else piped


def _free() -> int:
    try:
        there = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return there.f_bavail * there.f_frsize


def _shorten_tmpdir() -> None:
    """Keep the sockets between processes, which lie in TMPDIR, within the length they may have."""
    if len(tempfile.gettempdir()) > TMPDIR_LENGTH:
        tempfile.tempdir = "/tmp"


@dataclass(frozen=True)
class ImageBatches(TorchDataset[Item]):
    """The micro-batches of a rank by their number since the start of the run.

    Attributes:
        dataset: to read from.
        seed: of the run; the order is a function of it and the position.
        micro_batch: samples of a batch.
        rank: of this process among those that read different samples.
        world: how many such processes there are.
        prepare: what is made of the samples where they are read.
    """

    dataset: Dataset
    seed: int
    micro_batch: int
    rank: int
    world: int
    prepare: Callable[[ImageBatch], Item]

    def __getitem__(self, number: int) -> Item:
        position = positions(number, self.micro_batch, self.rank, self.world)
        index = shuffled(position, len(self.dataset), self.seed)
        return self.prepare(ImageBatch.read(self.dataset, index, position))


def _belong_to_the_rank(worker: int) -> None:
    """Ignore what asks a run to stop: launchers signal whole process groups, and the rank still
    wants batches for the step it finishes. End when the rank does, also when it was killed: torch
    looks at the parent, which is the fork server, and that lives as long as its children.
    """
    _shorten_tmpdir()
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
