"""A tiny MAE trained on random images by any engine: what the tests of sameness compare."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hpcgeo.models.initialise import draw
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.options import Optim, Parallel
from hpcgeo.parallel.engine import Engine, Inputs
from hpcgeo.parallel.engines import engine_of
from hpcgeo.parallel.segment import Segment
from hpcgeo.parallel.topology import Topology, lay_out
from hpcgeo.strategies import strategy
from hpcgeo.zoo import Architecture, architecture

GLOBAL_BATCH = 16
BANDS, CHIP, PATCHES = 3, 32, 16
TINY = architecture("vit_tiny")
#: Every kind of block is there, and more of one kind than one.
MODEL = replace(
    TINY, encoder=replace(TINY.encoder, depth=2), decoder=replace(TINY.decoder, depth=1)
)
LR = 1e-3
OPTIM = Optim(clip=1.0)


class Answer(NamedTuple):
    """What a training gives: a loss and a gradient norm per step, and the final parameters."""

    losses: list[float]
    norms: list[float]
    parameters: dict[str, Any]


def build(
    options: dict[str, Any],
    *,
    accumulate: int = 1,
    dtype: str = "float32",
    model: Architecture = MODEL,
    bands: int = BANDS,
    optim: Optim = OPTIM,
    network: Callable[[], nn.Module] | None = None,
) -> tuple[Engine, Topology]:
    """Return the engine of this rank.

    Args:
        options: of `parallel`.
        network: makes what is trained; by default a MAE of `model`.
    """
    parallel = Parallel(**options)
    chosen = strategy(parallel.strategy)
    layout = chosen.layout(dist.get_world_size(), dict(parallel))
    rank = dist.get_rank()
    topology = lay_out(rank, rank, "host", torch.device("cpu"), chosen, layout)
    with torch.device("meta"):
        objective = network() if network else MAE(model, bands, MaeOptions())
    engine = engine_of(chosen)(
        objective,
        topology,
        parallel=parallel,
        optim=optim,
        dtype=getattr(torch, dtype),
        accumulate=accumulate,
        initial=partial(draw, seed=0),
    )
    return engine, topology


def masked(images: Tensor, noise: Tensor) -> Inputs:
    """Return what an objective takes that hides patches."""
    return {"images": images, "noise": noise}


def run(
    engine: Engine,
    topology: Topology,
    steps: Sequence[int],
    accumulate: int = 1,
    global_batch: int = GLOBAL_BATCH,
    inputs: Callable[[Tensor, Tensor], Inputs] = masked,
) -> tuple[list[float], list[float]]:
    """Do the steps of these numbers; return losses over all ranks and gradient norms.

    Args:
        inputs: what a forward takes, of images and of noise for each of their patches.
    """
    rank, world = topology.data_rank, topology.layout.data_parallel
    micro = global_batch // world // accumulate
    losses, norms = [], []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(global_batch, BANDS, CHIP, CHIP, generator=generator)
        noise = torch.rand(global_batch, PATCHES, generator=generator)
        parts = [
            slice((a * world + rank) * micro, (a * world + rank + 1) * micro)
            for a in range(accumulate)
        ]
        scalars = engine.forward_backward(inputs(images[p], noise[p]) for p in parts)
        loss = scalars["loss"].double()
        dist.all_reduce(loss)
        losses.append(loss.item() / topology.world_size)
        norms.append(engine.step(LR).item())
    return losses, norms


def whole(state: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of an engine's state as whole arrays; every rank calls it."""
    parameters = {}
    for name, value in state["model"].items():
        if isinstance(value, Segment):
            full = torch.full(value.shape, -torch.inf)
            for box, part in value.parts():
                place = (slice(a, a + n) for a, n in zip(box.offsets, box.sizes, strict=True))
                full[tuple(place)] = part
            dist.all_reduce(full, dist.ReduceOp.MAX)
        else:
            full = value.full_tensor() if hasattr(value, "full_tensor") else value
        parameters[name] = full.detach().numpy().copy()
    return parameters


def train(
    options: dict[str, Any],
    steps: int,
    accumulate: int = 1,
    dtype: str = "float32",
    model: Architecture = MODEL,
) -> Answer:
    """Train from the start; every rank calls it."""
    engine, topology = build(options, accumulate=accumulate, dtype=dtype, model=model)
    losses, norms = run(engine, topology, range(steps), accumulate)
    return Answer(losses, norms, whole(engine.state()))
