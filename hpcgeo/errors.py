"""The errors that are told in one line: what a user can mend, and what ended a run."""

import re

#: How allocators and libraries word it that memory is out, on a host or on a device.
NO_MEMORY = re.compile(
    r": out of memory|(CUDA|HIP|XPU) out of memory"  # ours; torch's allocators, CUDA, HIP
    r"|[Ff]ailure( \d+)? 'out of memory'|Failed to CUDA (host )?[cm]alloc"  # NCCL, RCCL
    r"|[a-z]Error(OutOfMemory|MemoryAllocation)\b|_ERROR_OUT_OF_MEMORY"  # runtimes and drivers
    r"|_ALLOC(ATION)?_FAILED\b"  # cuBLAS, hipBLAS, cuDNN, cuSOLVER, cuFFT
    r"|rocblas_status_memory_error|miopenStatusAllocFailed"
    r"|std::bad_alloc|\bMemoryError\b|not enough memory"
    r"|[Cc]an(not|'t) allocate memory(?! in static TLS)"
)
#: Memory that may not be pinned for the network: a limit of the system's, whatever a run needs.
PINNED = re.compile(r"ibv_|reg_mr|memlock", re.IGNORECASE)


def out_of_memory(text: str) -> str | None:
    """Return the first line of `text` that says that memory is out; None: none does.

    >>> out_of_memory("cuBLAS failed\\nCUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
    'CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`'
    """
    lines = (line for line in text.splitlines() if NO_MEMORY.search(line))
    return next((line.strip() for line in lines if not PINNED.search(line)), None)


class InputError(ValueError):
    """Bad input from the user; the command line prints its text alone, without a traceback.

    The text names the value, the rule it breaks and the way out, in one line where possible.
    """

    shared = False  #: raised on every rank alike: rank 0 alone says it


class FaultError(RuntimeError):
    """What ended a run and is no bug; the text names the cause and what to do, in one line."""

    shared = False  #: raised on every rank alike: rank 0 alone says it
