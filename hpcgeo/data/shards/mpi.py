"""Work over the ranks of an MPI job; the first hands out. The only file that knows mpi4py."""

import sys
from collections.abc import Callable
from typing import Any

from hpcgeo.errors import InputError

try:
    from mpi4py import MPI
    from mpi4py.futures import MPICommExecutor, MPIPoolExecutor
except ImportError as error:
    raise InputError(f"several MPI ranks, but {error}: pip install hpcgeo[mpi]") from None


def run(work: Callable[[Any], int], ranks: int) -> int:
    """Return what `work` returns on the first rank; the others serve it and end alike.

    Args:
        work: called with a map, on the first rank only.
        ranks: what the launcher says; MPI must agree, or every task would do all the work.
    """
    world = MPI.COMM_WORLD
    if world.size != ranks:
        raise InputError(
            f"{ranks} tasks were launched but MPI sees {world.size}: launch with a matching "
            "mpirun, or with `srun --mpi=pmix`"
        )
    error: Exception | None = None
    code = 0
    with MPICommExecutor(world, root=0) as pool:
        if isinstance(pool, MPIPoolExecutor):
            try:
                code = work(pool.map)
            except Exception as caught:  # the other ranks wait to hear how it ended
                error, code = caught, 2 if isinstance(caught, InputError) else 1
    code = world.bcast(code)
    if world.rank > 0:
        sys.exit(code)
    if error is not None:
        raise error
    return code
