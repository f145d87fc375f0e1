"""One process = every strategy: same losses, same norms, same parameters."""

import numpy as np
import pytest

from tests.distributed import on_ranks
from tests.parallel.training import engine_of, one_step

GLOBAL_BATCH = 8
STEPS = 20


def train(name: str, group_size: int | None, accumulate: int, dtype: str = "float32"):
    """Train a tiny MAE on random images; return losses, norms, and the whole final parameters."""
    engine = engine_of(name, group_size, accumulate, dtype)
    rows = [one_step(engine, step, GLOBAL_BATCH, accumulate) for step in range(STEPS)]
    losses, norms = (list(column) for column in zip(*rows, strict=True))
    whole = {
        name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach()
        for name, p in engine.objective.named_parameters()
    }
    return losses, norms, {name: value.numpy().copy() for name, value in whole.items()}


@pytest.fixture(scope="module")
def alone():
    return on_ranks(train, 1, "DDP", None, 1)[0]


@pytest.mark.parametrize(
    ("name", "group_size", "ranks", "accumulate"),
    [
        ("DDP", None, 2, 1),
        ("DDP", None, 2, 2),
        ("NO_SHARD", None, 2, 1),
        ("NO_SHARD", None, 2, 2),
        ("HYBRID_SHARD", 2, 4, 2),
        ("FULL_SHARD", None, 4, 1),
        ("FULL_SHARD", None, 4, 2),
        ("SHARD_GRAD_OP", None, 4, 1),
        ("HYBRID_SHARD", 2, 4, 1),
        ("FULL_SHARD", None, 1, 4),
    ],
)
def test_every_strategy_trains_as_one_process(alone, name, group_size, ranks, accumulate) -> None:
    answers = on_ranks(train, ranks, name, group_size, accumulate)
    for losses, norms, parameters in answers:
        assert losses == pytest.approx(alone[0], abs=1e-6)
        assert norms == pytest.approx(alone[1], rel=1e-4)
        for key, value in parameters.items():
            difference = np.abs(value - alone[2][key])
            if key.endswith("qkv.bias"):  # softmax cannot see the keys' bias: its gradient is noise
                difference = difference.reshape(3, -1)[[0, 2]]
            assert difference.max() < 2e-5, key


def test_the_loss_falls(alone) -> None:
    assert alone[0][-1] < alone[0][0]


@pytest.mark.parametrize("name", ["DDP", "FULL_SHARD"])
def test_bfloat16_follows_float32(alone, name: str) -> None:
    """The arithmetic is bfloat16, the weights and the optimizer are not."""
    for losses, _, parameters in on_ranks(train, 2, name, None, 1, "bfloat16"):
        assert losses == pytest.approx(alone[0], abs=2e-2)
        assert losses != pytest.approx(alone[0], abs=1e-6)
        assert all(value.dtype == np.float32 for value in parameters.values())
