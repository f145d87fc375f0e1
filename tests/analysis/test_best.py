"""Who is fastest, by how much, and when that cannot be told."""

from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points
from hpcgeo_analysis.sections import best


def fields(records):
    return best.fields(compare(points(records)))


def fastest(records):
    return best.fastest(fields(records))


def test_the_fastest_and_by_how_much(make):
    records = [make("SHARD_GRAD_OP", 4, 0.1), make("FULL_SHARD", 4, 0.13)]
    assert fastest(records) == [
        "SHARD_GRAD_OP is fastest for vit_tiny on 4 devices: 320 images/s, 1.30 x FULL_SHARD."
    ]


def test_overlapping_spreads_are_not_told_apart(make):
    records = [make("DDP", 4, 0.1), make("NO_SHARD", 4, 0.101), make("FULL_SHARD", 4, 0.2)]
    assert fastest(records) == [
        "DDP and NO_SHARD cannot be told apart for vit_tiny on 4 devices (their spreads overlap): "
        "320 images/s of DDP, the highest, 2.00 x FULL_SHARD."
    ]


def test_without_a_spread_five_percent_is_level_and_nobody_is_fastest(make):
    def published(name, rate):
        return make(name, 8, None, kind="published", images_per_s=rate)

    level = [published("DDP", 1207.0), published("FULL_SHARD", 1155.0)]
    assert fastest(level) == [
        "DDP and FULL_SHARD cannot be told apart for vit_tiny on 8 devices (less than 5.0 % "
        "apart beside rounding, no spread given): 1,207 images/s of DDP, the highest."
    ]
    apart = [published("DDP", 1207.0), published("FULL_SHARD", 1000.0)]
    assert fastest(apart) == [
        "DDP has the highest rate for vit_tiny on 8 devices: 1,207 images/s, 1.21 x FULL_SHARD; "
        "no spread given."
    ]


def test_equal_verdicts_are_one_sentence(make):
    records = [make(name, n, s) for name, s in (("DDP", 0.1), ("ZERO3", 0.2)) for n in (1, 2, 4)]
    assert fastest(records) == [
        "DDP is fastest for vit_tiny on 1 to 4 devices: 320 images/s on 4, 2.00 x ZERO3."
    ]


def test_nobody_is_fastest_alone(make):
    assert fastest([make(devices=1), make(devices=2)]) == []
    records = [make("DDP", 1), make("DDP", 2), make("FULL_SHARD", 2, 0.2)]
    assert "Without a rival: DDP on 1 device." in fastest(records)


def test_which_strategy_serves_which_model(make):
    steps = {"vit_b": {"DDP": 0.1, "FULL_SHARD": 0.2}, "vit_h": {"DDP": 0.4, "FULL_SHARD": 0.3}}
    records = [
        make(name, n, step * n**0.1, model=model)
        for model, lines in steps.items()
        for name, step in lines.items()
        for n in (2, 4)
    ]
    assert best.serves(fields(records)) == [
        "Fastest on 4 devices (testbed, 8 images per device and step): DDP for vit_b; FULL_SHARD "
        "for vit_h."
    ]


def test_a_field_that_weak_and_strong_share_is_ranked_once(make):
    records = [make(name, n, micro_batch=16 // n) for name in ("DDP", "ZERO3") for n in (1, 2)]
    assert [each.best.point.devices for each in fields(records)] == [1, 2]
