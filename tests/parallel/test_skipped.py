"""A step whose gradient is not finite changes nothing: no weight, moment, count or average."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hpcgeo.options import Optim
from tests.distributed import on_ranks
from tests.parallel.training import BANDS, CHIP, LR, PATCHES, build, run, whole

SETTINGS: list[tuple[dict[str, Any], Optim]] = [
    ({"strategy": "DDP"}, Optim(clip=1.0)),
    ({"strategy": "SHARD_GRAD_OP"}, Optim()),
    ({"strategy": "FULL_SHARD"}, Optim(clip=1.0)),
    ({"strategy": "FULL_SHARD", "tensor": 2}, Optim(clip=1.0)),
    ({"strategy": "FULL_SHARD", "offload": True}, Optim(clip=1.0)),
    ({"strategy": "DDP"}, Optim(clip=1.0, ema=0.7)),
    ({"strategy": "FULL_SHARD"}, Optim(name="SGD", momentum=0.9)),
]


def state(engine: Any) -> dict[str, Any]:
    """Return what this rank holds, parameters and optimizer, as arrays."""
    flat = {**engine.state()["model"], **engine.state()["optimizer"]}
    local = {k: getattr(v, "_local_tensor", v) for k, v in flat.items()}
    return {k: np.array(v.detach()) for k, v in local.items() if isinstance(v, torch.Tensor)}


def bad_step(engine: Any, topology: Any) -> float:
    """Give the last data rank an image with a pixel that is not finite."""
    images = torch.ones(4, BANDS, CHIP, CHIP)
    if topology.data_rank == topology.layout.data_parallel - 1:
        images[0] = torch.inf
    engine.forward_backward([{"images": images, "noise": torch.rand(4, PATCHES)}])
    return float(engine.step(LR))


def skipping(settings: list[tuple[dict[str, Any], Optim]]) -> list[tuple[Any, ...]]:
    """Train with a bad step first and one in between, and without."""
    answers = []
    for options, optim in settings:
        engine, topology = build(options, optim=optim)
        first = bad_step(engine, topology)
        losses, _ = run(engine, topology, [0, 1])
        before = state(engine)
        norm = bad_step(engine, topology)
        after = state(engine)
        losses += run(engine, topology, [2])[0]
        same = [k for k in before if not np.array_equal(before[k], after[k], equal_nan=True)]
        plain, topology = build(options, optim=optim)
        expected, _ = run(plain, topology, [0, 1, 2])
        far = whole(plain.state())
        far = max(np.abs(v - far[k]).max() for k, v in whole(engine.state()).items())
        answers.append((first, norm, same, losses == expected, float(far)))
    return answers if dist.get_rank() == 0 else []


@pytest.fixture(scope="module")
def answers() -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = on_ranks(skipping, 2, SETTINGS, timeout_s=300)[0]
    return found


@pytest.mark.parametrize(
    "number", range(len(SETTINGS)), ids=[str(options) for options, _ in SETTINGS]
)
def test_it_changes_nothing(answers: list[tuple[Any, ...]], number: int) -> None:
    first, norm, changed, same_losses, far = answers[number]
    assert not np.isfinite(first) and not np.isfinite(norm)
    assert changed == []
    assert same_losses and far == 0
