"""`python -m tests.device.planted COMMAND`: hpcgeo with a device of another name, or with a library
of collectives that fails on the last rank.
"""

import os

import torch
import torch.distributed as dist

from hpcgeo.cli.main import hpcgeo
from hpcgeo.profiling import profiler

#: The name of the device; the error, and the collective from the start on that meets it.
NAME, ERROR, AFTER = "PLANTED_NAME", "PLANTED_ERROR", 20

TEXT = """NCCL error in: /torch/NCCLUtils.cpp:94, unhandled system error, NCCL version 2.27.5
ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error.
Last error:
"""


def plant() -> None:
    """Change torch as the environment says."""
    profiler.PRODUCT["cuda"] = 256  # that it is measured is asked here, not how fast it is
    if NAME in os.environ:
        torch.cuda.get_device_name = lambda device=None: os.environ[NAME]
    if ERROR in os.environ and os.environ.get("RANK", "0") == os.environ.get("LAST", "0"):
        real, calls = dist.all_reduce, 0

        def failing(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls > AFTER:
                raise dist.DistBackendError(TEXT + os.environ[ERROR])
            return real(*arguments, **named)

        dist.all_reduce = failing


if __name__ == "__main__":
    plant()
    hpcgeo()
