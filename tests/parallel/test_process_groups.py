"""Process groups and collectives before the first step: bounded, whatever the number of ranks."""

import subprocess
import sys

import pytest
import torch.distributed as dist
from torch.distributed import distributed_c10d

from hpcgeo.strategies import strategies
from tests.distributed import on_ranks
from tests.parallel.training import build

Cost = tuple[int, int]  # process groups of a rank, its collectives on all of them


def costs() -> dict[tuple[str, int | None, int], Cost]:
    """Build an engine for every native strategy; return what each cost this rank."""
    world = dist.get_world_size()
    found = {}
    for chosen in strategies().values():
        if chosen.backend != "native":
            continue
        for size in (1, 2, world) if "group_size" in chosen.takes else (None,):
            for tensor in (1, 2) if "tensor" in chosen.takes and size != world else (1,):
                before = so_far()
                build({"strategy": chosen.name, "group_size": size, "tensor": tensor})
                cost = so_far()[0] - before[0], so_far()[1] - before[1]
                found[chosen.name, size, tensor] = cost
    return found


def so_far() -> Cost:
    groups = list(distributed_c10d._world.pg_map)
    return len(groups), sum(group._get_sequence_number_for_group() for group in groups)


@pytest.mark.long
def test_groups_and_collectives_do_not_grow_with_the_world() -> None:
    four, eight = (on_ranks(costs, ranks) for ranks in (4, 8))
    for told in (*four, *eight):
        for name, (groups, collectives) in told.items():
            assert groups <= 3, f"{name}: the mesh has at most three axes"
            assert collectives <= 3, f"{name}: where all ranks run is all that is agreed upon"
    for name in four[0].keys() & eight[0].keys():
        for told in eight:
            assert told[name] == eight[0][name], f"{name}: ranks differ"
        if name[1] is None:
            assert four[0][name] == eight[0][name], name


def test_a_rank_imports_no_more_than_it_needs() -> None:
    """Every module is a dozen questions to the file system, times all ranks at once."""
    program = (
        "import sys, hpcgeo.cli.train, hpcgeo.cli.ranks, hpcgeo.train.loop\nprint(*sys.modules)"
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
