"""Bookkeeping of collectives: what is noted of each, and what ranks together say of waiting."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.profiling.communication import Bookkeeping, Calls, CollectiveKind, RankGroup, union_s
from hpcgeo.profiling.waits import compared, gathered, traffic, wait
from tests.distributed import on_ranks

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=12)


def _collectives(communication: bool) -> tuple[list[Any], dict[str, Any]]:
    """Call one collective of every kind; return what was noted, and the results."""
    rank, size = dist.get_rank(), dist.get_world_size()
    pair = dist.new_group([0, 1])
    book = Bookkeeping(torch.device("cpu"), communication=communication)
    results: dict[str, Any] = {}
    with book.installed():
        dist.all_reduce(torch.ones(1))  # before the step: not noted
        book.begin()
        own = torch.full((8,), float(rank))
        results["all_reduce"] = own.clone()
        dist.all_reduce(results["all_reduce"])
        results["all_gather"] = torch.empty(8 * size)
        results["all_gather"][8 * rank :][:8] = own
        dist.all_gather_single(results["all_gather"], results["all_gather"][8 * rank :][:8])
        results["reduce_scatter"] = torch.empty(2)
        dist.reduce_scatter_single(results["reduce_scatter"], torch.arange(2.0 * size))
        pieces = [torch.empty(8) for _ in range(size)]
        dist.all_gather(pieces, own)
        results["pieces"] = torch.cat(pieces)
        results["broadcast"] = own.clone()
        dist.broadcast(results["broadcast"], 1)
        if rank < 2:
            dist.all_reduce(own.clone().bfloat16(), group=pair)
        results["functional"] = torch.ops._c10d_functional.wait_tensor(
            torch.ops._c10d_functional.all_reduce(own, "sum", dist.group.WORLD.group_name)
        )
        calls = book.end()
    noted = [(k.collective, k.group.name, k.group.ranks, k.message_bytes) for k in calls.kinds]
    assert (calls.seconds >= 0).all()
    return noted, {name: result.tolist() for name, result in results.items()}


def test_every_collective_is_noted() -> None:
    world = ("world", (0, 1, 2))
    expected = [
        ("all_reduce", *world, 32),
        ("all_gather", *world, 96),
        ("reduce_scatter", *world, 24),
        ("all_gather", *world, 96),
        ("broadcast", *world, 32),
        ("all_reduce", "group of 2", (0, 1), 16),
        ("all_reduce", *world, 32),
    ]
    for rank, (noted, results) in enumerate(on_ranks(_collectives, 3, True)):
        assert noted == [kind for kind in expected if rank < 2 or kind[2] != (0, 1)]
        assert results["all_reduce"] == results["functional"] == [3.0] * 8
        assert results["all_gather"] == [0.0] * 8 + [1.0] * 8 + [2.0] * 8
        assert results["pieces"] == results["all_gather"]
        assert results["reduce_scatter"] == [6.0 * rank, 6.0 * rank + 3]
        assert results["broadcast"] == [1.0] * 8


def test_left_out_a_collective_gives_what_equal_ranks_would() -> None:
    for rank, (noted, results) in enumerate(on_ranks(_collectives, 3, False)):
        assert noted == []
        assert results["all_reduce"] == results["functional"] == [rank] * 8
        assert results["all_gather"] == results["pieces"] == [rank] * 24
        assert results["reduce_scatter"] == [2 * rank, 2 * rank + 1]


def _gathered() -> Any:
    book = Bookkeeping(torch.device("cpu"))
    with book.installed():
        book.begin()
        dist.all_reduce(torch.ones(4))
        step = book.end()
    return gathered([step])


def test_rank_0_has_the_calls_of_all() -> None:
    first, second = on_ranks(_gathered, 2)
    assert second is None
    assert [[len(step.kinds) for step in rank] for rank in first] == [[1], [1]]


@given(SPANS)
def test_union(spans: list[tuple[int, int]]) -> None:
    begin = np.array([[float(first) for first, _ in spans]])
    end = begin + np.array([[float(length) for _, length in spans]])
    covered = {unit for first, length in spans for unit in range(first, first + length)}
    assert union_s(begin, end) == pytest.approx(len(covered))


def calls(kinds: list[CollectiveKind], begin: list[float], seconds: list[float]) -> Calls:
    return Calls(tuple(kinds), np.array(begin), np.array(seconds))


WORLD = RankGroup("world", (0, 1, 2, 3))
LEFT, RIGHT = RankGroup("tp", (0, 1)), RankGroup("tp", (2, 3))


def made(late: float) -> list[Calls]:
    """Four ranks in one step; rank 2 comes late to a collective of all, 1 and 3 to one of two."""
    ranks = []
    for rank in range(4):
        kinds = [
            CollectiveKind("all_reduce", WORLD, 1000),
            CollectiveKind("all_gather", LEFT if rank < 2 else RIGHT, 64),
        ]
        begin = [late if rank == 2 else 0.0, 1.0 + 0.1 * (rank % 2)]
        end = [late + 0.01, 1.1 + 0.02]
        seconds = [last - first for first, last in zip(begin, end, strict=True)]
        ranks.append(calls(kinds, [100.0 * rank + first for first in begin], seconds))
    return ranks


def test_the_last_to_come_waits_for_nobody() -> None:
    found = compared(made(0.5))
    assert found is not None
    _, _, least = found
    assert least == pytest.approx(np.array([[0.01, 0.02]] * 4))
    waited = wait([[rank, rank] for rank in made(0.5)], ["a", "a", "b", "b"], step_s=2.0)
    assert waited is not None
    assert waited.seconds == pytest.approx([0.6, 0.5, 0.1, 0.5])
    assert (waited.straggler, waited.host, waited.late_ranks) == (2, "b", 1)
    assert waited.late_s == pytest.approx(0.55 - 0.1)


@pytest.mark.parametrize("late", [{2}, {2, 3}, {0, 1}, set(range(8))])
def test_late_ranks_of_many_are_found(late: set[int]) -> None:
    size = 4 if max(late) < 4 else 32
    world = RankGroup("world", tuple(range(size)))
    ranks = [
        calls([CollectiveKind("all_reduce", world, 8)], [0.0], [0.01 if rank in late else 0.11])
        for rank in range(size)
    ]
    waited = wait([[rank] * 5 for rank in ranks], ["node"] * size, step_s=0.3)
    assert waited is not None and waited.straggler == min(late)
    assert waited.late_s == pytest.approx(0.1) and waited.late_ranks == len(late)


def test_a_little_late_is_no_straggler() -> None:
    waited = wait([[rank] for rank in made(0.04)], ["a"] * 4, step_s=2.0)
    assert waited is not None and waited.straggler is None


def test_ranks_that_call_differently_are_not_compared() -> None:
    one = made(0.1)[0]
    other = calls([CollectiveKind("all_reduce", WORLD, 4)], [0.0], [1.0])
    assert compared([one, other]) is None
    assert wait([[one], [other]], ["a", "a"], step_s=1.0) is None
    assert {row.transfer_s for row in traffic([[one], [other]])} == {None}


def test_traffic() -> None:
    rows = traffic([[rank, rank] for rank in made(0.5)])
    reduce, gather = rows  # by time
    assert (reduce.collective, reduce.group, reduce.ranks, reduce.calls) == (
        *("all_reduce", "world", 4),
        1.0,
    )
    assert reduce.seconds == pytest.approx((3 * 0.51 + 0.01) / 4)
    assert reduce.transfer_s == pytest.approx(0.01)
    assert reduce.algorithm_bytes_per_s == pytest.approx(1e5)
    assert reduce.bus_bytes_per_s == pytest.approx(1.5e5)
    assert (gather.group, gather.ranks, gather.message_bytes) == ("tp", 2, 64)
    assert gather.bus_bytes_per_s == pytest.approx(64 / 0.02 / 2)


def test_of_a_broadcast_no_wait_is_said() -> None:
    step = [
        calls([CollectiveKind("broadcast", WORLD, 4)], [0.0], [rank + 1.0]) for rank in range(4)
    ]
    waited = wait([[rank] for rank in step], ["a"] * 4, step_s=1.0)
    assert waited is not None and waited.seconds == [0.0] * 4
