"""`hpcgeo probe ENCODER --on`: features once, everything chosen on validation, any ranks."""

import json
import os
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, recall_score
from sklearn.preprocessing import StandardScaler

from hpcgeo.errors import InputError
from hpcgeo.evaluate.frozen import probe_on
from hpcgeo.evaluate.probe_options import ProbeOptions
from hpcgeo.evaluate.probed_data import data_set
from hpcgeo.scores import Score
from tests import processes
from tests.evaluate.coloured import SIDE, SMALL, scenes, weights
from tests.ranks import ended, launch


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An encoder, and data, as they are named."""
    folder = tmp_path_factory.mktemp("frozen")
    data = scenes(folder / "scenes")
    return f"{SMALL}:{weights(folder / 'w.safetensors')}", f"scenes:{data}"


def options(cache: Path, **more: object) -> ProbeOptions:
    return replace(ProbeOptions(blocks=(6, 12), size=SIDE, cache=cache), **more)


def test_the_score_is_that_of_scikit_learn_on_the_same_features(
    made: tuple[str, str], tmp_path: Path
) -> None:
    encoder, on = made
    ours, random, samples = probe_on(
        encoder, [data_set(on)], options(tmp_path, refit=False, poolings=("mean",))
    )
    assert (ours.whose, random.whose, samples.whose) == ("encoder", "random", "samples")
    assert (ours.samples, ours.labels, ours.validation_labels) == (12, 21, 3)
    assert ours.low is not None and ours.high is not None
    assert ours.low <= (ours.value or 0) <= ours.high
    assert ours.leads["random"][0] == pytest.approx((ours.value or 0) - (random.value or 0))
    [chosen] = ours.chosen
    block, pooling = chosen["features"].split(", ")
    assert pooling == "mean"
    features = {}
    for about in tmp_path.glob("*/about.json"):
        if json.loads(about.read_text())["encoder"] == ours.fingerprint:
            kept = np.load(about.with_name(f"block-{int(block.split()[1]):02d}.npy"))[:, 192:]
            features[len(kept)] = kept, np.load(about.with_name("truth.npy"))
    train, test = features[21], features[12]
    scale = StandardScaler().fit(train[0])
    model = LogisticRegression(C=chosen["C"], max_iter=10_000, tol=1e-8)
    model.fit(scale.transform(train[0]), train[1])
    assert ours.value == pytest.approx(model.score(scale.transform(test[0]), test[1]))
    said = model.predict(scale.transform(test[0]))
    assert np.array_equal(ours.confusion, confusion_matrix(test[1], said))
    assert random.mistakes is None and samples.mistakes is None
    wrong = [(ours.mistakes or ())[n] for n in range(int((said != test[1]).sum()))]
    assert {one.sample for one in wrong} == {*np.flatnonzero(said != test[1]).tolist()}
    names = [*(ours.recalls or {})]
    for one in wrong:
        assert (one.truth, one.taken_for) == (names[test[1][one.sample]], names[said[one.sample]])
        assert Image.open(BytesIO(b64decode(one.picture or ""))).size == (72, 72)
    margins = model.decision_function(scale.transform(test[0]))
    sure = [margins[n.sample, said[n.sample]] - margins[n.sample, test[1][n.sample]] for n in wrong]
    assert sure == sorted(sure, reverse=True)
    recalls = recall_score(test[1], said, average=None)
    assert [*(ours.recalls or {}).values()] == pytest.approx(recalls)


def test_features_are_computed_once(made: tuple[str, str], tmp_path: Path) -> None:
    encoder, on = made
    first = probe_on(encoder, [data_set(on)], options(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    again = probe_on(encoder, [data_set(on)], options(tmp_path))
    assert [one.model_copy(update={"date": ""}) for one in first] == [
        one.model_copy(update={"date": ""}) for one in again
    ]
    probe_on(encoder, [data_set(on)], options(tmp_path, protocol="knn", blocks=(12,)))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files


def test_the_scored_split_has_no_say_in_the_choice(made: tuple[str, str], tmp_path: Path) -> None:
    """The same choice and model, whatever the labels of the test split are."""
    encoder, on = made
    folder = Path(on.partition(":")[2])
    table = (folder / "split.csv").read_text()
    first, *_ = probe_on(encoder, [data_set(on)], options(tmp_path / "one", beside=()))
    turned = "\n".join(
        line.replace(",a,", ",?,").replace(",b,", ",a,").replace(",?,", ",b,")
        if line.endswith("test")
        else line
        for line in table.splitlines()
    )
    other = tmp_path / "other"
    other.mkdir()
    for name in "abc":
        (other / name).symlink_to(folder / name)
    (other / "split.csv").write_text(turned + "\n")
    second, *_ = probe_on(
        encoder, [data_set(f"scenes:{other}")], options(tmp_path / "two", beside=())
    )
    assert first.chosen == second.chosen and first.validation == second.validation
    assert first.value != second.value


@pytest.mark.parametrize("protocol", ["knn", "attentive"])
def test_label_subsets_and_other_protocols(
    made: tuple[str, str], tmp_path: Path, protocol: str
) -> None:
    encoder, on = made
    found = probe_on(
        encoder,
        [data_set(on)],
        options(tmp_path, protocol=protocol, labels=2, replicates=2, beside=("samples",)),
    )
    ours = found[0]
    assert (ours.labels, len(ours.values), len(ours.chosen)) == (6, 2, 2)
    assert len(found) == (2 if protocol == "knn" else 1)  # samples have no tokens


def test_ranks_agree_bit_for_bit_and_scores_are_records(
    made: tuple[str, str], tmp_path: Path
) -> None:
    encoder, on = made
    words = ["probe", encoder, "--on", on, "--size", SIDE, "--blocks", "6,12"]
    for ranks in (1, 2):
        out = ["--cache", tmp_path / f"{ranks}", "--out", tmp_path / f"{ranks}.jsonl"]
        code, said = ended(launch(ranks, *words, *out))
        assert code == 0, said
    one, two = (
        [Score.model_validate_json(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "1.jsonl", tmp_path / "2.jsonl")
    )
    assert len(one) == 3
    for mine, other in zip(one, two, strict=True):
        same = {"date": "", "command": ""}
        assert mine.model_copy(update=same) == other.model_copy(update=same)
    for path in (tmp_path / "1").rglob("block-*.npy"):
        theirs = tmp_path / "2" / path.relative_to(tmp_path / "1")
        assert path.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("protocol", "setting"), [("linear", "C 0.00464"), ("knn", "weights similarity")]
)
def test_the_table_says_what_was_chosen(
    made: tuple[str, str], tmp_path: Path, protocol: str, setting: str
) -> None:
    encoder, on = made
    done = processes.hpcgeo(
        *(
            "probe",
            encoder,
            "--on",
            on,
            "--size",
            str(SIDE),
            "--blocks",
            "12",
            "--pooling",
            "class",
        ),
        *("--cache", str(tmp_path), "--normalise", "data", "--model", protocol),
    )
    assert done.returncode == 0, done.stderr
    for word in ("encoder", "random", "samples", "block 12, class", "accuracy", "lead", setting):
        assert word in done.stdout, word


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "scenes"], "READER:PATH, e.g. scenes:data/ucmerced"),
        (["--on", "DATA", "--blocks", "13"], "block 13: vit_tiny_patch16_224 has 12"),
        (["--on", "DATA", "--blocks", "x"], "--blocks x: numbers of blocks"),
        (
            ["--on", "DATA", "--size", "30"],
            "--size 30: vit_tiny_patch16_224 reads patches of 16: 16 or 32",
        ),
        (["--on", "DATA", "--model", "tree"], "unknown protocol 'tree'"),
        (["--on", "DATA", "--model", "dense_linear"], "protocol dense_linear is none for"),
        (["--on", "DATA", "--pooling", "max"], "unknown pooling 'max'; known: class, mean, all"),
        (["--on", "DATA", "--normalise", "no"], "--normalise no: encoder, or data"),
        (["--on", "DATA", "--labels", "0.5", "--shots", "3"], "give one of them"),
        (["--on", "DATA", "--labels", "0"], "--labels 0.0: a fraction above 0"),
        (["--on", "DATA", "--tasks", "x"], "--tasks has no effect with --on"),
        (["--on", "DATA", "--on", "DATA"], "two data sets of one name"),
        (["--shots", "3"], "holds no run, with tasks of its own: give --on READER:PATH"),
        (["--on", "DATA", "--replicates", "0"], "replicates 0: at least one"),
        (
            ["--on", "DATA", "--model", "attentive", "--pooling", "mean"],
            "pooling mean has no effect under protocol attentive",
        ),
    ],
)
def test_wrong_words_are_said_at_once(
    made: tuple[str, str], tmp_path: Path, words: list[str], said: str
) -> None:
    encoder, on = made
    given = [on if word == "DATA" else word for word in words]
    done = processes.hpcgeo("probe", encoder, *given, "--cache", str(tmp_path / "none"))
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (tmp_path / "none").exists()


def test_data_is_named_with_or_without_its_target(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    found = data_set(f"mine=scenes:{tmp_path}/data:labels")
    assert (found.name, found.task.reader, found.task.target) == ("mine", "scenes", "labels")
    assert data_set(f"scenes:{tmp_path}/data").name == "data"
    with pytest.raises(InputError, match="READER:PATH"):
        data_set("x:")


def test_features_of_one_cache_have_the_labels_of_their_task(
    made: tuple[str, str], tmp_path: Path
) -> None:
    """One folder, two targets: a class, and several labels of a photograph."""
    encoder, on = made
    both = [data_set(f"one={on}"), data_set(f"several={on}:labels")]
    how = options(tmp_path / "both", protocol="knn", beside=())
    together = probe_on(encoder, both, how)
    for one, apart in zip(both, together, strict=True):
        [alone] = probe_on(encoder, [one], replace(how, cache=tmp_path / one.name))
        assert alone.model_copy(update={"date": apart.date}) == apart
    assert together[0].metric != together[1].metric


def test_changed_pixels_are_encoded_again(tmp_path: Path) -> None:
    encoder = f"{SMALL}:{weights(tmp_path / 'w.safetensors')}"
    folder = scenes(tmp_path / "scenes")
    how = options(tmp_path / "cache", protocol="knn", beside=())
    probe_on(encoder, [data_set(f"scenes:{folder}")], how)
    before = {*how.cache.iterdir()}
    photograph = folder / "a" / "1.png"
    later = photograph.stat().st_mtime_ns + 10**9
    os.utime(photograph, ns=(later, later))  # of the same name and size
    probe_on(encoder, [data_set(f"scenes:{folder}")], how)
    assert len({*how.cache.iterdir()} - before) == len(before)
