"""Like is compared with like, and numbers come out as computed by hand."""

import io
import math
from typing import Any

import pandas as pd
import pytest

from hpcgeo.records import Record, knobs
from hpcgeo_analysis import findings
from hpcgeo_analysis.load import frame
from hpcgeo_analysis.report import render
from hpcgeo_analysis.scaling import Comparison, compare, points


def compared(records: list[Record]) -> list[Comparison]:
    return compare(points(frame(records)))


def csv(records: list[Record]) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(render(records)["table.csv"]))


def test_weak_efficiency_by_hand(make):
    # 8 images in 0.1 s on one device is 80 images/s; 32 in 0.16 s on four is 200, 50 a device.
    table = csv([make(devices=1, step_s=0.1), make(devices=4, step_s=0.16)])
    assert list(table.images_per_s) == pytest.approx([80, 200])
    assert list(table.images_per_s_per_device) == pytest.approx([80, 50])
    assert list(table.weak_efficiency) == pytest.approx([1, 0.625])
    assert list(table.weak_base_devices) == [1, 1]
    assert table.strong_efficiency.isna().all()
    # p10 and p90 stand 1 % from the median
    assert list(table.images_per_s_low) == pytest.approx([80 / 1.01, 200 / 1.01])
    assert list(table.images_per_s_high) == pytest.approx([80 / 0.99, 200 / 0.99])


def test_strong_efficiency_by_hand(make):
    # 16 images in 0.2 s on one device, in 0.125 s on two: 80 and 64 images/s a device.
    (comparison,) = compared(
        [
            make(devices=1, micro_batch=16, step_s=0.2),
            make(devices=2, micro_batch=8, step_s=0.125),
        ]
    )
    assert (comparison.mode, comparison.fixed) == ("strong", "global batch 16")
    assert [scaled.efficiency for scaled in comparison.scaled] == pytest.approx([1, 0.8])


def test_weak_and_strong_as_they_exist(make):
    records = [make(devices=n, micro_batch=m) for n in (1, 2) for m in (8, 16)]
    found = [(comparison.mode, comparison.fixed.split(" (")[0]) for comparison in compared(records)]
    assert found == [
        ("weak", "8 images per device and step"),
        ("weak", "16 images per device and step"),
        ("strong", "global batch 16"),
    ]


