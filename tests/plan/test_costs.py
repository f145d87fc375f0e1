"""Seconds of arithmetic and of collectives, by hand."""

from dataclasses import replace

import pytest

from hpcgeo.machines import machine
from hpcgeo.plan.calibration import calibration_of
from hpcgeo.plan.costs import Silicon, Wires, block_seconds
from hpcgeo.stacks import Stack

#: 1 FLOP/s and 1 byte/s, whatever size: seconds are FLOPs and bytes.
PLAIN = Silicon(1.0, 1.0, None, passes=0, scores=0, dtype_bytes=2)
STACK = Stack(width=64, depth=3, heads=4, hidden=256)


def test_products_and_attention_are_the_flops_of_the_block() -> None:
    """Forward once, backward twice; and what the MLP writes and reads, four times its width."""
    block = block_seconds(PLAIN, STACK, 16, 5)
    around = 2 * 16 * 5 * 4 * 256
    assert block.forward == pytest.approx(5 * STACK.flops(16) / 3 + around)
    assert block.backward == pytest.approx(2 * block.forward)
    assert block.around == pytest.approx(around)


def test_a_last_round_of_tiles_takes_as_long_as_a_full_one() -> None:
    """8,224 rows x 1,536 columns: 33 x 12 tiles of 256 x 128 on 110 compute units, four rounds."""
    wide = Stack(width=1536, depth=1, heads=16, hidden=1536)
    assert 4 * 110 > 33 * 12 > 3 * 110
    tiled = block_seconds(replace(PLAIN, compute_units=110), wide, 8224, 1)
    products = wide.products(8224)
    assert products[1] == (8224, 1536, 1536)
    rounds = [11, 4, 4, 4]  # of qkv 33 x 36 tiles, of the others 33 x 12
    by_hand = sum(many * 110 * 2 * 256 * 128 * 1536 for many in rounds)
    around = 2 * 8224 * 4 * 1536
    assert tiled.forward == pytest.approx(by_hand + wide.attention_flops(8224) + around)


def test_sizes_that_are_not_aligned_are_priced_in_two_bytes() -> None:
    odd = Stack(width=64, depth=1, heads=4, hidden=257)
    block = block_seconds(PLAIN, odd, 16, 1)
    assert block.unaligned_forward == pytest.approx(0.8 * 2 * 2 * 16 * 64 * 257)
    assert block.unaligned_backward == pytest.approx(2 * block.unaligned_forward)
    assert block_seconds(PLAIN, STACK, 16, 1).unaligned_forward == 0
    assert block_seconds(replace(PLAIN, dtype_bytes=4), odd, 16, 1).unaligned_forward == 0


def test_what_is_computed_again() -> None:
    block = block_seconds(PLAIN, STACK, 16, 1)
    again = [block.again(mode, 4) for mode in ("none", "selective", "full", 2)]
    assert again == [0, block.around, block.forward, block.forward / 2]


@pytest.fixture
def wires() -> Wires:
    where = machine("frontier")
    assert where.model
    figures = calibration_of(where).model_copy(
        update={"hop_us": 10.0, "out_gbs": 40.0, "node_gbs": 80.0, "tree_us": 100.0}
    )
    return Wires.of(where, where.model, figures)


def test_rings(wires: Wires) -> None:
    """The two GCDs of a package are linked 4 x as well as others (200 and 50 GB/s)."""
    assert wires.ring(1e9, 1, 1) == 0
    assert wires.ring(1e9, 2, 2) == pytest.approx(0.5 / 320)
    assert wires.ring(1e9, 2, 2, strided=True) == pytest.approx(0.5 / 80)
    assert wires.ring(1e9, 8, 8) == pytest.approx(7 / 8 / 80)
    assert wires.ring(1e9, 16, 8) == pytest.approx(15 / 16 / 40 + 15 * 10e-6)
    assert wires.ring(1e9, 16, 8, rings=4) == pytest.approx(4 * 15 / 16 / 40 + 15 * 10e-6)


def test_trees(wires: Wires) -> None:
    assert wires.tree(1e9, 1, 1, 1) == 0
    assert wires.tree(1e9, 8, 8, 1) == pytest.approx(2 * 7 / 8 / 80)
    assert wires.tree(1e9, 64, 8, 1) == pytest.approx(2 * 7 / 8 / 40 + 2 * 3 * 100e-6)
    assert wires.tree(1e9, 8, 1, 8) == pytest.approx(8 * 2 * 7 / 8 / 40 + 2 * 3 * 100e-6)
