"""Where the ranks meet: an address and a port on which all of them agree without talking."""

import os
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import psutil

from hpcgeo.errors import InputError
from hpcgeo.launch.environment import Environment
from hpcgeo.launch.schedulers.scheduler import Started
from hpcgeo.launch.schedulers.table import started

#: Derived ports lie below 32768, where Linux begins to hand out ports of its own accord.
FIRST_PORT, NUM_PORTS = 20_000, 10_000

#: What names one start under mpirun: equal on all its ranks, different for the next start. The job
#: of a scheduler is the next best.
MPI_JOB = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PALS_APID", "PBS_JOBID")


class Meeting(NamedTuple):
    """Where the ranks of a start meet.

    Attributes:
        address, port: of rank 0.
        start: what its launcher calls this start; equal on all its ranks. Empty: nothing.
    """

    address: str
    port: int
    start: str


def meeting(environment: Environment, environ: Mapping[str, str] = os.environ) -> Meeting | None:
    """Return where the ranks meet; None for a process that is alone.

    MASTER_ADDR and MASTER_PORT win where set. Otherwise ranks of a scheduler's own launcher meet on
    their first host, on a port from that start; mpirun on one host meets on localhost, on a port
    from its job.

    Raises:
        InputError: nothing says where to meet; the message names the variable to set.
    """
    if environment.world_size == 1:
        return None  # nobody to meet
    own = started(environ) if environment.launcher == environment.scheduler else None
    start = own.name if own else _job(environment, environ)
    return Meeting(
        environ.get("MASTER_ADDR") or _address(environment, own),
        _port(environment, start, environ),
        start or "",
    )


def _address(environment: Environment, own: Started | None) -> str:
    if own and own.first_host:
        return own.first_host
    if environment.launcher == "mpi" and environment.local_size == environment.world_size:
        return "localhost"
    raise InputError(
        f"{environment.world_size} ranks under {environment.launcher} do not know where to meet: "
        f"set MASTER_ADDR to the host of rank 0"
    )


def _port(environment: Environment, start: str | None, environ: Mapping[str, str]) -> int:
    if "MASTER_PORT" in environ:
        text = environ["MASTER_PORT"]
        if not (text.isdecimal() and 0 < int(text) < 65_536):
            raise InputError(f"MASTER_PORT={text!r} is no port: set a number from 1 to 65535")
        return int(text)
    if start is None:
        raise InputError(
            f"{environment.world_size} ranks under {environment.launcher} do not know where to "
            f"meet: set MASTER_PORT to a free port"
        )
    return FIRST_PORT + zlib.crc32(start.encode()) % NUM_PORTS


def _job(environment: Environment, environ: Mapping[str, str]) -> str | None:
    """Return what all ranks of this start, and no others, have in common."""
    if environment.launcher == "mpi":
        named = [environ[variable] for variable in MPI_JOB if variable in environ]
        if named or environment.job_id:
            return named[0] if named else environment.job_id
        if environment.local_size == environment.world_size:
            return _hydra_proxy()
    return None


def _hydra_proxy() -> str | None:
    """Return the process of MPICH that started all ranks of this host; its variables name none."""
    for process in psutil.Process().parents():
        if process.name() == "hydra_pmi_proxy":
            return f"{process.name()} {process.pid}"
    return None
