"""Training runs in the report: curve, sentence, picture, and clear refusals."""

import json
from pathlib import Path

import pytest
from PIL import Image

from hpcgeo.errors import InputError
from hpcgeo.records import append
from hpcgeo_analysis.report import make
from hpcgeo_analysis.sections.runs import load_run

KILNS = {"task": "kilns", "metric": "accuracy", "better": "higher", "samples": 9}
YIELDS = {"task": "yields", "metric": "rmse", "better": "lower", "samples": 9}


def write_run(folder: Path) -> Path:
    (folder / "reconstructions").mkdir(parents=True)
    rows = [{"step": s, "loss": 2 / s, "images_per_s": 100.0 + s} for s in range(1, 11)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (5, 10):
        Image.new("RGB", (8, 8)).save(folder / "reconstructions" / f"step-{step:08d}.png")
    return folder


def test_a_run_becomes_a_curve_a_sentence_and_the_last_picture(tmp_path: Path) -> None:
    run = load_run(1, write_run(tmp_path / "first"))
    assert run.figure.title == "first: the loss went from 2 to 0.2"
    assert run.figure.sentences == ("10 steps at 106 images/s (median).",)
    (picture,), (curve,) = run.pictures, run.figure.panels
    assert "after 10 steps" in picture.alt and "running median 0.2" in curve


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    rows = [
        {"step": s, "loss": 1.0 if s != 5 else float("nan"), "images_per_s": 1} for s in range(9)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (curve,) = load_run(1, tmp_path).figure.panels
    assert curve.count("opacity:.35") == 2 and "nan" not in curve.lower()


def test_a_mixture_has_scores_and_a_picture_of_every_task(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / "pictures").mkdir(parents=True)
    row = {"step": 1, "loss": 2.0, "images_per_s": 64.0, "tokens_per_s": 20_000.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    looks = [
        {"step": step, "value": value, "best": best, "best_step": best_step, "since": 0} | task
        for step, task, value, best, best_step in (
            *((5, KILNS, 0.8, 0.8, 5), (5, YIELDS, 0.4, 0.4, 5)),
            *((10, KILNS, 0.7, 0.8, 5), (10, YIELDS, 0.3, 0.3, 10)),
        )
    ]
    (folder / "scores.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
    for task in ("kilns", "yields"):
        for step in (5, 10):
            Image.new("RGB", (8, 8)).save(folder / "pictures" / f"{task}-step-{step:08d}.png")
    run = load_run(2, folder)
    assert run.figure.sentences == (
        "1 step at 64.0 samples/s, 20,000 tokens/s (median).",
        "kilns: accuracy 0.700 at step 10; best 0.800 at step 5.",
        "yields: rmse 0.300 at step 10.",
    )
    loss, higher, lower = run.figure.panels
    assert "loss" in loss and "kilns (accuracy) 0.7" in higher and "yields (rmse) 0.3" in lower
    assert [picture.name for picture in run.pictures] == ["kilns-2-mixed", "yields-2-mixed"]
    assert "Task kilns" in run.pictures[0].alt and "after 10 steps" in run.pictures[0].alt


def test_the_report_shows_it_and_stays_self_contained(tmp_path: Path, sweep) -> None:
    records = tmp_path / "records.jsonl"
    append(records, sweep[0])
    out = tmp_path / "report"
    make([records], out, [write_run(tmp_path / "first")])
    page = (out / "report.html").read_text()
    assert 'id="run-1-first"' in page and 'src="data:image/png;base64,' in page
    assert "figures/run-1-first-1.svg" in (out / "report.md").read_text()
    assert (out / "figures" / "run-1-first-1.svg").exists()
    make([records], out)
    assert "run-1-first" not in (out / "report.html").read_text()
    assert not (out / "figures" / "run-1-first-1.svg").exists()


@pytest.mark.parametrize("text", [None, "{", '{"step": 1}', ""])
def test_what_is_no_run_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        load_run(1, tmp_path)
