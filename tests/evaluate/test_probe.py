"""`hpcgeo probe`: simple models on latents of a frozen backbone, trained or not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hpcgeo.config import load
from hpcgeo.data.labelled import open_tasks
from hpcgeo.errors import InputError
from hpcgeo.evaluate import probe as probes
from hpcgeo.evaluate.baselines import fit_and_score
from hpcgeo.evaluate.probe import OF, probe
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.collate import tokens, whole
from tests import processes

SMALL = ["train.micro_batch=4", "optim.warmup_steps=1", "launch.threads=1"]


def hpcgeo(*words: str, code: int = 0) -> str:
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
    tasks = ["data.only=[table, pairs]", "train.eval_every=null"]
    hpcgeo("train", "gpna_tiny", *SMALL, *tasks, "train.steps=2", f"run.dir={folder}/tasks")
    hpcgeo(
        "train",
        "gpna_tiny",
        *SMALL,
        "data.only=[pairs]",
        "train.steps=1",
        f"run.dir={folder}/dense",
    )
    return folder


def test_tasks_with_a_label_for_a_sample_are_probed(runs: Path) -> None:
    found = probe(runs / "masked", labels=0.2, replicates=2)
    assert [row["task"] for row in found["rows"]] == ["scenes", "table"]
    assert found["step"] == 4 and found["provenance"]["commit"]
    for row in found["rows"]:
        train, test = (
            open_tasks("generated", Path(row["task"]), split=split, labels=0.2, seed=1)
            for split in ("train", "test")
        )
        assert (row["labels"], row["samples"]) == (len(train), len(test))
        assert set(row["values"]) == set(OF)
        assert all(len(values) == 2 for values in row["values"].values())
        expected, _ = fit_and_score("linear", train, test, row["metric"], seed=1)
        assert row["values"]["samples"][1] == pytest.approx(expected, rel=1e-9)
        for over, lead in row["leads"].items():
            ahead = np.mean(row["values"]["trained"]) - np.mean(row["values"][over])
            assert lead["value"] == pytest.approx(ahead if row["better"] == "higher" else -ahead)
            assert lead["low"] <= lead["high"]
    again = probe(runs / "masked", labels=0.2, replicates=2)
    assert again["rows"] == found["rows"]


def test_a_task_that_the_run_never_read_is_probed(runs: Path) -> None:
    read, never = (probe(runs / "masked", tasks=[name])["rows"] for name in ("table", "again"))
    assert [row | {"task": "again"} for row in read] == never
    with pytest.raises(InputError, match=r"pairs: the run never saw .*: only tasks of its bands"):
        probe(runs / "masked", tasks=["pairs"])
    with pytest.raises(InputError, match=r"unknown task of data.tasks 'tabel'.*table"):
        probe(runs / "masked", tasks=["tabel"])


def test_latents_are_those_of_the_weights(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {}

    def kept(objective: object, work: object, name: str, part: object) -> object:
        described.setdefault(name, (objective, work, name, part))  # first the trained, scored part
        return scored(objective, work, name, part)

    scored = probes._described
    monkeypatch.setattr(probes, "_described", kept)
    rows = probe(runs / "tasks")["rows"]
    (row,) = rows  # pairs have a label for every pixel
    assert row["values"]["trained"] != row["values"]["random"]
    trained, work, name, part = described["table"]
    found = scored(trained, work, name, part)
    drawn = [probes.plain(part.read(index)) for index in range(3)]
    made, _ = tokens(drawn, work.data.batching, work.bands, whole(drawn))
    with torch.no_grad():
        latents = trained.encode(made).latents
    torch.testing.assert_close(torch.from_numpy(found.vectors[:3]), latents.flatten(1))
    # The weights that a run begins from, read as if they had been trained.
    monkeypatch.setattr(
        probes.Weights, "read", lambda self, name: draw(name, self.shapes[name], slice(None), 0)
    )
    (row,) = probe(runs / "tasks")["rows"]
    assert row["values"]["trained"] == row["values"]["random"]
    assert row["leads"]["random"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_lead_is_positive_where_the_trained_is_better() -> None:
    values = {"trained": [0.2, 0.4], "random": [0.5, 0.5]}
    resampled = [{"trained": np.full(9, 0.3), "random": np.full(9, 0.5)}] * 2
    for better, sign in (("lower", 1), ("higher", -1)):
        lead = probes._lead({"better": better, "values": values}, resampled, "random")
        assert lead == {name: pytest.approx(sign * 0.2) for name in ("value", "low", "high")}


def test_the_interval_of_a_lead_tells_of_the_label_subsets() -> None:
    rng = np.random.default_rng(1)
    trained = rng.normal(0.1, 0.1, 20)  # of each label subset; the split hardly matters
    resampled = [
        {"trained": rng.normal(one, 1e-3, 999), "random": np.zeros(999)} for one in trained
    ]
    values = {"trained": trained.tolist(), "random": [0.0] * 20}
    lead = probes._lead({"better": "higher", "values": values}, resampled, "random")
    assert lead["high"] - lead["low"] == pytest.approx(2 * 1.96 * trained.std() / 20**0.5, rel=0.1)


def test_neighbours_and_the_command(runs: Path) -> None:
    words = ["probe", str(runs / "masked"), "--model", "knn", "--split", "validation"]
    table = hpcgeo(*words)
    assert "lead over random" in table and "validation split" in table
    found = json.loads(hpcgeo(*words, "--json"))
    for row in found["rows"]:
        assert row["task"] in table and f"{row['values']['trained'][0]:.3f}" in table
    assert "replicates 0: at least one" in hpcgeo(*words, "--replicates", "0", code=2)


def test_a_run_is_probed_alone_whatever_spread_it(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = probe(runs / "tasks")["rows"]
    shutil.copytree(runs / "tasks", tmp_path / "cut")
    config = tmp_path / "cut" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    values["parallel"] |= {"strategy": "FULL_SHARD", "tensor": 2}
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    assert probe(tmp_path / "cut")["rows"] == alone
    launched = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (launched | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="in one process"):
        probe(runs / "tasks")


def test_what_cannot_be_probed_is_said(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of pairs has a label for a whole sample"):
        probe(runs / "dense")
    with pytest.raises(InputError, match="no checkpoint of step 3; there are: 2"):
        probe(runs / "tasks", step=3)
    with pytest.raises(InputError, match="labels 0"):
        probe(runs / "tasks", labels=0)
    with pytest.raises(
        InputError, match=r"unknown model .tree.; known: knn, linear, forest; a pack"
    ):
        probe(runs / "tasks", model="tree")
    (tmp_path / "config.yaml").write_text(load("mae_vit_tiny", ["data.path=x"]).model_dump_json())
    with pytest.raises(InputError, match=r"task images: x: no index.json"):
        probe(tmp_path)
    assert "holds no run" in hpcgeo("probe", str(tmp_path / "none"), code=2)
