"""The order of wrapping: the forgotten is loud, the asked for is done, the risky is said."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpcgeo.models.initialise import draw
from hpcgeo.options import Parallel
from hpcgeo.parallel.native import NativeEngine
from hpcgeo.parallel.parallelise import MANY_RANKS, initialise, warn
from hpcgeo.parallel.topology import RankPlace, Topology
from hpcgeo.strategies import Layout, strategy
from tests.distributed import on_ranks
from tests.parallel.training import TINY, build


def test_a_forgotten_parameter_is_loud() -> None:
    def forgetful(name: str, shape: Any, rows: slice) -> Tensor:
        values = draw(name, shape, rows, seed=0)
        values[-1:] = torch.nan
        return values

    with pytest.raises(RuntimeError, match="parameter weight was not initialised"):
        initialise(nn.Linear(3, 4), forgetful)
    initialise(nn.Linear(3, 4), partial(draw, seed=0))


def ahead(**options: Any) -> tuple[list[int], list[int]]:
    """Return how many units each one gathers ahead, in forward and in backward."""
    engine, _ = build({"strategy": "FULL_SHARD", **options}, model=TINY)
    assert isinstance(engine, NativeEngine)
    objective: Any = engine.objective
    states = [unit._get_fsdp_state() for stack in objective.stacks() for unit in stack]
    return (
        [len(state._states_to_forward_prefetch) for state in states],
        [len(state._states_to_backward_prefetch) for state in states],
    )


def both() -> list[tuple[list[int], list[int]]]:
    return [ahead(), ahead(forward_prefetch=2, backward_prefetch=3)]


def test_units_are_gathered_ahead() -> None:
    for usual, asked in on_ranks(both, 2):
        assert usual == ([0] * 6, [0] * 6)  # torch's own: one ahead in backward
        assert asked == ([2, 2, 2, 2, 1, 0], [0, 1, 2, 3, 3, 3])


@pytest.mark.parametrize("ranks", [MANY_RANKS, MANY_RANKS + 1])
def test_sums_in_bfloat16_on_many_ranks_are_a_warning(
    ranks: int, caplog: pytest.LogCaptureFixture
) -> None:
    places = (RankPlace("host", 0, 0),) * ranks
    chosen = strategy("FULL_SHARD")
    device = torch.device("cpu")
    topology = Topology(0, device, chosen, Layout(1, ranks, 1), tuple(range(ranks)), places)
    warn(topology, Parallel(strategy="FULL_SHARD", reduce_dtype="bfloat16"))
    assert ("unstable" in caplog.text) == (ranks > MANY_RANKS)
    caplog.clear()
    warn(topology, Parallel(strategy="FULL_SHARD"))
    assert not caplog.text
