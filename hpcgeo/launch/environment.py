"""Which rank am I? Read once from what the launcher left in the environment.

Variables of launchers are read here and in `hpcgeo.launch.rendezvous`, those of schedulers in
`hpcgeo.launch.schedulers`, nowhere else. Launchers nest and the innermost speaks: torchrun inside
srun is torchrun, mpirun inside a job is MPI.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.launch.schedulers.scheduler import Counts, Scheduler, count
from hpcgeo.launch.schedulers.table import around

#: Rank, world size, local rank and local size as each launcher names them, innermost first; the
#: variables from `marks` on are its own, one of them set means that it is the launcher.
FAMILIES: tuple[tuple[str, str, int, tuple[str, str, str, str]], ...] = (
    ("torchrun", "torchrun", 0, ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")),
    (
        "Open MPI",
        "mpi",
        0,
        (
            "OMPI_COMM_WORLD_RANK",
            "OMPI_COMM_WORLD_SIZE",
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "OMPI_COMM_WORLD_LOCAL_SIZE",
        ),
    ),
    # PMI_RANK and PMI_SIZE alone also come from `srun --mpi=pmi2`: only the local ones tell.
    ("MPICH", "mpi", 2, ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")),
    ("Cray PALS", "mpi", 2, ("PMI_RANK", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE")),
)

#: Names the file that a process of a job leaves its exit code in.
EXIT_CODE = "HPCGEO_EXIT_CODE"


@dataclass(frozen=True)
class Environment:
    """This process among its peers.

    Attributes:
        rank, world_size: among all processes.
        local_rank, local_size: among the processes of this host.
        host: name of this host; in a job the scheduler's name of it.
        launcher: who started the processes: ``single``, ``torchrun``, ``mpi``, or the scheduler.
        job_id: the job of a scheduler, where there is one.
        job_begin_s, job_end_s: its begin and end in seconds of the epoch, where variables say them.
        scheduler: whose job it is.
        idle: what the job has that this start does not use, in words; empty: nothing.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    host: str
    launcher: str
    job_id: str | None = None
    job_begin_s: float | None = None
    job_end_s: float | None = None
    scheduler: str | None = None
    idle: str = ""

    def __post_init__(self) -> None:
        for rank, size, what in (
            (self.rank, self.world_size, "rank"),
            (self.local_rank, self.local_size, "local rank"),
        ):
            if not 0 <= rank < size:
                raise InputError(
                    f"{what} {rank} of {size}, as {self.launcher} says, is impossible: "
                    f"unset stale variables or start with one launcher"
                )


def discover(environ: Mapping[str, str] = os.environ) -> Environment:
    """Return who this process is among its peers.

    Raises:
        InputError: a launcher's variables are there in part, or hold no numbers.
    """
    scheduler = around(environ)
    job = scheduler.allocation(environ) if scheduler else None
    launcher, counts = _launched(environ, scheduler)
    return Environment(
        *counts,
        host=(job and job.host) or platform.node(),
        launcher=launcher,
        job_id=job.job if job else None,
        job_begin_s=job.begin_s if job else None,
        job_end_s=job.end_s if job else None,
        scheduler=scheduler.name if scheduler else None,
        idle=job.idle if job and launcher == "single" else "",
    )


def _said_by_step(
    environ: Mapping[str, str], variables: Sequence[str], scheduler: Scheduler | None
) -> tuple[str, Counts] | None:
    """Return what the scheduler's launcher says where other variables say the same in part.

    A container sets RANK, WORLD_SIZE and LOCAL_RANK of the step, and no LOCAL_WORLD_SIZE.
    """
    if scheduler is None or all(variable in environ for variable in variables):
        return None
    started = scheduler.started(environ)
    if started is None:
        return None
    named = zip(variables, started.counts, strict=True)
    alike = all(environ.get(variable, str(count)) == str(count) for variable, count in named)
    return (scheduler.name, started.counts) if alike else None


def _launched(environ: Mapping[str, str], scheduler: Scheduler | None) -> tuple[str, Counts]:
    """Return who started this process, and which one it is."""
    for name, launcher, marks, variables in FAMILIES:
        if any(variable in environ for variable in variables[marks:]):
            if found := _said_by_step(environ, variables, scheduler):
                return found
            rank, size, local_rank, local_size = (count(environ, v, name) for v in variables)
            return launcher, (rank, size, local_rank, local_size)
    if scheduler and (started := scheduler.started(environ)):
        return scheduler.name, started.counts
    if "PMI_RANK" in environ:
        raise InputError(
            "PMI_RANK is set without a local rank: start with mpirun, srun or torchrun, or unset it"
        )
    return "single", (0, 1, 0, 1)


def leave_exit_code(code: int, environ: Mapping[str, str] = os.environ) -> None:
    """Leave an exit code for the script of the job: its launcher answers with another.

    That of a process it killed since this one failed.
    """
    if path := environ.get(EXIT_CODE):
        with suppress(OSError), Path(path).open("x") as file:  # the first one's alone
            file.write(f"{code}\n")
