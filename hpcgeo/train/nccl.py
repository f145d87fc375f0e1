"""What NCCL or RCCL said when it failed, in one line: its last error, its version, what to do."""

import os
import re
from contextlib import suppress
from pathlib import Path

import torch
from torch._C import _distributed_c10d as c10d

from hpcgeo.parallel.device import name_of

#: Characters of the library's last error that a line repeats.
LONGEST = 300

#: What its text says, in whole or in part; the cause; what to do. The first that fits.
CAUSES = (
    (
        r"Duplicate GPU",
        "two ranks drive one device",
        "start one rank a device, and show each rank all devices or its own",
    ),
    (
        r"network .*not found|plugin|lib[nr]ccl-net",
        "its network plugin is not found",
        "load the module of the plugin or add its folder to LD_LIBRARY_PATH, or unset NCCL_NET to "
        "do without",
    ),
    (
        r"/dev/shm|shared memory|No space left",
        "shared memory is full",
        "enlarge /dev/shm (in a container: --ipc=host or --shm-size)",
    ),
    (
        r"ibv_|reg_mr|memlock",
        "memory cannot be pinned for the network",
        "raise the limit of locked memory (ulimit -l unlimited) where the ranks start",
    ),
    (
        r"[Nn]o (socket )?interface|NCCL_SOCKET_IFNAME|[Nn]o route|refused|unreachable|timed out",
        "the hosts do not reach each other",
        "set NCCL_SOCKET_IFNAME to an interface that all hosts have (`ip -brief address`)",
    ),
    (
        r"version mismatch|[Mm]ismatched",
        "ranks have different versions of it",
        "start all with the same environment",
    ),
    (
        r"driver version|no kernel image|invalid device function|named symbol not found",
        "driver, wheel and device do not fit together",
        "install the wheel of torch for this driver and device",
    ),
    (
        r"ECC|uncorrectable|illegal memory access|unspecified launch failure|hardware",
        "a device failed",
        "start it again, it resumes; if it happens again, without that host",
    ),
)
ELSE = "it failed", "NCCL_DEBUG=INFO in the environment makes it say more"

#: What gloo says around its error: a line of its source, and where one might look.
GLOO = re.compile(r"^\[\S*/gloo/\S+\] |\. This is typically caused by .*")

#: The switches of torch's flight recorder, and where it writes; the names of old and new releases.
RECORDER = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
WRITES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")


def last_error(text: str) -> str:
    """Return the last error of the library, or else the first line, in one line.

    >>> last_error("NCCL error in: x.cpp:94\\nncclSystemError: y\\nLast error:\\nno route\\n to n1")
    'no route to n1'
    """
    _, _, last = text.partition("Last error:")
    said = " ".join(last.split()) or " ".join(text.strip().splitlines()[:1])
    said = GLOO.sub("", said)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."


def library(text: str) -> str:
    """Return name and version of the library: ``NCCL 2.22.3``."""
    version = re.search(r"NCCL version (\d[\w.]*)", text)
    return " ".join(
        ["RCCL" if torch.version.hip else "NCCL", *(version.groups() if version else ())]
    )


def in_words(text: str) -> str:
    """Return what the text of an error of the library means, and what to do."""
    causes = (row for row in CAUSES if re.search(row[0], text))
    cause, todo = next(((cause, todo) for _, cause, todo in causes), ELSE)
    kind = re.search(r"\bnccl[A-Z]\w+", text)
    where = [kind[0]] if kind else []
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # a device that failed may not say its name
            device = torch.device("cuda", torch.cuda.current_device())
            where.append(f"{name_of(device)}, {device}")
    detail = f" ({'; '.join(where)})" if where else ""
    return f"{library(text)}: {cause}: {last_error(text)}{detail}; {todo}"


def flight_record(rank: int) -> str:
    """Write what torch's flight recorder holds of this rank, where it is on; return where."""
    if not any(os.environ.get(name, "0") not in ("", "0") for name in RECORDER):
        return ""
    dump = getattr(c10d, "_dump_nccl_trace", None) or getattr(c10d, "_dump_fr_trace", None)
    try:
        usual = str(Path.home() / ".cache" / "torch" / "comm_lib_trace_rank_")
        prefix = next((os.environ[name] for name in WRITES if os.environ.get(name)), usual)
        path = Path(f"{prefix}{rank}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dump())  # type: ignore[misc]
    except Exception:  # of what went wrong, this is not the cause
        return ""
    return f"; torch's flight recorder wrote {path}"
