"""Tiles are answered a few at a time: their numbers depend on neither ranks nor cores.

On a host each product is done by one thread, for what a sum comes to depends on how many share it;
so that all cores work, several pieces of a batch are answered beside each other.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from hpcgeo.data.sample import Sample
from hpcgeo.maps.blending import Ask

#: Tiles of a piece, on a host.
PIECE = 4


class Asking:
    """What answers for tiles, on the device of this rank."""

    def __init__(self, ask: Ask, device: torch.device) -> None:
        """Take a model; on a host, the threads that this rank has."""
        self._ask, self._pool = ask, None
        if device.type == "cpu":
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            one = partial(torch.set_num_threads, 1)
            self._pool = ThreadPoolExecutor(threads, "tiles", initializer=one)

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Return answers to samples, (b, K, H, W)."""
        if self._pool is None:
            return self._ask(samples)
        pieces = [samples[first : first + PIECE] for first in range(0, len(samples), PIECE)]
        return torch.cat(list(self._pool.map(self._ask, pieces)))
