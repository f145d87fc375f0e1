"""What the tests of faults start from."""

import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.ranks import STARTED


@pytest.fixture
def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.wait()
        if isinstance(process, subprocess.Popen) and process.stderr:
            process.stderr.close()
