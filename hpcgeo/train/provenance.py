"""Where a number comes from: device, hosts, versions, commit, command."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

import hpcgeo

PACKAGES = ("torch", "numpy", "h5py", "pydantic")


def device_name(device: torch.device, local_ranks: int) -> str:
    """Return what one rank drives, e.g. ``AMD EPYC 7A53, 2 threads``.

    Where `local_ranks` on a host have more threads than it has cores, their share is named: such a
    device is another one.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    name = f"{_processor()}, {threads} {'thread' if threads == 1 else 'threads'}"
    share = (os.cpu_count() or 1) / (threads * local_ranks)
    return name if share >= 1 else f"{name} with {share:.2g} of a core"


@cache
def versions() -> dict[str, str]:
    """Return the versions that a number depends on."""
    found = {"python": platform.python_version(), "hpcgeo": hpcgeo.__version__}
    found |= {name: version(name) for name in PACKAGES}
    for name in ("cuda", "hip"):
        if number := getattr(torch.version, name, None):
            found[name] = number
    return found


@cache
def commit() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout this package runs from, and whether its code has changes.

    Records in profiles/records are no code: a sweep that appends to them leaves the tree clean.
    (None, None) for an installed package.
    """
    root = Path(hpcgeo.__file__).parents[1]
    if not (root / ".git").exists():
        return None, None
    try:
        head = _git(root, "rev-parse", "HEAD")
        code = (".", ":(exclude)profiles/records")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *code)
    except (OSError, subprocess.SubprocessError):
        return None, None
    return head, bool(changes)


def command() -> str:
    """Return the command line, with the program's name alone."""
    program = Path(sys.argv[0]).name
    return " ".join(["hpcgeo" if program == "__main__.py" else program, *sys.argv[1:]])


def _git(root: Path, *arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return answer.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.machine()
