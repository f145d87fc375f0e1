"""`hpcgeo` as a process of its own, forked from one that has imported it: ready in a tenth of the
time that an interpreter takes to import torch.

It differs from `python -m hpcgeo` in nothing else: it has its own arguments, environment, folder,
signals and exit code. Where the start itself is the point (another PYTHONPATH, a launcher), tests
start `EXEC`.
"""

import atexit
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import process as multiprocess
from pathlib import Path
from types import ModuleType

from hpcgeo.cli.main import hpcgeo as command

CONTEXT = multiprocessing.get_context("forkserver")
#: What ranks of all kinds import in the end; what is not installed is left out.
CONTEXT.set_forkserver_preload(
    [
        *("hpcgeo.cli.train", "hpcgeo.cli.profile", "hpcgeo.cli.list", "hpcgeo.train.loop"),
        *("hpcgeo.parallel.native", "hpcgeo.objectives.mae.network", "hpcgeo.profiling.run"),
        *("hpcgeo.objectives.multitask.network", "hpcgeo.evaluate.table", "hpcgeo.evaluate.frozen"),
        *("hpcgeo.data.readers.generated", "hpcgeo.pictures.charts", "torch.utils.tensorboard"),
        "tests.processes",
    ]
)

# What was imported is no garbage: children need not look through it, which would copy its memory.
gc.freeze()

#: The real command.
EXEC = [sys.executable, "-m", "hpcgeo"]
MAIN = str(Path(__file__).parents[1] / "hpcgeo" / "__main__.py")


class Process:
    """A running `hpcgeo`, with the methods of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        *words: object,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        together: bool = False,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Start it.

        Args:
            words: of the command line.
            env: its whole environment; by default ours.
            cwd: its folder; by default ours.
            together: what it says on stderr stands in stdout.
            before: a function of a module that it calls first.
        """
        self.args = list(map(str, words))
        folder = Path(tempfile.mkdtemp(prefix="hpcgeo-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._said = [folder / name for name in ("stdout", "stderr")]
        for path in self._said:
            path.touch()
        files = [str(self._said[0]), str(self._said[0 if together else 1])]
        self._process = CONTEXT.Process(
            target=_main,
            args=(self.args, dict(os.environ if env is None else env), str(cwd or "."), files),
            kwargs={"before": before},
            daemon=True,
        )
        self._process.start()
        assert self._process.pid
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, of a signal below zero; None: it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the same."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit code."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0, *self.said())
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it said."""
        self.wait(timeout)
        return self.said()

    def said(self) -> tuple[str, str]:
        """Return what it has said so far, on stdout and stderr."""
        out, err = (path.read_text() for path in self._said)
        return out, err


def hpcgeo(
    *words: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    together: bool = False,
    before: Callable[[], object] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run `hpcgeo` with these words; return how it went."""
    process = Process(*words, env=env, cwd=cwd, together=together, before=before)
    try:
        code = process.wait(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, code, *process.said())


def _main(
    words: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    files: Sequence[str],
    before: Callable[[], object] | None,
) -> None:
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = [MAIN, *words]
    # Nothing of it is a child of multiprocessing, or of pytest: it may start processes of its own.
    multiprocess.current_process()._config = {"authkey": os.urandom(32), "semprefix": "/mp"}
    multiprocess._parent_process = None
    sys.modules["__main__"] = ModuleType("__main__")
    tempfile.tempdir = None
    try:
        if before:
            before()
        command()
    finally:
        atexit._run_exitfuncs()
