"""What is unlike stays apart; what was asked to lie together says so; nothing else is mixed."""

import re

import pytest
from typer.testing import CliRunner

from hpcgeo.cli.main import app
from hpcgeo.errors import InputError
from hpcgeo.records import append
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points
from hpcgeo_analysis.report import render


def lines(records, *together):
    return [list(comparison.lines) for comparison in compare(points(records), together)]


def study(make):
    """DDP ran in another precision than the others, as in the published study."""
    records = [make("DDP", n, 0.2, dtype="float32") for n in (1, 4)]
    records += [make(name, n, 0.1, dtype="bfloat16") for name in ("A", "B") for n in (1, 4)]
    return records


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"versions": {"torch": "2.13.0", "cuda": "13.0", "nccl": "2.29"}}, "nccl 2.29"),
        ({"driver": "nvidia 590"}, "driver nvidia 590"),
        ({"environment": {"NCCL_ALGO": "Tree", "OMP_NUM_THREADS": "4"}}, "NCCL_ALGO Tree"),
    ],
)
def test_repeats_in_other_surroundings_are_other_points(make, other, said):
    known = {
        "versions": {"torch": "2.13.0", "cuda": "13.0", "nccl": "2.28"},
        "driver": "nvidia 580",
        "environment": {"NCCL_ALGO": "Ring", "OMP_NUM_THREADS": "4"},
    }
    found = points([make(**known), make(step_s=0.3, **known | other)])
    assert len(found) == 2
    titles = [comparison.title for comparison in compare(found)]
    assert sum(said in title for title in titles) == 1
    (together,) = compare(found, ["software", "environment"])
    assert len(together.lines) == 2 and said in together.title
    assert not any("OMP" in title or "cuda" in title for title in (*titles, together.title))


def test_asked_together_they_share_axes_and_say_so(make):
    assert lines(study(make)) == [["A", "B"], ["DDP"]]
    assert lines(study(make), "dtype") == [["DDP float32", "A bfloat16", "B bfloat16"]]
    files = render(study(make), together=["dtype"])
    said = "lines differ in dtype: DDP float32; others bfloat16"
    figure = re.sub(r"<[^>]*>|\s+", " ", files["figures/throughput-1-vit_tiny.svg"].decode())
    assert said in re.sub(r"\s+", " ", figure)
    text = files["report.md"].decode()
    assert f"### vit_tiny, weak scaling, 8 images per device and step ({said})" in text
    assert f"Not like for like, as asked: vit_tiny: {said}." in text
    assert "like with like" not in text


def test_the_report_says_who_stands_apart(make):
    text = render(study(make))["report.md"].decode()
    assert "dtype: DDP float32; others bfloat16." in text
    assert "Without a rival in its setting, so not ranked: DDP (float32) of vit_tiny." in text


def test_options_and_batches_lie_together_by_name(make):
    config = [{"data": {"workers": workers, "shuffle": True}} for workers in (0, 4)]
    records = [make(devices=n, config=each) for n in (1, 2) for each in config]
    assert lines(records, "data.workers") == [["DDP data.workers 0", "DDP data.workers 4"]]
    records = [make(devices=n, micro_batch=m) for n in (1, 4) for m in (8, 12)]
    assert lines(records, "micro_batch") == [["DDP micro-batch 12", "DDP micro-batch 8"]]
    records = [make(devices=n, global_batch=b, micro_batch=b // n) for n in (1, 2) for b in (8, 64)]
    assert lines(records, "global_batch")[-1] == ["DDP global-batch 64", "DDP global-batch 8"]


def test_a_new_machine_is_laid_over_published_points(make):
    config = {"data": {"workers": 4}}
    old = {"kind": "published", "machine": "old", "versions": {}, "step_s": None}
    records = [make(devices=n, config=config) for n in (1, 4)]
    records += [make(devices=n, images_per_s=50.0 * n, **old) for n in (1, 4)]
    assert len(lines(records)) == 2
    keys = ["machine", "kind", "torch", "configuration"]
    assert lines(records, *keys[:3]) == [["DDP"], ["DDP"]]
    (comparison,) = compare(points(records), keys)
    assert list(comparison.lines) == ["DDP old", "DDP testbed"]
    assert comparison.apart.startswith(
        "lines differ in machine: old and testbed and in kind: measured and published and in torch:"
    )
    assert comparison.apart in comparison.title


def test_each_line_is_held_against_its_own_kind(make):
    (comparison,) = compare(points(study(make)), ["dtype"])
    assert [scaled.efficiency for scaled in comparison.scaled] == pytest.approx([1] * 6)


@pytest.mark.parametrize("key", ["nonsense", "data.workers", "communication", "model", "options"])
def test_a_key_that_nothing_carries_is_refused(make, key):
    with pytest.raises(InputError, match=rf"--together {key}: .*choose from kind, .*micro_batch"):
        render([make()], together=[key])


def test_the_command_takes_keys(tmp_path, make):
    for record in study(make):
        append(tmp_path / "records.jsonl", record)
    words = ["report", str(tmp_path), "--out", str(tmp_path / "out"), "--together", "dtype, torch"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "lines differ in dtype" in (tmp_path / "out" / "report.html").read_text()


def test_steps_without_communication_never_compete(make):
    records = [make(step_s=0.1), make(step_s=0.01, communication="off")]
    assert lines(records) == [["DDP"]]
    assert [c.scaled[0].point.images_per_s for c in compare(points(records))] == [80]
    text = render(records)["report.md"].decode()
    assert "1 record with communication off or cached batches: no training" in text


def test_a_doubled_micro_batch_shares_no_axes(make):
    records = [make(devices=n, micro_batch=m) for n in (1, 4) for m in (8, 16)]
    assert [c.fixed.split(" (")[0] for c in compare(points(records))] == [
        "8 images per device and step",
        "16 images per device and step",
    ]
