"""A ViT on labelled samples: one process = DDP = FULL_SHARD, also where passes are empty."""

import pytest

from tests.distributed import ALL, on_ranks
from tests.parallel.mixing import train

STEPS, TOLERANCE = 4, 1e-5
CASES = {
    "multitask": ("model.name=vit_tiny", "data.only=[pairs]"),
    "mae": ("model.name=vit_tiny", "data.only=[pairs]", "objective={name: mae}"),
}


def trained(
    cases: dict[str, tuple[str, ...]], options: dict[str, object]
) -> dict[str, list[float]]:
    return {name: train(options, STEPS, 1, 40, *more)[0].losses for name, more in cases.items()}


@pytest.mark.slow
def test_losses_are_the_same_under_every_strategy() -> None:
    (alone,) = on_ranks(trained, 1, CASES, {"strategy": "DDP"})
    for strategy in ("DDP", "FULL_SHARD") if ALL else ("FULL_SHARD",):
        for found in on_ranks(trained, 2, CASES, {"strategy": strategy}):
            for name, losses in alone.items():
                assert found[name] == pytest.approx(losses, abs=TOLERANCE), (name, strategy)
