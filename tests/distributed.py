"""Run a function on N real gloo processes and return what each rank answered."""

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

#: Whole tables and long tests too: HPCGEO_ALL=1 takes the better part of an hour on two cores.
ALL = bool(os.environ.get("HPCGEO_ALL"))

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["hpcgeo.parallel.native", "hpcgeo.objectives.mae.network"])


def on_ranks(
    function: Callable[..., Any], ranks: int, *arguments: Any, timeout_s: float = 120
) -> list[Any]:
    """Call ``function(*arguments)`` on `ranks` processes of one gloo group; return their answers.

    The function must be importable (at the top of a test module). A rank that raises fails the
    caller with that rank's traceback; ranks that hang are killed after `timeout_s`.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(ranks)]
        processes = [
            CONTEXT.Process(
                target=_rank,
                args=(function, rank, ranks, f"{folder}/store", pipes[rank][1], arguments),
            )
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            answers = []
            for rank, (end, _) in enumerate(pipes):
                if not end.poll(timeout_s):
                    raise TimeoutError(f"rank {rank} of {ranks} gave no answer in {timeout_s} s")
                good, answer = end.recv()
                assert good, f"rank {rank} of {ranks} failed:\n{answer}"
                answers.append(answer)
            return answers
        finally:
            for process in processes:
                process.kill()
                process.join()


def _rank(
    function: Callable[..., Any],
    rank: int,
    ranks: int,
    store: str,
    pipe: Any,
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
        pipe.send((True, function(*arguments)))
        dist.barrier()
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    os._exit(0)
