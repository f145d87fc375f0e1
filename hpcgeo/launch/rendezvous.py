"""Where the ranks meet: an address and a port on which all of them agree without talking."""

import os
import re
import zlib
from collections.abc import Mapping

import psutil

from hpcgeo.errors import InputError
from hpcgeo.launch.environment import Environment

#: Derived ports lie below 32768, where Linux begins to hand out ports of its own accord.
FIRST_PORT, NUM_PORTS = 20_000, 10_000

#: What names one start under mpirun: equal on all its ranks, different for the next start.
MPI_JOB = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PALS_APID", "PBS_JOBID", "SLURM_JOB_ID")


def master(
    environment: Environment, environ: Mapping[str, str] = os.environ
) -> tuple[str, int] | None:
    """Return the address and port of rank 0; None for a process that is alone.

    MASTER_ADDR and MASTER_PORT win where set. Otherwise a Slurm step meets on its first host, on a
    port from job and step; mpirun on one host meets on localhost, on a port from its job.

    Raises:
        InputError: nothing says where to meet; the message names the variable to set.
    """
    if environment.launcher == "single":
        return None
    return (
        environ.get("MASTER_ADDR") or _address(environment, environ),
        _port(environment, environ),
    )


def _address(environment: Environment, environ: Mapping[str, str]) -> str:
    nodes = environ.get("SLURM_STEP_NODELIST")
    if environment.launcher == "slurm" and nodes:
        return first_host(nodes)
    if environment.launcher == "mpi" and environment.local_size == environment.world_size:
        return "localhost"
    raise InputError(
        f"{environment.world_size} ranks under {environment.launcher} do not know where to meet: "
        f"set MASTER_ADDR to the host of rank 0"
    )


def _port(environment: Environment, environ: Mapping[str, str]) -> int:
    if "MASTER_PORT" in environ:
        text = environ["MASTER_PORT"]
        if not (text.isdecimal() and 0 < int(text) < 65_536):
            raise InputError(f"MASTER_PORT={text!r} is no port: set a number from 1 to 65535")
        return int(text)
    job = _job(environment, environ)
    if job is None:
        raise InputError(
            f"{environment.world_size} ranks under {environment.launcher} do not know where to "
            f"meet: set MASTER_PORT to a free port"
        )
    return FIRST_PORT + zlib.crc32(job.encode()) % NUM_PORTS


def _job(environment: Environment, environ: Mapping[str, str]) -> str | None:
    """Return what all ranks of this start, and no others, have in common."""
    if environment.launcher == "slurm":
        return f"{environ.get('SLURM_JOB_ID')}.{environ.get('SLURM_STEP_ID')}"
    if environment.launcher == "mpi":
        named = [environ[variable] for variable in MPI_JOB if variable in environ]
        if named:
            return named[0]
        if environment.local_size == environment.world_size:
            return _hydra_proxy()
    return None


def _hydra_proxy() -> str | None:
    """Return the process of MPICH that started all ranks of this host; its variables name none."""
    for process in psutil.Process().parents():
        if process.name() == "hydra_pmi_proxy":
            return f"{process.name()} {process.pid}"
    return None


def first_host(nodes: str) -> str:
    """Return the first host of Slurm's short form, as ``scontrol show hostnames`` would.

    Done here because containers rarely hold scontrol.

    >>> first_host("frontier[00012-00015,00020],login1")
    'frontier00012'
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])
