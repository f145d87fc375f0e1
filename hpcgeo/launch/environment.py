"""Which rank am I? Read once from what the launcher left in the environment.

Variables are read here and in `hpcgeo.launch.rendezvous`, nowhere else. Launchers nest and the
innermost speaks: torchrun inside srun is torchrun, mpirun inside a Slurm job is MPI.
"""

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hpcgeo.errors import InputError

Launcher = Literal["single", "torchrun", "slurm", "mpi"]

#: Rank, world size, local rank, local size.
Counts = tuple[int, int, int, int]

#: Rank, world size, local rank and local size as each launcher names them, innermost first; the
#: variables from `marks` on are its own, one of them set means that it is the launcher.
FAMILIES: tuple[tuple[str, Launcher, int, tuple[str, str, str, str]], ...] = (
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


@dataclass(frozen=True)
class Environment:
    """This process among its peers.

    Attributes:
        rank, world_size: among all processes.
        local_rank, local_size: among the processes of this host.
        host: name of this host; under Slurm the name of the node.
        launcher: who started the processes.
        job_id: the Slurm job, where there is one.
        job_begin_s, job_end_s: its begin and end in seconds of the epoch, where Slurm says them.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    host: str
    launcher: Launcher
    job_id: str | None = None
    job_begin_s: float | None = None
    job_end_s: float | None = None

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
    for name, launcher, marks, variables in FAMILIES:
        if any(variable in environ for variable in variables[marks:]):
            rank, size, local_rank, local_size = (_count(environ, v, name) for v in variables)
            return _environment(environ, launcher, (rank, size, local_rank, local_size))
    # A batch script that is no step has SLURM_PROCID=0 and SLURM_NTASKS=n too.
    if "SLURM_STEP_NUM_TASKS" in environ:
        counts = _slurm_step(environ)
        # sbatch, called inside a step, leaks that step's variables into the new batch script;
        # the list of this host's ranks is always fresh, and has one entry there.
        if environ.get("SLURM_GTIDS", "").count(",") + 1 == counts[3]:
            return _environment(environ, "slurm", counts)
    if "PMI_RANK" in environ:
        raise InputError(
            "PMI_RANK is set without a local rank: start with mpirun, srun or torchrun, or unset it"
        )
    return _environment(environ, "single", (0, 1, 0, 1))


def _environment(environ: Mapping[str, str], launcher: Launcher, counts: Counts) -> Environment:
    begin, end = environ.get("SLURM_JOB_START_TIME"), environ.get("SLURM_JOB_END_TIME")
    return Environment(
        *counts,
        host=environ.get("SLURMD_NODENAME") or platform.node(),
        launcher=launcher,
        job_id=environ.get("SLURM_JOB_ID"),
        job_begin_s=float(begin) if begin else None,
        job_end_s=float(end) if end else None,
    )


def _slurm_step(environ: Mapping[str, str]) -> Counts:
    rank, size, local_rank, node = (
        _count(environ, variable, "a Slurm step")
        for variable in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
    )
    per_node = tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if node >= len(per_node):
        raise InputError(
            f"SLURM_STEP_TASKS_PER_NODE={environ.get('SLURM_STEP_TASKS_PER_NODE')!r} does not name "
            f"node {node}: start the ranks with srun"
        )
    return rank, size, local_rank, per_node[node]


def tasks_per_node(text: str) -> list[int]:
    """Return the tasks of every node from Slurm's short form.

    >>> tasks_per_node("2(x3),1")
    [2, 2, 2, 1]
    """
    return [
        int(tasks)
        for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(nodes or 1))
    ]


def _count(environ: Mapping[str, str], variable: str, launcher: str) -> int:
    if variable not in environ:
        raise InputError(
            f"{variable} is missing beside the other variables of {launcher}: set it, or unset "
            f"those to run alone"
        )
    if not environ[variable].isdecimal():
        raise InputError(f"{variable}={environ[variable]!r} is no count: {launcher} sets a number")
    return int(environ[variable])
