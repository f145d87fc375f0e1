"""How ranks share work: each claims the next piece when it is free, and all wait for the last.

A collective would be given up while one rank works on: ranks ask the store of the group instead.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from hpcgeo.parallel.group import own_store

Piece = TypeVar("Piece")

#: Pieces of each rank where all are alike: the last ones then end close to each other.
PIECES = 4
#: Seconds between looks at who has come.
PAUSE_S = 0.05


class Shares:
    """Work of all ranks, round by round; each of them calls every method in the same order."""

    def __init__(self) -> None:
        """Join the others."""
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self._store = own_store() if self.world > 1 else None
        self._round = 0

    def claim(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Yield pieces that no other rank has; the list is the same on all, and all call it."""
        self._round += 1
        if self._store is None:
            yield from pieces
            return
        key = f"maps/{self._round}/next"
        while (number := self._store.add(key, 1) - 1) < len(pieces):
            yield pieces[number]

    def wait(self) -> None:
        """Wait until every rank has come here, however long it takes."""
        if self._store is None:
            return
        key = f"maps/{self._round}/came"
        self._store.set_timeout(timedelta(minutes=5))
        self._store.add(key, 1)
        while self._store.add(key, 0) < self.world:
            time.sleep(PAUSE_S)

    def gather(self, mine: list[Piece]) -> list[Piece]:
        """Return what all ranks have, in the order of the ranks; they wait for each other."""
        self.wait()
        each: list[list[Piece]] = [[] for _ in range(self.world)]
        dist.all_gather_object(each, mine)
        return [one for some in each for one in some]


def cut(numbers: Sequence[int], world: int) -> list[list[int]]:
    """Return numbers in runs without a gap, short enough that so many ranks end together.

    >>> cut([0, 1, 2, 5, 6], 1), cut(list(range(6)), 2)
    ([[0, 1, 2], [5, 6]], [[0], [1], [2], [3], [4], [5]])
    """
    most = len(numbers) if world == 1 else -(-len(numbers) // (PIECES * world))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1 and len(runs[-1]) < most:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
