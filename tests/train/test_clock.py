"""Phases of a rank: what is inside another phase is no part of it."""

import pytest
import torch

from hpcgeo.phases import PHASES, phase, watched
from hpcgeo.train.clock import Clock


def test_an_inner_phase_is_no_part_of_the_outer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views cut in a rank that waits for its batch are augmentation, not waiting."""
    moments = iter([0.0, 1.0, 4.0, 10.0, 20.0, 22.0])
    clock = Clock(torch.device("cpu"))
    monkeypatch.setattr(clock, "now", lambda: next(moments))
    with watched(clock):
        with phase("data_wait"), phase("augmentation"):
            pass
        with phase("forward"):
            pass
    seconds = dict(zip(PHASES, clock.take(), strict=True))
    assert seconds == dict.fromkeys(PHASES, 0.0) | {
        "data_wait": 7.0,
        "augmentation": 3.0,
        "forward": 2.0,
    }
    assert not any(clock.take())
