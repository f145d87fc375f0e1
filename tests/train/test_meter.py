"""What a run says on its way: lines of a log, and what TensorBoard shows."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcgeo.config import load
from hpcgeo.log import span
from hpcgeo.train.curves import Curves
from hpcgeo.train.meter import Meter
from hpcgeo.workloads.scores import TaskScore


def row(step: int, loss: float, skipped: int = 0) -> dict[str, Any]:
    return {"step": step, "loss": loss, "skipped": skipped, "lr": 0.001, "step_s": 0.01}


def test_a_line_says_the_mean_loss_and_the_images_a_second_since_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the clock: 2 steps of 64 images in 8 s, whatever a step alone takes."""
    meter = object.__new__(Meter)
    meter.global_batch, meter.steps = 64, 100
    meter.rows = [row(1, 9.0), row(2, 2.0), row(3, float("nan"), 1), row(4, 3.0)]
    meter._untold, meter._told, meter._began = 1, 12.0, 4.0
    monkeypatch.setattr(time, "perf_counter", lambda: 20.0)
    said = meter._since_last_line(meter.rows[-1])
    assert said == "loss 2.5000  24.0 images/s  lr 0.001  6 min left"
    assert "samples/s" in meter._since_last_line({**meter.rows[-1], "tokens": 5})
    meter._untold = 2
    meter.rows.pop()
    assert "loss nan" in meter._since_last_line(meter.rows[-1])


def test_times_are_said_in_the_unit_that_fits() -> None:
    assert [span(s) for s in (0, 89, 90, 5399, 5400, 129_599, 129_600)] == [
        *("0 s", "89 s", "2 min", "90 min", "1.5 h", "36.0 h", "1.5 days"),
    ]


def test_tensorboard_shows_options_numbers_scores_and_pictures(tmp_path: Path) -> None:
    run = load("mae_vit_tiny", ["seed=77"])
    curves = Curves(tmp_path, run, 0)
    curves.step(row(1, 0.5) | {"data_wait_s": 0.25, "peak_memory_bytes": 7, "loss/roofs": None})
    score = TaskScore(
        **{"step": 1, "task": "roofs", "metric": "iou", "better": "higher", "value": 0.75},
        **{"samples": 3, "best": 0.75, "best_step": 1, "since": 0},
    )
    (tmp_path / "scores.jsonl").write_text(score.model_dump_json() + "\n")
    for name in ("pictures/roofs-step-00000001.png", "reconstructions/step-00000001.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / name)
    curves.evaluation(1)
    curves.close()
    seen = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = seen.Tags()
    assert set(tags["scalars"]) == {
        *("loss", "optimizer/lr", "optimizer/skipped", "time/step_s", "time/data_wait_s"),
        *("memory/peak_memory_bytes", "score/roofs/iou"),
    }
    assert tags["images"] == ["pictures/roofs", "reconstructions"]
    assert seen.Scalars("score/roofs/iou")[0].value == 0.75
    assert (seen.Images("reconstructions")[0].height, seen.Images("pictures/roofs")[0].width) == (
        *(4, 6),
    )
    (options,) = seen.Tensors("options/text_summary")
    assert b"seed: 77" in options.tensor_proto.string_val[0]


def test_a_full_disk_is_silent_in_the_thread_that_writes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("threading.excepthook", threading.excepthook)
    Curves(tmp_path, load("mae_vit_tiny"), 0).close()

    class Writer(threading.Thread):
        def run(self) -> None:
            raise OSError(28, "No space left on device")

    said = []
    for module in ("tensorboard.summary.writer", "hpcgeo.train.watchdog"):
        Writer.__module__ = module
        thread = Writer()
        thread.start()
        thread.join()
        said.append("No space left" in capfd.readouterr().err)
    assert said == [False, True]
