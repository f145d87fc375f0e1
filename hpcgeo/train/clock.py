"""Moments and phases of a rank: of its device's stream, without waiting for it; of a host, its own.

A moment on a device is an event on the current stream: what lies between two of them is read once
the device is synchronised.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.profiler import record_function

from hpcgeo.phases import PHASES


class Clock:
    """Takes moments, and notes the phases it watches."""

    def __init__(self, device: torch.device, prefix: str = "") -> None:
        """Start with no phase; `prefix` stands before the names of phases in a trace."""
        self.on_device = device.type == "cuda"
        self.naming = False  #: phases stand in the trace
        self._prefix = prefix
        self._phases: list[tuple[str, str | None, Any, Any]] = []  #: name, what it is inside of
        self._open: list[str] = []

    def now(self) -> Any:
        """Return this moment."""
        if not self.on_device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.on_device:
            torch.cuda.synchronize()

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the seconds between two moments; the device is synchronised."""
        return float(begin.elapsed_time(end)) * 1e-3 if self.on_device else float(end - begin)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Watch a phase; one inside another is no part of that."""
        outer = self._open[-1] if self._open else None
        self._open.append(name)
        with record_function(self._prefix + name) if self.naming else nullcontext():
            begin = self.now()
            try:
                yield
            finally:
                self._phases.append((name, outer, begin, self.now()))
                self._open.pop()

    def take(self) -> list[float]:
        """Return the seconds of each of PHASES since the last call; the device is synchronised."""
        seconds = dict.fromkeys(PHASES, 0.0)
        for name, outer, begin, end in self._phases:
            took = self.seconds(begin, end)
            seconds[name] += took
            if outer:
                seconds[outer] -= took
        self._phases.clear()
        return list(seconds.values())
