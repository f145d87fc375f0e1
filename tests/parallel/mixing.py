"""A tiny GPNA trained on five generated tasks by any engine: what the tests of sameness compare."""

from typing import Any

import torch
import torch.distributed as dist

from hpcgeo.config import RunConfig, load
from hpcgeo.data.labelled_batches import Drawn
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.topology import Topology, lay_out
from hpcgeo.strategies import strategy
from hpcgeo.train.loop import new_engine
from hpcgeo.train.schedule import frozen
from hpcgeo.workloads.choice import workload_of
from hpcgeo.workloads.workload import Workload
from tests.parallel.training import Answer, whole

GLOBAL_BATCH = 16
LR = 1e-3


def config(options: dict[str, Any], accumulate: int, max_tokens: int, *more: str) -> RunConfig:
    """Return the configuration of a run; `options` are of `parallel`."""
    micro = GLOBAL_BATCH // accumulate * options.get("tensor", 1) // dist.get_world_size()
    sizes = [f"data.tasks.{name}.size=16" for name in ("scenes", "tiles", "pairs")]
    return load(
        "gpna_tiny",
        [
            *(f"parallel.{name}={value}" for name, value in options.items()),
            *sizes,
            f"train.micro_batch={micro}",
            f"train.accumulate={accumulate}",
            f"data.batching.max_tokens={max_tokens}",
            *more,
        ],
    )


def topology_of(run: RunConfig) -> Topology:
    chosen = strategy(run.parallel.strategy)
    layout = chosen.layout(dist.get_world_size(), dict(run.parallel))
    rank = dist.get_rank()
    return lay_out(rank, rank, "host", torch.device("cpu"), chosen, layout)


def train(
    options: dict[str, Any], steps: int, accumulate: int = 1, max_tokens: int = 400, *more: str
) -> tuple[Answer, list[float]]:
    """Train from the start; return also the passes of each step. Every rank calls it."""
    run = config(options, accumulate, max_tokens, *more)
    workload, topology = workload_of(run), topology_of(run)
    batches = iter(workload.batches(topology, 0))
    return learn(
        run,
        workload,
        topology,
        [[one for _ in range(accumulate) for one in next(batches)] for _ in range(steps)],
    )


def learn(
    run: RunConfig, workload: Workload, topology: Topology, steps: list[list[Drawn]]
) -> tuple[Answer, list[float]]:
    """Train on these samples of this rank, step by step."""
    return go_on(run, workload, topology, new_engine(run, workload, topology), steps)


def go_on(
    run: RunConfig,
    workload: Workload,
    topology: Topology,
    engine: Engine,
    steps: list[list[Drawn]],
    first: int = 0,
) -> tuple[Answer, list[float]]:
    """Train an engine on these samples of this rank, from a step on."""
    losses, norms, counts = [], [], []
    for number, drawn in enumerate(steps, first):
        engine.frozen = frozen(number, run.optim)
        todo = workload.step(iter([drawn]), topology.device)
        loss = engine.forward_backward(todo.passes, todo.count)["loss"].double()
        dist.all_reduce(loss)
        losses.append(loss.item() / topology.world_size)
        norms.append(engine.step(LR).item())
        counts.append(todo.count)
    return Answer(losses, norms, whole(engine.state())), counts
