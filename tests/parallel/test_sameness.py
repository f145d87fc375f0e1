"""One process = every strategy: same losses, same norms, same parameters.

`HPCGEO_ALL=1 pytest -s tests/parallel/test_sameness.py` prints the whole table of differences.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hpcgeo.models.initialise import draw
from hpcgeo.zoo import architecture
from tests.distributed import ALL, Ranks, on_ranks
from tests.parallel.training import Answer, build, run, train, whole

STEPS, MICRO_BATCHES = (20, 4) if ALL else (4, 2)
HEAD_WIDTH = {"backbone": 32, "decoder_blocks": 16}  # of vit_tiny

STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "DDP"},
    {"strategy": "NO_SHARD"},
    {"strategy": "SHARD_GRAD_OP"},
    {"strategy": "FULL_SHARD"},
    *({"strategy": "HYBRID_SHARD", "group_size": k} for k in (1, 2, 4)),
    {"strategy": "HYBRID_SHARD_ZERO2", "group_size": 2},
    {"strategy": "NO_SHARD", "tensor": 2},
    {"strategy": "SHARD_GRAD_OP", "tensor": 2},
    {"strategy": "FULL_SHARD", "tensor": 2},
    {"strategy": "FULL_SHARD", "tensor": 4},
]


def table(strategies: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Return settings: options of `parallel`, and micro-batches per step.

    Every strategy plainly, and every third one with recompute and accumulation; with HPCGEO_ALL
    every strategy with and without both.
    """
    if ALL:
        pairs = [(r, a) for r in ("none", "full") for a in (1, MICRO_BATCHES)]
        return [(options | {"recompute": r}, a) for options in strategies for r, a in pairs]
    both = [(options | {"recompute": "full"}, MICRO_BATCHES) for options in strategies[::3]]
    return [*((options, 1) for options in strategies), *both]


#: Of 4 ranks.
SETTINGS = [
    *table(STRATEGIES),
    ({"strategy": "FULL_SHARD", "recompute": "selective"}, 1),
    ({"strategy": "FULL_SHARD", "tensor": 2, "recompute": "selective"}, 1),
    ({"strategy": "SHARD_GRAD_OP", "recompute": 2}, 1),
    ({"strategy": "FULL_SHARD", "forward_prefetch": 2, "backward_prefetch": 3}, MICRO_BATCHES),
    ({"strategy": "HYBRID_SHARD", "group_size": 2, "offload": True}, MICRO_BATCHES),
]


def named(setting: tuple[dict[str, Any], int]) -> str:
    options, accumulate = setting
    return " ".join([*(f"{k}={v}" for k, v in options.items()), f"accumulate={accumulate}"])


def train_all(settings: list[tuple[dict[str, Any], int]], steps: int = STEPS) -> list[Answer]:
    """Train by one setting after the other in the same processes."""
    answers = [train(options, steps, accumulate) for options, accumulate in settings]
    return answers if dist.get_rank() == 0 else []


