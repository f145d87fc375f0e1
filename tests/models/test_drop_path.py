"""Stochastic depth: the numbers of a sample, its expectation, and nothing of it in evaluation."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hpcgeo.config import load
from hpcgeo.data.sampling import order
from hpcgeo.errors import InputError
from hpcgeo.models.backbone import adapted
from hpcgeo.models.drop_path import kept, rates, uniform
from hpcgeo.models.layers import TransformerBlock
from hpcgeo.objectives.collate import drop_keys
from hpcgeo.stacks import Stack
from tests.mixed import PADDING, drawn, inputs, multitask

POSITIONS = np.arange(4000)


def keys_at(position: Any, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(order.keys(seed, position, "drop path").view(np.int64))


def test_numbers_are_those_drawn_on_the_host() -> None:
    found = uniform(keys_at(POSITIONS), 7).numpy()
    assert np.array_equal(found, order.uniform(0, POSITIONS, "drop path", 7))


def test_rates_are_linear_and_kept_as_often() -> None:
    assert rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert rates(0.3, 1) == [0]
    first, *others = kept(keys_at(POSITIONS), 0.3, 4)
    assert first is None
    for factor, rate in zip(others, (0.1, 0.2, 0.3), strict=True):
        assert factor is not None and factor.shape == (2, 4000, 1, 1)
        assert factor.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
        assert factor.mean(1).flatten().tolist() == pytest.approx([1, 1], abs=0.05)
    attention, mlp = others[-1].squeeze()  # type: ignore[union-attr]
    assert ((attention == 0) & (mlp == 0)).float().mean() == pytest.approx(0.09, abs=0.02)


def test_a_block_skips_for_whole_samples() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(Stack(width=8, depth=1, heads=2, hidden=16))
    x = torch.randn(3, 5, 8)
    nothing, all_twice = torch.zeros(2, 3, 1, 1), torch.full((2, 3, 1, 1), 2.0)
    assert torch.equal(block(x, kept=nothing), x)
    assert torch.equal(block(x, kept=torch.ones(2, 3, 1, 1)), block(x))
    some = torch.cat([nothing[:, :1], all_twice[:, 1:]], dim=1)
    found = block(x, kept=some)
    assert torch.equal(found[0], x[0])
    torch.testing.assert_close(found[1:], block(x, kept=all_twice)[1:])


def test_a_sample_skips_the_same_whatever_stands_beside_it() -> None:
    network = multitask()
    adapted(network.backbone, "perceiver", 0.8, None)
    some = drawn("scenes", "tiles", "scenes")

    def latents(which: list[int]) -> torch.Tensor:
        part = [some[number] for number in which]
        made = inputs(network, part, PADDING)["tokens"]
        return network.backbone.encode(replace(made, keys=drop_keys(part, 0))).latents.detach()

    torch.testing.assert_close(latents([0, 1, 2])[[2, 0]], latents([2, 0]), atol=1e-5, rtol=0)
    without = network.backbone.encode(inputs(network, some, PADDING)["tokens"]).latents
    assert not torch.allclose(latents([0, 1, 2]), without, atol=1e-3)


def test_what_has_no_use_for_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.drop_path has no effect under objective\.name"):
        load("mae_vit_tiny", ["model.drop_path=0.1"])
    with pytest.raises(InputError, match="a mean_pool skips no blocks"):
        adapted(torch.nn.Module(), "mean_pool", 0.1, None)
