"""Ranks meet those of their own start: not of another run, not of a start whose ranks are dead."""

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch.distributed as dist

from hpcgeo.errors import InputError
from hpcgeo.parallel.group import _answer, _call

RUN = json.dumps(["", "runs/a"])


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def begin(pool: ThreadPoolExecutor, store: Any, rank: int, ranks: int) -> Future[Any]:
    if rank == 0:
        return pool.submit(_call, store, RUN, ranks, "a", 10)
    return pool.submit(_answer, store, RUN, rank, "b", 10, "b:1")


def met(futures: list[Future[Any]]) -> str:
    """Return the one name under which all ranks met."""
    found = [future.result(30) for future in futures]
    assert not any(missing for _, missing in found)
    stores = [store for store, _ in found]
    stores[0].set("said", "here")
    return {store.get("said") for store in stores}.pop().decode()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_start_in_the_store_of_one_that_ended(
    pool: ThreadPoolExecutor, order: tuple[int, ...]
) -> None:
    """As torchrun --max-restarts does: ranks come in any order, and find the keys of dead ones."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    names = set()
    for _ in range(3):
        futures = [begin(pool, store, rank, 3) for rank in order]
        assert met(futures) == "here"
        names.add(store.get("start"))
    assert len(names) == 3


def test_a_start_in_the_store_of_one_that_never_met(pool: ThreadPoolExecutor) -> None:
    """Rank 0 and 2 were killed before the others came: 1 waits there until rank 0 is back."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    store.set("start", f"dead {RUN}")
    dist.PrefixStore("dead", store).add("arrived", 2)  # type: ignore[attr-defined]
    waiting = begin(pool, store, 1, 3)
    with pytest.raises(TimeoutError):
        waiting.result(1)
    assert met([begin(pool, store, 0, 3), waiting, begin(pool, store, 2, 3)]) == "here"


def test_an_answer_to_a_dead_start_costs_no_patience(pool: ThreadPoolExecutor) -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    store.set("start", f"dead {RUN}")
    waiting = pool.submit(_answer, store, RUN, 1, "b", 1.0, "b:1")
    time.sleep(1.6)
    root = pool.submit(_call, store, RUN, 3, "a", 10)
    time.sleep(1.4)
    assert met([root, waiting, begin(pool, store, 2, 3)]) == "here"


def test_those_who_do_not_come_are_told_to_all(pool: ThreadPoolExecutor) -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    futures = [pool.submit(_call, store, RUN, 3, "a", 0.5), begin(pool, store, 2, 3)]
    assert [future.result(30)[1] for future in futures] == ["1 of 3 ranks (rank 1)"] * 2


def test_a_rank_of_another_run_is_refused(pool: ThreadPoolExecutor) -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    _call(store, RUN, 1, "a", 1)
    with pytest.raises(InputError, match=r"at b:1 the ranks of another run meet \(runs/a\): two"):
        _answer(store, json.dumps(["7.0", ""]), 1, "b", 1, "b:1")
