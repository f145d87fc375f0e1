"""`hpcgeo probe RUN`: a run on its own tasks, or a Perceiver on data of any sensors."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hpcgeo.config import load
from hpcgeo.data.labelled import open_tasks
from hpcgeo.data.labelled_batches import plain
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoders import open_encoder
from hpcgeo.evaluate.frozen import probe_on
from hpcgeo.evaluate.probe_options import ProbeOptions
from hpcgeo.evaluate.probed_data import own_sets
from hpcgeo.objectives.collate import tokens, whole
from hpcgeo.options import Batching
from hpcgeo.scores import Score
from hpcgeo.workloads.mixture import band_of
from tests import processes
from tests.ranks import ended, launch

SMALL = ["train.micro_batch=4", "optim.warmup_steps=1", "launch.threads=1"]


def hpcgeo(*words: object, code: int = 0) -> str:
    done = processes.hpcgeo(*words)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of masked tokens, and of tasks."""
    folder = tmp_path_factory.mktemp("runs")
    masked = [
        "objective={name: masked_tokens}",
        "data.only=[scenes, table, tiles]",
        "data.tasks.again={reader: generated, path: table}",
    ]
    hpcgeo("train", "gpna_tiny", *SMALL, *masked, "train.steps=4", f"run.dir={folder}/masked")
    dense = ["data.only=[pairs]", "train.steps=1"]
    hpcgeo("train", "gpna_tiny", *SMALL, *dense, f"run.dir={folder}/dense")
    return folder


def probed(run: Path, *tasks: str, **more: object) -> list[Score]:
    options = ProbeOptions(cache=run.parent / "features", **more)  # type: ignore[arg-type]
    return probe_on(str(run), own_sets(run, tasks), options)


def test_tasks_with_a_label_for_a_sample_are_probed(runs: Path) -> None:
    found = probed(runs / "masked", labels=0.2, replicates=2)
    assert [(one.task, one.whose) for one in found] == [
        (task, whose) for task in ("scenes", "table") for whose in ("encoder", "random", "samples")
    ]  # tiles have a label for every pixel
    for one in found:
        train, test = (
            open_tasks("generated", Path(one.task), split=split, labels=0.2)
            for split in ("train", "test")
        )
        assert (one.labels, one.samples) == (len(train), len(test))
        assert len(one.values) == 2 and one.normalise == "data"
        for over, (value, low, high) in one.leads.items():
            [rival] = [s for s in found if (s.task, s.whose) == (one.task, over)]
            ahead = np.subtract(one.value, rival.value) * (1 if one.better == "higher" else -1)
            assert value == pytest.approx(ahead) and low <= high
    first = found[0]
    assert first.encoder["objective"] == "masked_tokens" and first.encoder["step"] == 4
    assert first.parameters == open_encoder(str(runs / "masked")).parameters
    again = probed(runs / "masked", labels=0.2, replicates=2)
    assert [one.values for one in again] == [one.values for one in found]


def test_features_are_the_latents_of_the_weights(runs: Path) -> None:
    encoder = open_encoder(str(runs / "masked"))
    part = open_tasks("generated", Path("table"), split="test")
    prepared = encoder.reads(part)
    drawn = [plain(part.read(index)) for index in range(3)]
    made, _ = tokens(drawn, Batching(), partial(band_of, None), whole(drawn))
    with torch.no_grad():
        latents = encoder.backbone.encode(made).latents
    samples = [prepared.split(part).read(index) for index in range(3)]
    [found] = prepared.features(samples, encoder.blocks, "vectors")
    torch.testing.assert_close(found, latents.flatten(1))


def test_a_task_that_the_run_never_read_is_probed(runs: Path) -> None:
    read, never = (probed(runs / "masked", name)[0] for name in ("table", "again"))
    assert (read.value, read.low, read.high) == (never.value, never.low, never.high)
    with pytest.raises(InputError, match=r"masked never saw .*: only data of its bands"):
        probed(runs / "masked", "series")
    with pytest.raises(InputError, match=r"unknown task of data.tasks 'tabel'.*table"):
        probed(runs / "masked", "tabel")


def test_the_command_on_any_ranks_and_on_other_data(runs: Path, tmp_path: Path) -> None:
    words = ["probe", runs / "masked", "--model", "knn"]
    own = hpcgeo(*words, "--cache", tmp_path / "alone", "--json")
    assert [one["task"] for one in json.loads(own)] == ["scenes"] * 3 + ["table"] * 3
    out = tmp_path / "scores.jsonl"
    on = ["--on", "again=generated:table", "--cache", tmp_path / "two", "--out", out]
    code, said = ended(launch(2, *words, *on))
    assert code == 0, said
    [alone] = [
        one for one in json.loads(own) if (one["task"], one["whose"]) == ("table", "encoder")
    ]
    [first, *_] = map(json.loads, out.read_text().splitlines())
    assert (first["task"], first["whose"]) == ("again", "encoder")
    assert first["values"] == pytest.approx(alone["values"], abs=1e-6)
    assert "replicates 0: at least one" in hpcgeo(*words, "--replicates", "0", code=2)
    assert "--tasks has no effect with --on" in hpcgeo(*words, *on, "--tasks", "table", code=2)


def test_what_cannot_be_probed_is_said(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs: change compares dates of a place"):
        probed(runs / "dense")
    with pytest.raises(InputError, match="pairs: change compares dates of a place"):
        probed(runs / "dense", "pairs")
    with pytest.raises(InputError, match="reads tokens, and masked is read as samples"):
        probed(runs / "masked", protocol="attentive")
    with pytest.raises(InputError, match=r"block 1: masked has features after its last block, \d"):
        probed(runs / "masked", blocks=(1,))
    with pytest.raises(InputError, match=r"unknown pooling 'mean'; known: all"):
        probed(runs / "masked", poolings=("mean",))
    with pytest.raises(InputError, match="no checkpoint of step 3; there are: 4"):
        open_encoder(str(runs / "masked"), step=3)
    (tmp_path / "config.yaml").write_text(load("mae_vit_tiny", ["data.path=x"]).model_dump_json())
    with pytest.raises(InputError, match=r"holds no checkpoint"):
        probed(tmp_path)
    assert "holds no run" in hpcgeo("probe", tmp_path / "none", code=2)
