"""Like is compared with like, and numbers come out as computed by hand."""

import csv
import io
import re
from typing import Any

import pytest

from hpcgeo.records import Record, options
from hpcgeo_analysis.comparisons import Comparison, compare
from hpcgeo_analysis.points import CONTEXT, points
from hpcgeo_analysis.report import render
from hpcgeo_analysis.sections import omissions


def compared(records: list[Record]) -> list[Comparison]:
    return compare(points(records))


def rows(records: list[Record]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(records)["table.csv"].decode())))


def column(records: list[Record], name: str) -> list[float | None]:
    return [float(row[name]) if row[name] else None for row in rows(records)]


def test_the_context_is_the_key_of_a_record(make):
    assert tuple(make().key) == CONTEXT


def test_weak_efficiency_by_hand(make):
    # 8 images in 0.1 s on one device is 80 images/s; 32 in 0.16 s on four is 200, 50 a device.
    records = [make(devices=1, step_s=0.1), make(devices=4, step_s=0.16)]
    assert column(records, "images_per_s") == pytest.approx([80, 200])
    assert column(records, "images_per_s_per_device") == pytest.approx([80, 50])
    assert column(records, "weak_efficiency") == pytest.approx([1, 0.625])
    assert column(records, "weak_base_devices") == [1, 1]
    assert column(records, "strong_efficiency") == [None, None]
    # p10 and p90 stand 1 % from the median
    assert column(records, "images_per_s_low") == pytest.approx([80 / 1.01, 200 / 1.01])
    assert column(records, "images_per_s_high") == pytest.approx([80 / 0.99, 200 / 0.99])


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
    page = render([make(devices=4)])
    assert "efficiency" not in page["report.md"].decode()
    assert not any(name.startswith("figures/") for name in page)


def test_repeats_are_a_median_with_the_whole_spread(make):
    records = [make(step_s=s, created=str(s)) for s in (0.1, 0.11, 0.105)]
    (point,) = points(records)
    assert point.images_per_s == pytest.approx(8 / 0.105)
    assert point.range == pytest.approx((8 / (0.11 * 1.01), 8 / (0.1 * 0.99)))
    assert len(point.records) == 3
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
        {"micro_batch": 16},
        {"accumulate": 2},
        {"config": {"data": {"workers": 4}}},
        {"recompute": "full"},
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
    assert omissions.separated(points(records)) == [
        "dtype: bfloat16 and float32.",
        "data.workers: 0 and 2.",
    ]


def test_options_leave_out_what_does_not_change_a_step():
    config = {
        "seed": 1,
        "run": {"dir": "/x"},
        "data": {"path": "d", "workers": 2, "augment": {"flip": True}},
        "parallel": {"strategy": "DDP", "group_size": None},
        "optim": {"clip": 1.0, "base_lr": 1e-3},
        "objective": {"name": "mae", "mask_ratio": 0.75},
    }
    assert options(config) == {
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
    assert [row["status"] for row in rows(records)] == ["ok", "failed"]
    assert rows(records)[1]["error"] == "out of memory"
    assert column(records, "images_per_s")[1] is None


def test_missing_is_never_zero(make):
    (row,) = rows([make(step_s=None)])
    numbers = ["images_per_s", "step_s", "peak_memory_bytes", "comm_s", "data_wait_s", "mfu"]
    numbers += ["memory_parameters_bytes", "activity_idle_s", "phase_forward_s", "joules_per_image"]
    assert [row[name] for name in numbers] == [""] * len(numbers)
    text = render([make(step_s=None)])["report.md"].decode()
    assert "images/s" not in text and "step |" not in text
    assert "| 0 " not in text


def test_throughput_follows_from_the_step_where_it_is_missing(make):
    (point,) = points([make(images_per_s=None, step_s=0.1)])
    assert point.images_per_s == pytest.approx(80)


@pytest.mark.parametrize(("spread", "noisy"), [(0.24, False), (0.26, True)])
def test_noisy_is_marked(make, spread, noisy):
    records = [make(devices=1), make(devices=2, spread=spread)]
    (comparison,) = compared(records)
    assert [scaled.point.noisy for scaled in comparison.scaled] == [False, noisy]
    assert [row["noisy"] for row in rows(records)] == ["False", str(noisy)]
    text = render(records)["report.md"].decode()
    assert ("### Noisy" in text) is noisy
    assert ("(noisy) reaches" in text.splitlines()[0]) is noisy
    assert ('class="best hatched"' in render(records)["report.html"].decode()) is noisy


@pytest.mark.parametrize("fields", [{"spread": 0.3}, {"stable": False}], ids=["noisy", "unsettled"])
def test_a_mark_stands_wherever_its_point_appears(whole, fields):
    """In every row and every sentence that names the line on its number of devices."""
    records = [whole("DDP", 1, 0.1), whole("DDP", 4, 0.2, **fields), whole("FULL_SHARD", 4, 0.3)]
    mark = "noisy" if "spread" in fields else "still getting faster"
    text = render(records)["report.md"].decode()
    named = [
        line for line in text.splitlines() if re.search(r"^\| (vit_tiny \| )?DDP.* \| 4 \|", line)
    ]
    named += [line for line in text.splitlines() if re.search(r"^- .*DDP[^;]* on 4\b", line)]
    named += [
        line for line in text.splitlines() if re.search(r"^(- \*\*|# ).*DDP.* on 4 dev", line)
    ]
    assert len(named) > 4
    assert [line for line in named if mark not in line] == []


def test_repeats_that_disagree_are_noisy(make):
    (point,) = points([make(step_s=0.1), make(step_s=0.15)])
    assert point.noisy


def test_mfu_needs_a_source_and_sense(make):
    peak = {"peak_flops_per_s": 1e12, "mfu": 0.3}
    records = [make(), make("A", **peak), make("B", **peak, peak_source="tabled")]
    records += [make("C", **{**peak, "mfu": 1.52}, peak_source="tabled")]
    shown = {row["strategy"]: row["mfu"] for row in rows(records)}
    assert shown == {"DDP": "", "A": "", "B": "0.3", "C": ""}
    text = render(records)["report.md"].decode()
    assert "1 record with an impossible MFU of up to 152 %: peak or FLOPs are wrong." in text
