"""Read a data set as `hpcgeo data` and a run do, in a process of its own: HDF5 is written in C."""

import contextlib
import io
import resource
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from hpcgeo.cli.data import info
from hpcgeo.data.shards import index
from hpcgeo.data.shards.dataset import ShardDataset
from hpcgeo.errors import InputError
from tests.distributed import CONTEXT

#: Room for a reader beyond what it has when it starts; what a file claims to hold is far more.
ROOM_BYTES = 1 << 30
TIMEOUT_S = 30


def read_set(folder: Path) -> str:
    """Say what is in a set, verify it, and read all of its samples; return how it went."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            info(folder)
        problems = index.verify(folder, index.load(folder))
        for name in index.load(folder).layouts:
            dataset = ShardDataset(folder, name)
            pixels, valid = dataset.read(np.arange(len(dataset)))
            assert pixels.shape == (len(dataset), *dataset.shape)
            assert (valid >= 1).all() and (valid <= dataset.shape[1:]).all()
        return "damaged" if problems else "whole"
    except InputError as error:
        assert str(folder) in str(error) and len(str(error)) < 2000, str(error)
        return "refused"


class Reader:
    """A process that reads sets; one that dies or hangs is a failure, and is started anew."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._end, other = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def __call__(self, folder: Path) -> str:
        """Return how reading went; raise where it ended in any other way than it should."""
        self._end.send(folder)
        try:
            if not self._end.poll(TIMEOUT_S):
                raise TimeoutError(f"no answer in {TIMEOUT_S} s")
            good, answer = self._end.recv()
        except (EOFError, ConnectionError, TimeoutError) as error:
            self.stop()
            code = self._process.exitcode
            self._start()
            raise AssertionError(f"the reader did not survive: {error!r}, {code}") from None
        assert good, answer
        return str(answer)

    def stop(self) -> None:
        self._process.join(1)
        self._process.kill()
        self._process.join()
        self._end.close()


def _serve(end: Connection) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, -1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            folder = end.recv()
        except EOFError:
            return
        try:
            end.send((True, read_set(folder)))
        except BaseException:
            end.send((False, traceback.format_exc()))
