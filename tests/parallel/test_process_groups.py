"""Process groups and collectives before the first step: bounded, whatever the number of ranks."""

import subprocess
import sys

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from hpcgeo.config import Objective, Optim
from hpcgeo.objectives.mae import MAE
from hpcgeo.parallel.native import NativeEngine
from hpcgeo.parallel.topology import Topology
from hpcgeo.strategies import Strategy, strategies
from hpcgeo.zoo import architecture
from tests.distributed import on_ranks

Cost = tuple[int, int]  # process groups of a rank, its collectives on all of them


def costs() -> dict[tuple[str, int | None], Cost]:
    """Build an engine for every strategy; return what each cost this rank."""
    world = dist.get_world_size()
    found = {}
    for chosen in strategies().values():
        for size in (1, 2, world) if chosen.parameters == "group" else (None,):
            before = so_far()
            build(chosen, size)
            found[chosen.name, size] = so_far()[0] - before[0], so_far()[1] - before[1]
    return found


def so_far() -> Cost:
    groups = list(distributed_c10d._world.pg_map)
    return len(groups), sum(group._get_sequence_number_for_group() for group in groups)


def build(chosen: Strategy, group_size: int | None) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    size = chosen.shard_size(world, group_size)
    topology = Topology(rank, world, torch.device("cpu"), chosen, size)
    with torch.device("meta"):
        objective = MAE(architecture("vit_tiny"), 3, Objective())
    NativeEngine(objective, topology, optim=Optim(), dtype=torch.float32, accumulate=1, seed=0)


def test_groups_and_collectives_do_not_grow_with_the_world() -> None:
    two, four = (on_ranks(costs, ranks) for ranks in (2, 4))
    for told in (*two, *four):
        for name, (groups, collectives) in told.items():
            assert groups <= 2, f"{name}: the mesh has at most two axes"
            assert collectives <= 2, f"{name}: nothing has to be agreed upon for long"
    for name in two[0].keys() & four[0].keys():
        for told in four:
            assert told[name] == four[0][name], f"{name}: ranks differ"
        if name[1] is None:
            assert two[0][name] == four[0][name], name


def test_a_rank_imports_no_more_than_it_needs() -> None:
    """Every module is a dozen questions to the file system, times all ranks at once."""
    program = (
        "import sys, hpcgeo.cli.train, hpcgeo.cli.ranks, hpcgeo.train.pretrain\nprint(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "rasterio",
        "tensorboard",
        "matplotlib",
        "pandas",
        "transformers",
        "deepspeed",
        "mpi4py",
    }
    assert not heavy & set(loaded)
