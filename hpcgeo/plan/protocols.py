"""Protocols as data: how an engine runs a step, for the clock and the memory of a plan."""

from functools import cache
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from hpcgeo.strategies import Backend, Strategy
from hpcgeo.tables import checked, find, read

Prefetch = Literal["before", "after", "none"]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_STRICT)
class PeakTerms:
    """What ranks held at the peak beside the closed form; all of it fitted, none by model.

    Attributes:
        fixed_gib: beside all causes.
        widths: numbers of a token, in widths, that a block at work holds beside what it keeps.
        gradient_units: whole units of gradients on their way.
        pending_units, pending_shared: units that the allocator may not use again yet, and those
            that the ranks of a group share.
        pending_bytes: the same of a rank that holds all parameters, of each.
        reserve_gib: taken from the device beside it, where ranks share parameters.
    """

    fixed_gib: float = 0.0
    widths: float = 0.0
    gradient_units: float = 0.0
    pending_units: float = 0.0
    pending_shared: float = 0.0
    pending_bytes: float = 0.0
    reserve_gib: float = 0.0


@dataclass(frozen=True, config=_STRICT)
class Protocol:
    """A row of facts/protocols.yaml, whose head says what its fields mean."""

    name: str
    sentence: str
    source: str
    backend: Backend
    keeps_copies: bool
    in_flight: int
    default: bool = False
    late_gather: bool = False
    scores: int = 0
    prefetch: Prefetch = "before"
    silent: bool = False
    clock_s: float = 0.0
    memory: PeakTerms | None = None


@cache
def protocols() -> dict[str, Protocol]:
    """Return every protocol by name."""
    rows = read("protocols")
    return {
        name: checked(Protocol, {"name": name} | row, "protocols.yaml")
        for name, row in rows.items()
    }


def protocol(name: str) -> Protocol:
    """Return one protocol; an unknown name is an InputError that lists the known ones."""
    return find(protocols(), name, "protocol")


def protocol_of(chosen: Strategy) -> Protocol:
    """Return the protocol by which this package runs a strategy."""
    return next(p for p in protocols().values() if p.default and p.backend == chosen.backend)