def test_one_global_batch_cut_in_two_ways_is_two_lines(make):
    records = [make(devices=n, micro_batch=16 // n) for n in (1, 2)]
    records += [make(devices=n, micro_batch=8 // n, accumulate=2) for n in (1, 2)]
    (strong,) = compared(records)
    assert list(strong.lines) == ["DDP, accumulation 1", "DDP, accumulation 2"]


def test_a_single_point_has_no_efficiency(make):
    (comparison,) = compared([make(devices=4), make("FULL_SHARD", devices=4)])
    assert all(scaled.efficiency is None for scaled in comparison.scaled)
    assert "scaling" not in comparison.title
    page = render([make(devices=4)])
    assert "no efficiency is claimed" in page["report.md"].decode()
    assert not any(name.startswith("figures/efficiency") for name in page)


def test_repeats_are_a_median_with_the_whole_spread(make):
    records = [make(step_s=s, created=str(s)) for s in (0.1, 0.11, 0.105)]
    (point,) = points(frame(records))
    assert point.images_per_s == pytest.approx(8 / 0.105)
    assert point.low == pytest.approx(8 / (0.11 * 1.01))
    assert point.high == pytest.approx(8 / (0.1 * 0.99))
    assert len(point.rows) == 3
    assert not point.noisy


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "published"},
        {"machine": "frontier"},
        {"device": "another"},
        {"model": "vit_b"},
        {"objective": "simmim"},
        {"bands": 6},
        {"dtype": "bfloat16"},
        {"chip": (96, 96)},
        {"data": "shards"},
        {"versions": {"torch": "2.9.0"}},
        {"micro_batch": 16},
        {"accumulate": 2},
        {"config": {"data": {"workers": 4}}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_unlike_points_share_no_line(make, other: dict[str, Any]):
    comparisons = compared([make(devices=1), make(devices=4, **other)])
    assert len(comparisons) == 2
    assert all(len(comparison.scaled) == 1 for comparison in comparisons)


def test_the_report_says_what_was_separated(make):
    config = {"data": {"workers": 0}, "train": {"steps": 9}}
    records = [
        make(config=config),
        make(config={"data": {"workers": 2}, "train": {"steps": 5}}, dtype="bfloat16"),
    ]
    assert findings.separated(compared(records)) == [
        "dtype: bfloat16 and float32",
        "data.workers: 0 and 2",
    ]


def test_knobs_leave_out_what_does_not_change_a_step():
    config = {
        "seed": 1,
        "run": {"dir": "/x"},
        "data": {"path": "d", "workers": 2, "augment": {"flip": True}},
        "parallel": {"strategy": "DDP", "group_size": None},
        "optim": {"clip": 1.0, "base_lr": 1e-3},
        "objective": {"name": "mae", "mask_ratio": 0.75},
    }
    assert knobs(config) == {
        "data.augment.flip": True,
        "data.workers": 2,
        "objective.mask_ratio": 0.75,
        "optim.clip": 1.0,
    }


def test_another_placement_is_another_line(make):
    records = [make(devices=n, nodes=1) for n in (1, 2, 4)] + [make(devices=4, nodes=4)]
    (comparison,) = compared(records)
    assert list(comparison.lines) == ["DDP", "DDP, 1 per node"]
    assert comparison.lines["DDP, 1 per node"][0].efficiency is None


def test_failed_points_stand_in_no_line(make):
    records = [make(), make(devices=2, step_s=None, status="failed", error="out of memory")]
    (comparison,) = compared(records)
    assert comparison.devices == [1]
    table = csv(records)
    assert list(table.status) == ["ok", "failed"]
    assert table.error[1] == "out of memory"
    assert math.isnan(table.images_per_s[1])


def test_missing_is_never_zero(make):
    table = csv([make(step_s=None)])
    numbers = ["images_per_s", "step_s", "peak_memory_bytes", "comm_s", "data_wait_s", "mfu"]
    assert table[numbers].isna().all(axis=None)
    text = render([make(step_s=None)])["report.md"].decode()
    assert "not measured" in text
    assert "| 0 " not in text


def test_throughput_follows_from_the_step_where_it_is_missing(make):
    (point,) = points(frame([make(images_per_s=None, step_s=0.1)]))
    assert point.images_per_s == pytest.approx(80)


@pytest.mark.parametrize(("spread", "noisy"), [(0.24, False), (0.26, True)])
def test_noisy_is_marked(make, spread, noisy):
    records = [make(devices=1), make(devices=2, spread=spread)]
    (comparison,) = compared(records)
    assert [scaled.noisy for scaled in comparison.scaled] == [False, noisy]
    assert list(csv(records).noisy) == [False, noisy]
    text = render(records)["report.md"].decode()
    assert ("### Noisy points" in text) is noisy
    assert text.count("(noisy)") == (2 if noisy else 0)  # efficiency: sentence and table


def test_repeats_that_disagree_are_noisy(make):
    (point,) = points(frame([make(step_s=0.1), make(step_s=0.15)]))
    assert point.noisy


def test_mfu_needs_a_source_and_sense(make):
    peak = {"peak_flops_per_s": 1e12, "mfu": 0.3}
    rows = [make(), make("A", **peak), make("B", **peak, peak_source="tabled")]
    rows += [make("C", **{**peak, "mfu": 1.52}, peak_source="tabled")]
    table = csv(rows).set_index("strategy")
    assert table.mfu.to_dict() == pytest.approx(
        {"DDP": math.nan, "A": math.nan, "B": 0.3, "C": math.nan}, nan_ok=True
    )
    text = render(rows)["report.md"].decode()
    assert "30 % (tabled)" in text
    assert "not shown: no source of the peak" in text
    assert "MFU above 100 % (up to 152 %)" in text


def test_memory_of_different_kinds_is_not_mixed(make):
    memory = {"peak_memory_bytes": 2**30}
    records = [
        make("DDP", memory_source="reserved", **memory),
        make("FULL_SHARD", memory_source="resident", **memory),
    ]
    names = [name for name in render(records) if name.startswith("figures/memory")]
    assert names == [
        "figures/memory-1-vit_tiny-reserved.png",
        "figures/memory-1-vit_tiny-resident.png",
    ]
