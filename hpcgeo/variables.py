"""What an environment variable means for a comparison: one table, by the begin of its name.

A record keeps every variable that a row names; a comparison sees those of two meanings.

========== =================================================================================
plumbing   ignored: a launcher or a library sets it, and a step takes as long with as without
elsewhere  ignored: another field of the record says it
transport  the network: points on several nodes that differ in it are not compared
tuning     marks a point that differs from the rest of its line, as does an unknown variable
========== =================================================================================
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

Meaning = Literal["plumbing", "elsewhere", "transport", "tuning"]


class VariableRow(NamedTuple):
    """Variables by the begin of their names; of rows that fit one, the longest begin counts."""

    meaning: Meaning
    what: str
    begins: tuple[str, ...]


VARIABLES = (
    VariableRow(
        "plumbing",
        "how MPI starts and binds ranks, whose collectives are not MPI's",
        ("OMPI_MCA_", "MPICH_"),
    ),
    VariableRow("plumbing", "watchdog and log of torch", ("TORCH_",)),
    VariableRow("plumbing", "what OpenMP allows", ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")),
    VariableRow("plumbing", "logs", ("NCCL_DEBUG", "RCCL_LOG", "FI_LOG_", "UCX_LOG_")),
    VariableRow(
        "plumbing",
        "where a library or a cache lies",
        (
            *("CUDA_HOME", "CUDA_PATH", "CUDA_CACHE_", "HIP_PATH", "MIOPEN_USER_DB_PATH"),
            *("MIOPEN_CUSTOM_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
        ),
    ),
    VariableRow(
        "elsewhere",
        "threads of a rank, in the name of its device",
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    ),
    VariableRow("transport", "network of gloo, libfabric and UCX", ("GLOO_", "FI_", "UCX_")),
    VariableRow(
        "transport",
        "network of NCCL and RCCL",
        (
            *("NCCL_NET", "NCCL_SOCKET_", "NCCL_NSOCKS_", "NCCL_IB_", "NCCL_CROSS_NIC"),
            *("NCCL_COLLNET_", "NCCL_OOB_", "RCCL_NET"),
        ),
    ),
    VariableRow("tuning", "algorithms of collectives", ("NCCL_", "RCCL_")),
    VariableRow("tuning", "threads and their places", ("OMP_", "GOMP_", "KMP_", "MKL_")),
    VariableRow(
        "tuning",
        "compiler, allocator and precision",
        (
            *("TORCHINDUCTOR_", "TORCH_ALLOW_TF32_", "TORCH_BLAS_", "PYTORCH_", "TRITON_"),
            *("NVIDIA_TF32_OVERRIDE", "LD_PRELOAD", "MALLOC_"),
        ),
    ),
    VariableRow(
        "tuning",
        "runtime and libraries of a device",
        (
            *("CUDA_", "CUBLAS_", "CUDNN_", "HSA_", "HIP_", "ROCR_", "AMD_", "GPU_MAX_HW_QUEUES"),
            *("MIOPEN_", "ROCBLAS_", "HIPBLASLT_"),
        ),
    ),
)

#: The begins of all names that a record keeps.
KEPT = tuple(begin for row in VARIABLES for begin in row.begins)

_MEANING = {begin: row.meaning for row in VARIABLES for begin in row.begins}


@lru_cache(maxsize=4096)
def meaning(name: str) -> Meaning:
    """Return what a variable means; one that no row names may change speed."""
    fits = [begin for begin in KEPT if name.startswith(begin)]
    return _MEANING[max(fits, key=len)] if fits else "tuning"


def of(environment: Mapping[str, str], wanted: Meaning) -> dict[str, str]:
    """Return the variables of one meaning."""
    return {name: value for name, value in environment.items() if meaning(name) == wanted}
