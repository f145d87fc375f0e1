"""Best, ties, losses, what fits and what is achieved, by hand."""

import pytest

from hpcgeo.measured import Memory
from hpcgeo_analysis import winners
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points

GIB = 2**30


def one(records):
    (comparison,) = compare(points(records))
    return comparison


def printed(make, name, rate, devices=8, **fields):
    """A point as a paper prints it: a rate, and no spread."""
    fields = {"kind": "published", "images_per_s": rate, **fields}
    return make(name, devices, None, **fields)


def test_a_field_is_ranked_by_rate(make):
    records = [make("DDP", 4, 0.2), make("NO_SHARD", 4, 0.1), make("FULL_SHARD", 4, 0.101)]
    (field,) = winners.fields([one(records)])
    assert [scaled.line for scaled in field.ranked] == ["NO_SHARD", "FULL_SHARD", "DDP"]
    assert [scaled.line for scaled in field.tied] == ["FULL_SHARD"]
    assert (field.devices, field.spread, field.noisy, field.unlike) == (4, True, False, {})


@pytest.mark.parametrize(
    ("best", "other", "tie"),
    [
        (100, 96, True),  # 4.2 % apart
        (100, 94, False),  # 6.4 % apart
        (50.0, 47.0, True),  # 6.4 % apart as printed; 49.5 and 47.5 are 4.2 % apart
        (50.5, 47.4, False),  # printed with a digit more
        (1000.0, 951.0, False),  # 5.2 % apart, and rounding is small
    ],
)
def test_rates_without_a_spread_tie_within_5_percent_and_their_rounding(make, best, other, tie):
    records = [printed(make, "FULL_SHARD", float(best)), printed(make, "DDP", float(other))]
    (field,) = winners.fields([one(records)])
    assert bool(field.tied) == tie


def test_rounding_is_of_what_was_printed(make):
    rates = {83.0: 0.5, 4000.0: 0.5, 12.5: 0.05, 0.25: 0.005}
    for rate, half in rates.items():
        (point,) = points([printed(make, "DDP", rate)])
        assert point.rounding == pytest.approx(half)
    (clocked,) = points([make()])
    assert clocked.rounding == 0


def test_what_is_noisy_or_unlike_is_known(make):
    records = [make("DDP", 4, 0.1, spread=0.4), make("FULL_SHARD", 4, 0.2)]
    records.append(make("NO_SHARD", 4, 0.5, environment={"NCCL_ALGO": "Tree"}))
    (field,) = winners.fields([one(records)])
    assert field.noisy
    assert field.unlike == {"NO_SHARD": ("NCCL_ALGO Tree (base: not set)",)}


def test_losses_between_neighbours(make):
    # 80, 76, 60 and 66 images/s a device: loses 5 %, then 21 %, then gains 10 %.
    records = [make(devices=n, step_s=8 / rate) for n, rate in ((1, 80), (2, 76), (4, 60), (8, 66))]
    found = winners.losses(one(records))
    assert [loss.share for loss in found] == pytest.approx([0.05, 16 / 76, -0.1])
    assert [loss.breaks for loss in found] == [False, True, False]
    assert (found[1].before.point.devices, found[1].after.point.devices) == (2, 4)


def held(make, name, devices, gib, limit=64, **fields):
    memory = Memory(peak_reserved_bytes=int(gib * GIB), limit_bytes=limit * GIB)
    taken = {"memory": memory, "peak_memory_bytes": int(gib * GIB), "memory_source": "reserved"}
    return make(name, devices, **taken, **fields)


def test_the_smallest_group_that_fits(make):
    records = [held(make, "FULL_SHARD", 8, 9), held(make, "HYBRID_SHARD", 8, 30, group_size=2)]
    found = winners.smallest_group(one(records))
    assert found and (found.group, found.point.layout) == (2, "HYBRID_SHARD(2)")
    assert (found.kind, found.share, found.tight) == ("reserved", 30 / 64, False)
    found = winners.smallest_group(one([*records, held(make, "NO_SHARD", 8, 63)]))
    assert found and (found.group, found.tight) == (1, True)
    assert winners.smallest_group(one([make()])) is None
    resident = {"memory_source": "resident", "peak_memory_bytes": GIB}
    mixed = one([held(make, "NO_SHARD", 8, 63), make("DDP", 8, **resident)])
    assert winners.smallest_group(mixed) is None


def test_node_hours_per_million_images(make):
    # 4 nodes at 2,000 images/s: a million images take 500 s, 2,000 node-seconds.
    (point,) = points([make(devices=32, nodes=4, images_per_s=2000.0, step_s=None)])
    assert winners.node_hours(point) == pytest.approx(2000 / 3600)
    (untimed,) = points([make(step_s=None)])
    assert winners.node_hours(untimed) is None


def test_a_baseline_stands_beside_a_comparison_and_is_no_candidate(make):
    records = [make("NO_SHARD", n, 0.1 * n**0.1) for n in (1, 2, 4)]
    records += [make("NO_SHARD", n, 0.09, communication="off") for n in (1, 2, 4)]
    records.append(make("NO_SHARD", 4, 0.09, communication="off", micro_batch=16))
    comparison = one(records)
    assert list(comparison.lines) == list(comparison.baseline) == ["NO_SHARD"]
    silent = comparison.baseline["NO_SHARD"]
    assert [(s.point.devices, s.point.first.micro_batch) for s in silent] == [
        (1, 8),
        (2, 8),
        (4, 8),
    ]
    assert all(s.point.baseline and not s.point.candidate for s in silent)
    assert all(len(field.ranked) == 1 for field in winners.fields([comparison]))
