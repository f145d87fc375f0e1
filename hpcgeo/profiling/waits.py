"""What ranks together say of their collectives: how much is moved, and who waits for whom."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.distributed as dist

from hpcgeo.log import log
from hpcgeo.measured import Traffic, Wait
from hpcgeo.profiling.communication import BUS, Array, Calls, RankGroup, union_s

#: A rank is late where the upper half of the ranks waits longer than it by more than this share of
#: a step, in more than this share of the steps.
LATE, OFTEN = 0.05, 0.75


def gathered(steps: Sequence[Calls]) -> list[list[Calls]] | None:
    """Return the calls of every rank and step on rank 0, None on the others; collective.

    Args:
        steps: of this rank.
    """
    ranks: list[Any] | None = None
    if dist.get_rank() == 0:
        ranks = [None] * dist.get_world_size()
    dist.gather_object(list(steps), ranks)
    return ranks


def compared(step: Sequence[Calls]) -> tuple[Array, Array, Array] | None:
    """Return begin, seconds and the seconds of the last to come: (ranks, calls) each.

    Members of a group leave an all_reduce, all_gather or reduce_scatter together, however late they
    came: the one that spends least time in it came last. Of other collectives nothing is said: the
    seconds of the last are its own. None where the ranks did not call the same.

    Args:
        step: the calls of every rank in one step.
    """
    alike = {tuple((k.collective, k.group.name, k.message_bytes) for k in c.kinds) for c in step}
    if len(alike) > 1:
        return None
    seconds = np.stack([calls.seconds for calls in step])
    least = seconds.copy()
    together: dict[RankGroup, list[int]] = defaultdict(list)
    for place, kind in enumerate(step[0].kinds):
        if kind.collective in BUS:
            together[kind.group].append(place)
    for columns in together.values():
        for group in {calls.kinds[columns[0]].group for calls in step}:
            block = np.ix_(group.ranks, columns)
            least[block] = seconds[block].min(axis=0)
    return np.stack([calls.begin for calls in step]), seconds, least


def wait(ranks: Sequence[Sequence[Calls]], hosts: Sequence[str], step_s: float) -> Wait | None:
    """Return who waited how long per step, and the straggler if there is one.

    A rank waits in a collective for as long as it spends more time in it than the last to come; no
    two clocks are compared, and waits that overlap count once.

    Args:
        ranks: the calls of each rank and step.
        hosts: of every rank.
        step_s: of the median step.

    Returns:
        None where the ranks did not call the same.
    """
    steps = [compared(step) for step in zip(*ranks, strict=True)]
    rows = [union_s(found[0], found[0] + found[1] - found[2]) for found in steps if found]
    if len(rows) < len(steps):
        log.warning("ranks call different collectives: of these steps no waits are recorded")
    if not rows:
        return None
    by_step = np.stack(rows, axis=1)  # (ranks, steps)
    upper = np.sort(by_step, axis=0)[len(by_step) // 2 :]
    late = np.median(upper, axis=0) - by_step
    often = (late > LATE * step_s).mean(axis=1) > OFTEN
    late_s = np.where(often, np.median(late, axis=1), 0.0)
    first, seconds = int(late_s.argmax()), np.median(by_step, axis=1).tolist()
    if not often[first]:
        return Wait(seconds=seconds)
    return Wait(
        seconds=seconds,
        straggler=first,
        host=hosts[first],
        late_s=float(late_s[first]),
        late_ranks=int(often.sum()),
    )


def traffic(ranks: Sequence[Sequence[Calls]]) -> list[Traffic]:
    """Return the collectives of a step by kind, group and size, largest share of time first.

    Args:
        ranks: the calls of each rank and step.
    """
    spent: dict[Any, list[float]] = defaultdict(list)
    alone: dict[Any, list[float]] = defaultdict(list)
    for step in zip(*ranks, strict=True):
        found = compared(step)
        for rank, calls in enumerate(step):
            for place, kind in enumerate(calls.kinds):
                of = (kind.collective, kind.group.name, len(kind.group.ranks), kind.message_bytes)
                spent[of].append(calls.seconds[place])
                if found:
                    alone[of].append(found[2][rank, place])
    seen = len(ranks) * len(ranks[0])  # ranks x steps
    rows = []
    for of in sorted(spent, key=lambda of: -sum(spent[of])):
        collective, group, size, message_bytes = of
        transfer_s = float(np.median(alone[of])) if alone[of] else None
        rate = message_bytes / transfer_s if transfer_s and size > 1 and collective in BUS else None
        rows.append(
            Traffic(
                collective=collective,
                group=group,
                ranks=size,
                message_bytes=message_bytes,
                calls=len(spent[of]) / seen,
                seconds=sum(spent[of]) / seen,
                transfer_s=transfer_s,
                algorithm_bytes_per_s=rate,
                bus_bytes_per_s=rate and rate * BUS[collective](size),
            )
        )
    return rows
