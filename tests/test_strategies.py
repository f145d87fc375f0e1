"""Strategies: the volumes of the papers, and group sizes that say what is wrong with them."""

import pytest

from hpcgeo.errors import InputError
from hpcgeo.strategies import strategies, strategy


def volume(name, world_size, group_size=None):
    row = strategy(name)
    shard_size = row.shard_size(world_size, group_size)
    return sum(collective.volume(world_size, shard_size) for collective in row.collectives)


def test_the_rows_and_their_sources():
    native = ["DDP", "NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD", "HYBRID_SHARD"]
    native += ["HYBRID_SHARD_ZERO2"]
    zero = ["ZERO0", "ZERO1", "ZERO2", "ZERO3", "ZERO3_HPZ"]
    assert list(strategies()) == native + zero
    assert all(row.backend == "native" for row in strategies().values() if row.name in native)
    assert all(row.sentence and row.source for row in strategies().values())


def test_volumes_of_zero():
    """ZeRO (arXiv 1910.02054) section 7: stage 2 as data parallelism, stage 3 1.5 x it."""
    for world in (2, 8, 1024):
        whole = 2 * (world - 1) / world
        assert volume("DDP", world) == volume("NO_SHARD", world) == pytest.approx(whole)
        assert volume("SHARD_GRAD_OP", world) == pytest.approx(whole)
        assert volume("FULL_SHARD", world) == pytest.approx(1.5 * whole)


def test_hybrid_meets_its_neighbours():
    """One group is full sharding; groups of one rank pay the all-reduce alone."""
    assert volume("HYBRID_SHARD", 16, 16) == pytest.approx(volume("FULL_SHARD", 16))
    assert volume("HYBRID_SHARD", 16, 1) == pytest.approx(volume("DDP", 16))
    assert volume("HYBRID_SHARD", 16, 4) == pytest.approx(3 * 3 / 4 + 2 / 4 * 3 / 4)


def test_what_is_gathered_twice_is_resharded():
    for row in strategies().values():
        gathers = sum(collective.name == "all_gather" for collective in row.collectives)
        assert (gathers == 2) == row.reshard_after_forward, row.name


@pytest.mark.parametrize(
    ("name", "group_size", "size"),
    [
        ("DDP", None, 1),
        ("NO_SHARD", None, 1),
        ("SHARD_GRAD_OP", None, 12),
        ("FULL_SHARD", None, 12),
        ("HYBRID_SHARD", 4, 4),
        ("HYBRID_SHARD", 1, 1),
        ("HYBRID_SHARD", 12, 12),
    ],
)
def test_shard_size(name, group_size, size):
    assert strategy(name).shard_size(12, group_size) == size


@pytest.mark.parametrize(
    ("name", "group_size", "message"),
    [
        ("HYBRID_SHARD", None, "needs parallel.group_size: on 12 ranks one of 1, 2, 3, 4, 6, 12"),
        (
            "HYBRID_SHARD",
            5,
            "group_size 5 does not divide 12 data-parallel ranks: .* 1, 2, 3, 4, 6, 12",
        ),
        ("HYBRID_SHARD", 24, "group_size 24 does not divide"),
        ("HYBRID_SHARD", 0, "group_size 0 does not divide"),
        ("FULL_SHARD", 4, "group_size 4 has no effect under FULL_SHARD: .*HYBRID_SHARD"),
        ("DDP", 12, "group_size 12 has no effect under DDP"),
    ],
)
def test_bad_groups(name, group_size, message):
    with pytest.raises(InputError, match=message):
        strategy(name).shard_size(12, group_size)


OPTIONS = {"backend": None, "group_size": None, "tensor": 1, "offload": False}
PREFETCH = {"forward_prefetch": None, "backward_prefetch": None}


@pytest.mark.parametrize(
    ("name", "options", "layout"),
    [
        ("DDP", {}, (12, 1, 1)),
        ("FULL_SHARD", {"tensor": 2, "backend": "native", "backward_prefetch": 2}, (1, 6, 2)),
        ("HYBRID_SHARD", {"tensor": 2, "group_size": 3}, (2, 3, 2)),
        ("HYBRID_SHARD_ZERO2", {"group_size": 12}, (1, 12, 1)),
        ("NO_SHARD", {"tensor": 4, "offload": True}, (3, 1, 4)),
        ("ZERO1", {}, (1, 12, 1)),
        ("ZERO3_HPZ", {"group_size": 4, "backend": "deepspeed"}, (1, 12, 1)),
    ],
)
def test_layout(name, options, layout):
    assert strategy(name).layout(12, OPTIONS | PREFETCH | options) == layout


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("DDP", {"tensor": 2}, "parallel.tensor 2 has no effect under DDP: .* NO_SHARD"),
        ("DDP", {"offload": True}, "parallel.offload True has no effect under DDP"),
        ("SHARD_GRAD_OP", {"backward_prefetch": 1}, "backward_prefetch 1 has no effect .* FULL"),
        ("FULL_SHARD", {"tensor": 5}, "parallel.tensor 5 does not divide .* 1, 2, 3, 4, 6, 12"),
        ("HYBRID_SHARD", {"tensor": 2, "group_size": 4}, "group_size 4 does not divide 6 data"),
        ("ZERO2", {"backend": "native"}, "ZERO2 is a strategy of parallel.backend=deepspeed"),
        ("DDP", {"backend": "deepspeed"}, "of parallel.backend=native.* choose one of ZERO0"),
    ],
)
def test_ranks_that_cannot_be_divided_so(name, options, message):
    with pytest.raises(InputError, match=message):
        strategy(name).layout(12, OPTIONS | PREFETCH | options)


def test_an_unknown_strategy():
    with pytest.raises(InputError, match=r"'FULL_SHARD'\?\); known: DDP, NO_SHARD"):
        strategy("FULLSHARD")
