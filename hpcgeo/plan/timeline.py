"""The timeline of one step: units, one by one, as an engine issues them.

A rank has a stream of arithmetic, one communicator over the ranks that share parameters and one
over the replicas; what is issued on a communicator runs in that order. Forward gathers a unit while
the one before computes, backward gathers the next one and scatters the gradients of the last one,
and replicas reduce them after that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpcgeo.plan.protocols import Prefetch


class UnitTimes(NamedTuple):
    """Seconds of a unit, each alone."""

    forward: float
    backward: float  #: with what is recomputed
    gather: float = 0.0
    again: float = 0.0  #: gathering it for backward; 0: it was kept
    scatter: float = 0.0
    reduce: float = 0.0  #: over the replicas, in the last micro-batch


@dataclass(frozen=True)
class Course:
    """What a pass took.

    Attributes:
        end: seconds from the start to its end.
        compute: of them arithmetic.
        busy: seconds in which collectives ran.
    """

    end: float
    compute: float
    busy: float

    @property
    def exposed(self) -> float:
        """Seconds of collectives that nothing hides."""
        return self.end - self.compute

    @property
    def hidden(self) -> float:
        """Seconds of collectives beside arithmetic."""
        return max(self.busy - self.exposed, 0.0)


def run(
    units: Sequence[UnitTimes], *, in_flight: int, prefetch: Prefetch, last: bool = True
) -> Course:
    """Run one micro-batch forward and backward.

    Args:
        units: in the order of forward; the last one is kept for backward.
        in_flight: units gathered and not yet dropped, at most.
        prefetch: when backward gathers the next unit.
        last: of the micro-batches of a step: replicas reduce.
    """
    clock = net = busy = 0.0  # of arithmetic, of the communicator, of all collectives
    done: list[float] = []
    for number, unit in enumerate(units):
        if unit.gather:
            free = done[number - in_flight] if number >= in_flight else 0.0
            net = max(net, free) + unit.gather
            busy += unit.gather
            clock = max(clock, net)
        clock += unit.forward
        done.append(clock)
    many = len(units)
    replicas, ends, there = clock, [clock] * (many + in_flight), [0.0] * many

    def gather(number: int, after: float) -> None:
        nonlocal net, busy
        if number >= 0 and units[number].again:
            net = max(net, after) + units[number].again
            busy += units[number].again
            there[number] = net

    for number in range(many - 1, -1, -1):
        unit = units[number]
        if prefetch == "before":
            gather(number - 1, ends[number + in_flight])
        clock = max(clock, there[number]) + unit.backward
        ends[number] = clock
        if prefetch == "after":
            gather(number - 1, clock)
        if unit.scatter:
            net = max(net, clock) + unit.scatter
            busy += unit.scatter
        if last and unit.reduce:
            replicas = max(replicas, net if unit.scatter else clock) + unit.reduce
            busy += unit.reduce
        if prefetch == "none":
            gather(number - 1, net)
    compute = sum(unit.forward + unit.backward for unit in units)
    return Course(max(clock, net, replicas), compute, busy)
