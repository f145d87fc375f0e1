"""Training runs in the report: curve, sentence, picture, and clear refusals."""

import json
from pathlib import Path

import pytest
from PIL import Image

from hpcgeo.errors import InputError
from hpcgeo.records import append
from hpcgeo_analysis.report import make
from hpcgeo_analysis.runs import load_run


def write_run(folder: Path) -> Path:
    (folder / "reconstructions").mkdir(parents=True)
    rows = [{"step": s, "loss": 2 / s, "images_per_s": 100.0 + s} for s in range(1, 11)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (5, 10):
        Image.new("RGB", (8, 8)).save(folder / "reconstructions" / f"step-{step:08d}.png")
    return folder


def test_a_run_becomes_a_curve_a_sentence_and_the_last_picture(tmp_path: Path) -> None:
    run = load_run(1, write_run(tmp_path / "first"))
    assert run.title == "first"
    assert run.sentence.startswith("10 steps at 106 images/s (median); the loss went from 2 to 0.2")
    assert run.picture is not None and "after 10 steps" in run.picture.alt
    assert "</svg>" in run.curve.svg


def test_the_report_shows_it_and_stays_self_contained(tmp_path: Path, sweep) -> None:
    records = tmp_path / "records.jsonl"
    append(records, sweep[0])
    out = tmp_path / "report"
    make([records], out, [write_run(tmp_path / "first")])
    page = (out / "report.html").read_text()
    assert "Training runs" in page and 'src="data:image/png;base64,' in page
    assert "figures/loss-1-first.svg" in (out / "report.md").read_text()
    assert (out / "figures" / "loss-1-first.svg").exists()
    make([records], out)
    assert "Training runs" not in (out / "report.html").read_text()
    assert not (out / "figures" / "loss-1-first.svg").exists()


@pytest.mark.parametrize("text", [None, "{", '{"step": 1}', ""])
def test_what_is_no_run_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        load_run(1, tmp_path)
