"""Fixtures for every folder of tests."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Several processes share few cores: libraries that start a thread for each core, and threads that
# spin while they wait, make a fit of a second take a minute.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from hpcgeo.log import log  # noqa: E402
from tests.distributed import ALL  # noqa: E402
from tests.slurm import slurm  # noqa: E402

# A shell that starts the tests in the background has them, and all they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["slurm"]

# No test asserts a time.
settings.register_profile("hpcgeo", deadline=None, max_examples=200 if ALL else 50)
settings.load_profile("hpcgeo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the cluster, so that `-m "not slurm"` leaves it out; skip what is long; order
    the rest."""
    for item in items:
        if "slurm" in getattr(item, "fixturenames", ()):
            item.add_marker("slurm")
        if item.get_closest_marker("long") and not ALL:
            item.add_marker(pytest.mark.skip(reason="long: HPCGEO_ALL=1 runs it"))
    # What takes longest begins first: then no worker is left alone with it at the end.
    heavy = {item.path for item in items if any(map(item.get_closest_marker, ("slow", "slurm")))}
    items.sort(key=lambda item: item.path not in heavy)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB, to be filled."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(autouse=True)
def commands_leave_nothing_behind() -> Iterator[None]:
    """Undo what a command that was called in this process does to it.

    A USR2 that is held back would wait for a later test, and kill it; a log that does not
    propagate says nothing to the tests that read it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    log.propagate = True
