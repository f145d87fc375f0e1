"""A tiny MAE on random images, trained under any strategy: what tests of sameness compare."""

from typing import NamedTuple

import torch
import torch.distributed as dist

from hpcgeo.config import Objective, Optim
from hpcgeo.objectives.mae import MAE
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.native import NativeEngine
from hpcgeo.parallel.topology import Topology
from hpcgeo.strategies import strategy
from hpcgeo.zoo import architecture


class Setting(NamedTuple):
    """How an engine is spread."""

    strategy: str
    ranks: int
    group_size: int | None = None

    def __str__(self) -> str:
        group = f"({self.group_size})" if self.group_size else ""
        return f"{self.strategy}{group} {self.ranks}"


def engine_of(
    name: str, group_size: int | None = None, accumulate: int = 1, dtype: str = "float32"
) -> NativeEngine:
    """Return an engine for the ranks of this process group; its model is `engine.objective`."""
    world = dist.get_world_size()
    chosen = strategy(name)
    with torch.device("meta"):
        objective = MAE(architecture("vit_tiny"), 3, Objective())
    return NativeEngine(
        objective,
        Topology(
            dist.get_rank(),
            world,
            torch.device("cpu"),
            chosen,
            chosen.shard_size(world, group_size),
        ),
        optim=Optim(clip=1.0),
        dtype=getattr(torch, dtype),
        accumulate=accumulate,
        seed=0,
    )


def one_step(
    engine: Engine, step: int, global_batch: int, accumulate: int = 1
) -> tuple[float, float]:
    """Train on the samples of a step, the same for any number of ranks; return loss and norm."""
    rank, world = dist.get_rank(), dist.get_world_size()
    micro = global_batch // world // accumulate
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(global_batch, 3, 32, 32, generator=generator)
    noise = torch.rand(global_batch, 16, generator=generator)
    parts = [
        slice((a * world + rank) * micro, (a * world + rank + 1) * micro) for a in range(accumulate)
    ]
    scalars = engine.forward_backward({"images": images[p], "noise": noise[p]} for p in parts)
    loss = scalars["loss"].double()
    dist.all_reduce(loss)
    return loss.item() / world, engine.step(1e-3).item()
