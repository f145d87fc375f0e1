"""Who does the work: this process, workers beside it, or the ranks of an MPI job."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol

from hpcgeo.errors import InputError

#: Number of ranks, as launchers of MPI say it: Open MPI, MPICH and Cray.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class Map(Protocol):
    """The built-in map, in order; `chunksize` items travel together."""

    def __call__(
        self, function: Callable[[Any], Any], items: Iterable[Any], /, *, chunksize: int = 1
    ) -> Iterator[Any]: ...


def run(work: Callable[[Map], int], workers: int, started: int = 1) -> int:
    """Return what `work` returns when given a map over workers; under MPI, on every rank.

    Args:
        work: runs once; the items it maps go to the workers.
        workers: processes on this machine; under MPI the ranks but the first do the work instead.
        started: ranks that the launcher of a scheduler started.

    Raises:
        InputError: local workers asked for under MPI, no mpi4py, or what `work` raises.
    """
    ranks = max(started, *(int(os.environ.get(name, 1)) for name in _SIZES))
    if ranks > 1:
        if workers > 1:
            raise InputError(f"--workers {workers}: {ranks} MPI ranks do the work; leave it out")
        from hpcgeo.data.shards.mpi import run

        return int(run(work, ranks))
    if workers == 1:
        return work(_serial)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        return work(pool.map)


def end_with_parent() -> None:
    """End this process when the one that started it does, also when that was killed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _serial(
    function: Callable[[Any], Any], items: Iterable[Any], *, chunksize: int = 1
) -> Iterator[Any]:
    return map(function, items)
