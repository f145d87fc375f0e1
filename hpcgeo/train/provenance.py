"""Where a number comes from: device, hosts, versions, environment, commit, command."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import hpcgeo
from hpcgeo.parallel.device import name_of
from hpcgeo.variables import KEPT

PACKAGES = ("torch", "numpy", "h5py", "pydantic")
#: Those that a number depends on where they are installed.
OPTIONAL = ("triton", "pytorch-triton-rocm", "deepspeed")

#: Of the variables that a record keeps, those that name a part of one job or one rank, and whatever
#: may be a secret, stay out of it.
PRIVATE = re.compile(
    r"_VISIBLE_DEVICES$|^OMPI_MCA_(orte|ess|pmix|prte|initial)_|_(ID|HOST|ADDR|PORT|URI)$"
    r"|KEY|TOKEN|SECRET|PASS|CREDENTIAL"
)


def device_name(device: torch.device, local_ranks: int) -> str:
    """Return what one rank drives, e.g. ``AMD EPYC 7A53, 2 threads``.

    Where `local_ranks` on a host have more threads than it has cores, their share is named: such a
    device is another one.
    """
    if device.type == "cuda":
        return name_of(device)
    threads = torch.get_num_threads()
    name = f"{_processor()}, {threads} {'thread' if threads == 1 else 'threads'}"
    share = (os.cpu_count() or 1) / (threads * local_ranks)
    return name if share >= 1 else f"{name} with {share:.2g} of a core"


@cache
def versions() -> dict[str, str]:
    """Return the versions that a number depends on."""
    found = {"python": platform.python_version(), "hpcgeo": hpcgeo.__version__}
    found |= {name: version(name) for name in PACKAGES}
    for name in OPTIONAL:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name in ("cuda", "hip"):
        if number := getattr(torch.version, name, None):
            found[name] = number
            library = "nccl" if name == "cuda" else "rccl"
            with suppress(AttributeError, RuntimeError):  # a build without it
                release = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
                found[library] = ".".join(map(str, release))
    return found


def driver(device: torch.device, root: Path = Path("/sys/module")) -> str | None:
    """Return the driver of a device with its version, e.g. ``nvidia 580.95.05``.

    Args:
        root: where the kernel lists its modules, for tests.
    """
    if device.type == "cpu":
        return None
    for name in ("nvidia", "amdgpu"):
        file = root / name / "version"  # the kernel's own amdgpu has none: see its release
        if file.is_file():
            return f"{name} {file.read_text().strip()}"
        if file.parent.is_dir():
            return f"{name} of Linux {platform.release()}"
    return None


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that change speed; of one that holds a path, only that it is set."""
    return {
        name: "(a path)" if "/" in value else value
        for name, value in sorted(environ.items())
        if name.startswith(KEPT) and not PRIVATE.search(name)
    }


@cache
def commit() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout this package runs from, and whether its code has changes.

    Where there is no checkout, or git refuses on this node, what the job was submitted with counts.
    Records in profiles/records are no code: a sweep that appends to them leaves the tree clean.
    (None, None) for an installed package.
    """
    root = Path(hpcgeo.__file__).parents[1]
    handed = os.environ.get("HPCGEO_COMMIT")
    unknown = (handed, False) if handed else (None, None)
    if not (root / ".git").exists():
        return unknown
    try:
        head = _git(root, "rev-parse", "HEAD")
        code = (".", ":(exclude)profiles/records")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *code)
    except (OSError, subprocess.SubprocessError):
        return unknown
    return head, bool(changes)


def command() -> str:
    """Return the command line as a shell takes it, with the program's name alone."""
    program = Path(sys.argv[0]).name
    return shlex.join(["hpcgeo" if program == "__main__.py" else program, *sys.argv[1:]])


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
