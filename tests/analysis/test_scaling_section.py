"""What a line keeps as it grows, where it loses, and what its messages become there."""

import pytest

from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points
from hpcgeo_analysis.sections import scaling as growth


def kept(records):
    (comparison,) = compare(points(records))
    return growth.kept(comparison)


def published(make, strategy, nodes, rate, **fields):
    """Return a point as the study of Frontier printed it: no step, no spread, no traffic."""
    values = {"kind": "published", "model": "vit_huge_gated", "dtype": "bfloat16", "nodes": nodes}
    return make(strategy, 8 * nodes, None, **{**values, "images_per_s": rate, **fields})


def test_scaling_names_its_base_and_its_loss(make):
    records = [make(devices=n, step_s=s) for n, s in ((2, 0.1), (4, 0.105), (8, 0.2))]
    assert kept(records) == [
        "From 2 to 8 devices (weak scaling), throughput per device kept of its own run on 2: "
        "DDP 50 %.",
        "DDP loses 48 % of its throughput per device between 4 and 8 devices, from 95 % to 50 % "
        "of its smallest run.",
    ]


def test_different_bases_are_not_comparable(make):
    records = [make("DDP", n) for n in (1, 2, 4)]
    records += [make("HYBRID_SHARD", n, group_size=2) for n in (2, 4)]
    sentences = kept(records)
    assert "Efficiencies against runs of different size are not comparable." in sentences
    assert "within noise of ideal" in sentences[0]


def test_messages_are_computed_where_traffic_was_not_recorded(make):
    # A block: qkv and projection 4 W (W + 1), gated MLP 2 M (W + 1) + W (M + 1), two norms 4 W.
    W, M = 1280, 3440
    block = 4 * W * (W + 1) + 2 * M * (W + 1) + W * (M + 1) + 4 * W
    rates = {32: 7236.0, 64: 8015.0}
    records = [published(make, "FULL_SHARD", n, rate) for n, rate in rates.items()]
    before, after = (f"{2 * block / ranks / 1000:.3g}" for ranks in (256, 512))
    assert kept(records)[1] == (
        "FULL_SHARD loses 45 % of its throughput per device between 32 and 64 nodes (256 and 512 "
        f"devices), from 100 % to 55 % of its smallest run; its all_gather messages fall from "
        f"{before} KB to {after} KB a rank (computed: one block in bfloat16 over 512 ranks)."
    )


def test_a_line_that_was_not_timed_is_no_line_of_one_size(make):
    records = [make(devices=n) for n in (1, 2)]
    records += [make("ZERO3", n, None, peak_memory_bytes=1) for n in (1, 2)]
    said = kept(records)
    assert said[-1] == "ZERO3 was not timed." and not any("one number" in each for each in said)


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        ("DDP", {}),
        ("FULL_SHARD", {"model": "not_in_the_zoo"}),
        ("mystery", {}),
        ("HYBRID_SHARD", {"group_size": 8}),
        ("HYBRID_SHARD", {"group_size": 5}),
    ],
)
def test_no_message_is_invented(make, strategy, fields):
    records = [published(make, strategy, n, 100.0 * n**0.2, **fields) for n in (1, 2, 4)]
    assert "loses 43 %" in kept(records)[1]
    assert "message" not in kept(records)[1]
    assert len(kept(records[:2])) == 1  # two points: what is kept says it


def test_measured_traffic_comes_first(whole):
    records = [whole("FULL_SHARD", n, s, model="vit_base") for n, s in ((2, 0.1), (4, 0.2))]
    assert kept(records)[1].endswith(
        "; its all_gather messages fall from 2.10 MB to 1.05 MB a rank (measured)."
    )
