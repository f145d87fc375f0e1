"""Pieces of work are shared out over ranks whole: results do not depend on how many there are."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch.distributed as dist

from hpcgeo.errors import InputError
from hpcgeo.log import track

Answer = TypeVar("Answer")


def shared_out(
    pieces: Sequence[Callable[[], Answer]], group: dist.ProcessGroup | None, work: str = ""
) -> list[Answer]:
    """Return what each piece of work answers, on every rank.

    Args:
        pieces: the same ones on every rank; the answers can be pickled.
        group: of the ranks; None: this process alone does all of it.
        work: what it is, if people are told how far it is: of the pieces of rank 0.

    Raises:
        InputError: a rank met one; every rank raises it, none is left waiting.
    """
    rank, size = (dist.get_rank(group), dist.get_world_size(group)) if group else (0, 1)
    shown = bool(work) and rank == 0
    if group is None:
        return [piece() for piece in track(pieces, work, shown=shown)]
    mine: list[Answer] | InputError
    try:
        mine = [piece() for piece in track(pieces[rank::size], work, shown=shown)]
    except InputError as error:
        error.shared = True
        mine = error
    everyone: list[list[Answer] | InputError] = [[] for _ in range(size)]
    dist.all_gather_object(everyone, mine, group=group)
    done = []
    for theirs in everyone:
        if isinstance(theirs, InputError):
            theirs.shared = True
            raise theirs
        done.append(theirs)
    return [done[number % size][number // size] for number in range(len(pieces))]
