"""What was left out, and reports of curves or predictions alone."""

import pytest

from hpcgeo.errors import InputError
from hpcgeo_analysis.blocks import Study
from hpcgeo_analysis.comparisons import compare
from hpcgeo_analysis.points import points
from hpcgeo_analysis.report import render
from hpcgeo_analysis.sections import omissions

GIB = 2**30


def text(records, **options):
    return render(records, **options)["report.md"].decode()


def test_curves_alone_are_a_report(tmp_path, links):
    written = render([], links=[links])["report.md"].decode()
    assert written.startswith("# Collectives on Testbed\n\n1 curve.\n\n")


def test_out_of_memory_is_left_out_with_its_cause(make):
    full = make(devices=2, step_s=None, status="out_of_memory", error="needs 70 GiB of 64")
    written = text([make(), full, full.model_copy(update={"created": "later"})])
    assert "- 1 point ran out of memory." in written
    assert "| out of memory | needs 70 GiB of 64 | 2 |" in written


def test_a_point_that_was_measured_since_did_not_fail(make):
    broken = {"status": "failed", "error": "lost a rank", "device": "not started"}
    mended = make(devices=2, created="2026-01-03", environment={"OMP_NUM_THREADS": "1"})
    silent = {"communication": "off", "created": "2026-01-02"}
    options = {"config": {"optim": {"clip": 1.0}}, "created": "2026-01-04"}
    records = [make(), mended]
    records += [
        make(devices=2, step_s=None, **broken, **fields)
        for fields in ({"created": "2026-01-02"}, silent, options)
    ]
    written = text(records)
    assert "- 2 points failed." in written
    assert "- 1 point failed once and was measured since." in written
    assert written.splitlines()[2].endswith(" 2 failed points.")


def test_a_predicted_rate_wins_nothing(make):
    fields = {"kind": "predicted", "step_s": None, "versions": {}}
    predicted = [make(name, images_per_s=rate, **fields) for name, rate in (("A", 9.0), ("B", 5.0))]
    written = text(predicted)
    assert "Run this" not in written and "fastest" not in written and "100 %" not in written
    with pytest.raises(InputError, match="--together kind: predicted points do not compete"):
        render([make(), *predicted], together=["kind"])


def test_cautions(make):
    records = [make(images_per_s=100.0, dirty=True), make(devices=2, commit="fedcba9876543210")]
    found = points(records)
    comparisons = compare(found)
    study = Study(records, [], found, comparisons, copies=2)
    assert omissions.cautions(study) == [
        "2 records read twice and counted once.",
        "1 record made from a tree with uncommitted changes.",
        "2 commits made these records; a row of the table names its own.",
        "vit_tiny, DDP on 1 device: 100 images/s recorded, 80.0 by its steps.",
    ]
