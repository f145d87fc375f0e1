"""Sentences are drawn from the data."""

import pytest

from hpcgeo_analysis import findings
from hpcgeo_analysis.load import frame
from hpcgeo_analysis.scaling import compare, points


def comparison(records):
    (found,) = compare(points(frame(records)))
    return found


def test_the_fastest_and_by_how_much(make):
    records = [make("SHARD_GRAD_OP", 4, 0.1), make("FULL_SHARD", 4, 0.13)]
    assert findings.fastest(comparison(records)) == [
        "SHARD_GRAD_OP is fastest for vit_tiny on 4 devices: 320 images/s, 1.30 x FULL_SHARD."
    ]


def test_overlapping_spreads_are_noise(make):
    records = [
        make("DDP", 4, 0.1),
        make("NO_SHARD", 4, 0.101),
        make("FULL_SHARD", 4, 0.2),
    ]
    assert findings.fastest(comparison(records)) == [
        "DDP has the highest median for vit_tiny on 4 devices, 320 images/s, but the lead over "
        "NO_SHARD is within noise; it is 2.00 x FULL_SHARD."
    ]


def test_equal_verdicts_are_one_sentence(make):
    records = [make(name, n, s) for name, s in (("DDP", 0.1), ("ZERO3", 0.2)) for n in (1, 2, 4)]
    assert findings.fastest(comparison(records)) == [
        "DDP is fastest for vit_tiny on 1 to 4 devices: 320 images/s on 4, 2.00 x ZERO3."
    ]


def test_nobody_is_fastest_alone(make):
    assert findings.fastest(comparison([make(devices=1), make(devices=2)])) == []
    records = [make("DDP", 1), make("DDP", 2), make("FULL_SHARD", 2, 0.2)]
    assert "Without a rival: DDP on 1 device." in findings.fastest(comparison(records))


def test_scaling_names_its_base_and_its_drop(make):
    records = [make(devices=n, step_s=s) for n, s in ((2, 0.1), (4, 0.105), (8, 0.2))]
    assert findings.scaling(comparison(records)) == [
        "From 2 to 8 devices (weak scaling), throughput per device kept of its own run on 2: "
        "DDP 50 %.",
        "DDP loses most between 4 and 8 devices: from 95 % to 50 % of its throughput per device.",
    ]


def test_different_bases_are_not_comparable(make):
    records = [make("DDP", n) for n in (1, 2, 4)] + [
        make("HYBRID_SHARD", n, group_size=2) for n in (2, 4)
    ]
    sentences = findings.scaling(comparison(records))
    assert "Efficiencies against runs of different size are not comparable." in sentences
    assert "within noise of ideal" in sentences[0]


@pytest.mark.parametrize(
    ("least", "sentence"),
    [
        (
            2**29,
            "On 2 devices FULL_SHARD needs least reserved memory, 0.500 GiB per rank; "
            "DDP most, 1.00 GiB (2.00 x).",
        ),
        (
            2**30 - 10,
            "On 2 devices reserved memory differs by less than 2.0 % between strategies: "
            "1.00 GiB per rank.",
        ),
    ],
)
def test_memory(make, least, sentence):
    records = [
        make(name, 2, peak_memory_bytes=value, memory_source="reserved")
        for name, value in (("DDP", 2**30), ("FULL_SHARD", least))
    ]
    assert findings.memory(comparison(records)) == [sentence]


def test_lost_time(make):
    records = [make(devices=1, comm_s=0.0), make(devices=2, comm_s=0.03, data_wait_s=0.001)]
    assert findings.lost_time(comparison(records)) == [
        "Collectives run during up to 30 % of a step: DDP on 2 devices (least anywhere: 0.0 %)."
    ]


def test_cautions(make):
    records = [
        make(images_per_s=100.0, dirty=True),
        make(devices=2, commit="fedcba9876543210"),
    ]
    found = findings.cautions(compare(points(frame(records))), records, copies=2)
    assert found == [
        "2 records read twice and counted once.",
        "1 record made from a tree with uncommitted changes.",
        "vit_tiny, weak scaling, 8 images per device and step: made by several commits: "
        "0123456789 and fedcba9876.",
        "vit_tiny, DDP on 1 device: images_per_s is 100, but global batch over median step is "
        "80.0.",
    ]
