"""Who is fastest among like, who ties, and the map of it."""

from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.page import map_html, map_markdown
from hpcgeo_analysis.points import points
from hpcgeo_analysis.winner_map import alone, maps, settings
from hpcgeo_analysis.winners import fields


def found(records):
    return fields(compare(points(records)))


def names(each):
    return [scaled.line for scaled in (each.best, *each.tied)]


def published(make, name, rate, devices=8, **values):
    return make(name, devices, None, kind="published", images_per_s=rate, **values)


def test_spreads_that_overlap_tie(make):
    records = [make("DDP", 4, 0.1), make("NO_SHARD", 4, 0.101), make("FULL_SHARD", 4, 0.2)]
    (each,) = found(records)
    assert names(each) == ["DDP", "NO_SHARD"] and each.spread


def test_without_a_spread_five_percent_tie(make):
    (level,) = found([published(make, "DDP", 1207.0), published(make, "FULL_SHARD", 1155.0)])
    assert names(level) == ["DDP", "FULL_SHARD"] and not level.spread
    (apart,) = found([published(make, "DDP", 1207.0), published(make, "FULL_SHARD", 1000.0)])
    assert names(apart) == ["DDP"]


def test_a_field_that_weak_and_strong_share_stands_once(make):
    records = [make(name, n, micro_batch=16 // n) for name in ("DDP", "ZERO3") for n in (1, 2)]
    assert [each.devices for each in found(records)] == [1, 2]


def test_predictions_win_nothing(make):
    assert not found([make("DDP", 4, None, kind="predicted", images_per_s=9.0)])


def test_ranks_that_exchange_no_gradients_are_no_candidate(make):
    records = [
        published(make, "HYBRID_SHARD", 2000.0, group_size=1, communication="off"),
        published(make, "NO_SHARD", 1000.0),
    ]
    (each,) = found(records)
    assert names(each) == ["NO_SHARD"]


def test_the_map_of_models_has_the_best_of_each(make):
    records = [
        published(make, name, rate, devices, model=model, parameters=size)
        for model, size, rates in (
            ("vit_3b", 3_000, {"DDP": (80, 160), "FULL_SHARD": (120, 156)}),
            ("vit_base", 87, {"DDP": (800, 1600), "FULL_SHARD": (400, 600)}),
        )
        for name, pair in rates.items()
        for devices, rate in zip((8, 16), pair, strict=True)
    ]
    (winners,) = maps(found(records))
    assert map_markdown(winners).splitlines() == [
        "| devices | 8 | 16 |",
        "| --- | ---: | ---: |",
        "| Base | D 100 | D 100 |",
        "| 3B | F 15.0 | D= 10.0 |",
    ]
    drawn = map_html(winners)
    assert 'title="DDP: 10.0 images/s per device; tied: FULL_SHARD"' in drawn
    assert drawn.count("<td>") == 4 and 'data-model="vit_3b"' in drawn


def test_the_map_of_one_model_is_in_percent_of_the_best(make):
    records = [make(n, d, s) for n, s in (("DDP", 0.1), ("ZERO3", 0.2)) for d in (1, 2)]
    records.append(make("FULL_SHARD", 2, 0.1, spread=0.5))
    (winners,) = maps(found(records))
    assert map_markdown(winners).splitlines()[2:] == [
        "| DDP | D 100 | D= 100 |",
        "| FULL\\_SHARD |  | F= 100~ |".replace("\\_", "_"),
        "| ZERO3 | Z3 50 | Z3 50 |",
    ]
    assert 'class="best hatched"' in map_html(winners)


def test_unlike_settings_are_maps_of_their_own(make):
    records = [make(n, d, dtype=t) for n in ("A", "B") for d in (1, 2) for t in ("fp8", "bfloat16")]
    records.append(make("C", 1, dtype="float32"))
    shown = maps(found(records))
    assert settings(shown) == [
        "8 images per device and step, bfloat16",
        "8 images per device and step, fp8",
    ]
    assert alone(found(records), shown) == ["C (float32)"]


def test_one_more_size_of_models_that_are_there_is_no_map(make):
    records = [make(n, d) for n in ("A", "B") for d in (1, 2)]
    records += [make(n, 2, data="shards") for n in ("A", "B")]
    assert len(maps(found(records))) == 1
