"""Dense heads answer a chunk of pixels at a time: memory does not grow with the frame."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpcgeo.kinds.target import Target
from hpcgeo.models.features import Features
from hpcgeo.models.perceiver import PerceiverBackbone
from hpcgeo.objectives.collate import Question
from hpcgeo.objectives.multitask import network as multitask
from hpcgeo.objectives.multitask.network import Asked, MultiTaskNetwork
from hpcgeo.objectives.multitask.objective import MultiTaskOptions
from tests.mixed import TINY


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that live at once, beside those that were there before."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()
        self.before = {tensor.untyped_storage().data_ptr() for tensor in before}
        self.alive: dict[int, int] = {}  # of a storage, by its place
        self.most = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() in self.before:
                    continue
                self.alive[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage.data_ptr(), None)
        self.most = max(self.most, sum(self.alive.values()))
        return result


def peak(side: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the most bytes alive at once while all pixels of a frame are answered, less them."""
    monkeypatch.setattr(multitask, "CHUNK", chunk)
    asked = {"tiles": Asked(Target("segmentation", ("no", "yes")))}
    objective = MultiTaskNetwork(
        PerceiverBackbone(TINY, [("rgb", "R", 0)], "uniform"),
        asked,
        MultiTaskOptions(name="multitask"),
    )
    latents, grid = torch.randn(2, 32, 96), torch.randn(2, 1, 3, 4, 4, 64)
    there = torch.ones(grid.shape[:-1], dtype=torch.bool)
    rows = torch.arange(2)
    question = Question("tiles", rows, torch.zeros(2, side, side), 0, rows, None, (side, side))
    given = [latents, grid, there, *objective.parameters()]
    with torch.no_grad(), Peak(given) as measured:
        answers, _ = objective.heads(Features(latents, latents, [grid], [there]), [question])
    return measured.most - 2 * answers[0].untyped_storage().nbytes()  # parts, and joined


def test_memory_does_not_grow_with_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    # Unchunked it does: the measure sees it.
    assert peak(64, 64**2, monkeypatch) > 3 * peak(32, 32**2, monkeypatch)
    assert peak(64, 256, monkeypatch) < 1.1 * peak(32, 256, monkeypatch)
    assert peak(64, 256, monkeypatch) < peak(64, 64**2, monkeypatch) / 4
