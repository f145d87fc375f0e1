"""`python -m tests.device.waits RECIPE OPTIONS`: what the host waits for in each step, by its name.

Copies between device and host that are not asynchronous, numbers that are read, synchronisations.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpcgeo.config import load
from hpcgeo.train.loop import pretrain
from hpcgeo.train.meter import Meter

aten = torch.ops.aten
#: Their result has a size that only the device knows, or is a number.
READS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)


class Waits(TorchDispatchMode):
    """Counts what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        if func in READS and args[0].device.type == "cuda":
            self.found["read"] += 1
        if func is aten._to_copy.default:
            self._copy(args[0], answer, kwargs.get("non_blocking", False))
        if func is aten.copy_.default:
            self._copy(args[1], args[0], (*args, False, False)[2] or kwargs.get("non_blocking"))
        return answer

    def _copy(self, source: torch.Tensor, target: torch.Tensor, asynchronous: bool) -> None:
        if source.device.type == target.device.type or not source.numel():
            return
        host = source if source.device.type == "cpu" else target
        if not asynchronous or not host.is_pinned():
            self.found["copy to the device" if host is source else "copy to the host"] += 1


class Counted(Meter):
    """Counts what waits in a step, batches and the numbers of the step included."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps_found: list[dict[str, int]] = []

    def measure(self, step: Callable[[], Any]) -> Any:
        self._waits = Waits()
        with self._waits, self._called():
            return super().measure(step)

    def record(self, *arguments: Any, **named: Any) -> bool:
        with self._waits, self._called():
            stop = super().record(*arguments, **named)
        self.steps_found.append(dict(+self._waits.found))
        return stop

    @contextmanager
    def _called(self) -> Iterator[None]:
        """Count what a dispatch mode does not see."""
        synchronize, tensor = torch.cuda.synchronize, torch.tensor

        def synchronized(*arguments: Any) -> None:
            self._waits.found["synchronisation"] += 1
            synchronize(*arguments)

        def made(*arguments: Any, **named: Any) -> torch.Tensor:
            answer = tensor(*arguments, **named)
            self._waits.found["copy to the device"] += answer.device.type == "cuda"
            return answer

        torch.cuda.synchronize, torch.tensor = synchronized, made
        try:
            yield
        finally:
            torch.cuda.synchronize, torch.tensor = synchronize, tensor

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        print(json.dumps(self.steps_found))


if __name__ == "__main__":
    pretrain(load(sys.argv[1], sys.argv[2:]), Counted)
