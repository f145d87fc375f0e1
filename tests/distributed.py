"""Run a function on N real gloo processes and return what each rank answered."""

import os
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from tests.processes import CONTEXT

#: Whole tables and long tests too: HPCGEO_ALL=1 takes the better part of an hour on two cores.
ALL = bool(os.environ.get("HPCGEO_ALL"))


class Ranks:
    """Processes of one gloo group that call one function after the other, until they are ended."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._processes: list[Any] = []

    def __enter__(self) -> "Ranks":
        self._folder = tempfile.TemporaryDirectory()
        store = f"{self._folder.name}/store"
        pipes = [CONTEXT.Pipe() for _ in range(self.count)]
        self._ends = [end for end, _ in pipes]
        self._processes = [
            CONTEXT.Process(target=_serve, args=(rank, self.count, store, other))
            for rank, (_, other) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._processes = []
        self._folder.cleanup()

    def __call__(
        self, function: Callable[..., Any], *arguments: Any, timeout_s: float = 120
    ) -> list[Any]:
        """Call ``function(*arguments)`` on every rank; return their answers.

        The function must be importable (at the top of a test module). A rank that raises fails the
        caller with that rank's traceback; then, and where one does not answer in `timeout_s`, all
        are started anew.
        """
        try:
            for end in self._ends:
                end.send((function, arguments))
            answers = []
            for rank, end in enumerate(self._ends):
                if not end.poll(timeout_s):
                    raise TimeoutError(f"rank {rank} of {self.count}: no answer in {timeout_s} s")
                good, answer = end.recv()
                assert good, f"rank {rank} of {self.count} failed:\n{answer}"
                answers.append(answer)
            return answers
        except BaseException:
            self.__exit__()
            self.__enter__()
            raise


def on_ranks(
    function: Callable[..., Any], count: int, *arguments: Any, timeout_s: float = 120
) -> list[Any]:
    """Call ``function(*arguments)`` once on so many `Ranks`; return their answers."""
    with Ranks(count) as ranks:
        return ranks(function, *arguments, timeout_s=timeout_s)


def _serve(rank: int, count: int, store: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send((True, function(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