def parameters_differ(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Return the largest difference of parameters, the bias of the keys left out.

    Softmax cannot see it: its gradient is rounding noise, which Adam scales to the learning rate.
    """
    worst = 0.0
    for name, value in ours.items():
        difference = np.abs(value - theirs[name])
        if name.endswith("qkv.bias"):
            difference = difference.reshape(-1, 3, HEAD_WIDTH[name.split(".")[0]])[:, [0, 2]]
        worst = max(worst, float(difference.max()))
    return worst


@pytest.fixture(scope="module")
def alone() -> Answer:
    answer: Answer = on_ranks(train, 1, {"strategy": "DDP"}, STEPS)[0]
    return answer


@pytest.fixture(scope="module")
def four() -> Iterator[Ranks]:
    with Ranks(4) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def answers(four: Ranks) -> dict[str, Answer]:
    found = four(train_all, SETTINGS, timeout_s=3600)[0]
    return dict(zip(map(named, SETTINGS), found, strict=True))


@pytest.mark.timeout(4000)
@pytest.mark.parametrize("setting", [named(setting) for setting in SETTINGS])
def test_every_strategy_trains_as_one_process(
    alone: Answer, answers: dict[str, Answer], setting: str
) -> None:
    answer = answers[setting]
    losses = max(abs(a - b) for a, b in zip(answer.losses, alone.losses, strict=True))
    parameters = parameters_differ(answer.parameters, alone.parameters)
    print(f"\n{setting}: loss {losses:.1e}, parameters {parameters:.1e}", end="")
    assert losses < 1e-6
    assert answer.norms == pytest.approx(alone.norms, rel=1e-4)
    assert parameters < 2e-5


def test_the_loss_falls() -> None:
    losses = on_ranks(train, 1, {"strategy": "DDP"}, 10)[0].losses
    assert losses[-1] < losses[0]


@pytest.mark.long
def test_three_axes_at_once(alone: Answer) -> None:
    """2 copies x 2 shards x 2 ranks a product, and one rank of each in groups of one."""
    options = {"strategy": "HYBRID_SHARD", "group_size": 2, "tensor": 2, "recompute": "full"}
    answer = on_ranks(train_all, 8, [(options, 2)], 3, timeout_s=300)[0][0]
    assert answer.losses == pytest.approx(alone.losses[:3], abs=1e-6)


def gated() -> Answer:
    return train(
        {"strategy": "FULL_SHARD", "tensor": dist.get_world_size()},
        3,
        1,
        "float32",
        architecture("vit_tiny_gated"),
    )


@pytest.mark.long
def test_a_gated_mlp_is_cut_as_well(four: Ranks) -> None:
    (whole,), (cut, *_) = on_ranks(gated, 1), four(gated)
    assert cut.losses == pytest.approx(whole.losses, abs=1e-6)


def low(strategies: list[dict[str, Any]]) -> list[Answer]:
    return [train(options, STEPS, 1, "bfloat16") for options in strategies]


@pytest.mark.long
def test_bfloat16_follows_float32(alone: Answer) -> None:
    """The arithmetic is bfloat16; weights, optimizer and sums of gradients are not."""
    some = [
        {"strategy": "DDP"},
        {"strategy": "FULL_SHARD"},
        {"strategy": "FULL_SHARD", "tensor": 2},
    ]
    reduced = [options | {"reduce_dtype": "bfloat16"} for options in some[:2]]
    answers = on_ranks(low, 2, some + reduced, timeout_s=300)[0]
    for answer in answers:
        assert answer.losses == pytest.approx(alone.losses, abs=2e-2)
        assert answer.losses != pytest.approx(alone.losses, abs=1e-6)
        assert all(value.dtype == np.float32 for value in answer.parameters.values())
    for safe, risky in zip(answers[:2], answers[3:], strict=True):
        assert safe.losses[0] == risky.losses[0]  # the forward is the same
        assert safe.losses != risky.losses  # the sums are not


def initial(settings: list[dict[str, Any]]) -> list[bool]:
    """Return whether each setting starts from the very bits that the law draws."""
    same = []
    for options in settings:
        parameters = whole(build(options)[0].state())
        same.append(
            all(
                np.array_equal(value, draw(name, value.shape, slice(None), 0).numpy())
                for name, value in parameters.items()
            )
        )
    return same


def test_initial_weights_are_the_same_bits(four: Ranks) -> None:
    for same in four(initial, STRATEGIES, timeout_s=300):
        assert same == [True] * len(STRATEGIES)


@pytest.mark.long
def test_initial_weights_of_shards_that_are_not_alike() -> None:
    settings = [options for options in STRATEGIES if set(options) == {"strategy"}]
    for same in on_ranks(initial, 3, settings):
        assert same == [True] * len(settings)


def compiled() -> tuple[list[float], list[float]]:
    options = {"strategy": "FULL_SHARD", "recompute": "full"}
    return tuple(
        run(*build(options | {"compile": compile}), range(3))[0] for compile in (False, True)
    )


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++ on a CPU")
def test_compiled_units_compute_the_same() -> None:
    eager, quick = on_ranks(compiled, 2, timeout_s=600)[0]
    assert quick == pytest.approx(eager, abs=1e-6)
    assert torch.get_num_threads()
