"""`hpcgeo plan`: the answer first, as text and as values, without torch; and what it refuses."""

import json
from pathlib import Path

import pytest
import yaml

from hpcgeo.config import load
from hpcgeo.sweep.points import load_sweep
from tests.plan.published import FRONTIER, steps
from tests.processes import hpcgeo

ASKED = ("plan", "--model", "vit_3b", "--machine", "frontier", "--nodes", "32")


def said(*words: str, code: int = 0) -> str:
    done = hpcgeo(*words)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_answer_is_first_and_can_be_trained_as_it_stands() -> None:
    first, cost, *_ = said(*ASKED, "--samples", "990000", "--epochs", "100").splitlines()
    options, colon, figures = first.removeprefix("take ").partition(": ")
    assert colon and "images/s (" in figures and "GiB: fits" in figures
    run = load("mae_vit_3b", options.split())
    assert run.train.micro_batch > 1
    assert cost.startswith("99,000,000 images: ")
    assert "node-hours" in cost and "jobs of 2 h" in cost and "kg CO2" in cost


def test_values_are_those_of_the_table() -> None:
    found = json.loads(said(*ASKED, "--json", "--rows", "3"))
    assert [len(found["ways"]), found["nodes"]] == [3, 32]
    for way in found["ways"]:
        low, high = way["images_per_s_80"]
        assert low < way["images_per_s"] < high
        parts = way["compute_s"] + way["exposed_s"] + way["optimizer_s"]
        assert way["step_s"] == pytest.approx(parts)
        assert way["memory_bytes"]["total"] < 64 * 2**30


def test_a_global_batch_is_kept_and_a_micro_batch_too() -> None:
    ways = json.loads(said(*ASKED, "--json", "--global-batch", "4096"))["ways"]
    assert {way["micro_batch"] * way["accumulate"] * 256 // way["tensor"] for way in ways} == {4096}
    ways = json.loads(said(*ASKED, "--json", "--micro-batch", "24"))["ways"]
    assert {way["micro_batch"] for way in ways} == {24}


def test_every_term_has_its_formula() -> None:
    terms = said(*ASKED, "--explain")
    for term in ("compute ", "exposed ", "collectives: ", "optimizer ", "interval: ", "memory "):
        assert f"\n{term}" in terms
    assert "2404.11706" in terms


def test_the_sweep_of_what_is_in_doubt_is_one_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "doubt.yaml"
    assert "hpcgeo-profile sweep" in said(*ASKED, "--sweep", str(file))
    sweep = load_sweep(file)
    assert 2 <= len(yaml.safe_load(file.read_text())["grid"]["points"]) <= 3
    assert sweep.nodes == [32]


def test_the_job_trains_what_was_planned(tmp_path: Path) -> None:
    said(*ASKED, "--global-batch", "8192", "--write-job", str(tmp_path))
    run = load(str(tmp_path / "mae_vit_3b.yaml"))
    first = said(*ASKED, "--global-batch", "8192").partition(": ")[0].removeprefix("take ")
    assert run == load(
        "mae_vit_3b", ["parallel.group_size=null", "train.accumulate=1", *first.split()]
    )
    script = (tmp_path / "frontier_mae_vit_3b.sbatch").read_text()
    assert "#SBATCH --nodes=32" in script and "mae_vit_3b.yaml" in script


def test_one_measured_step_moves_the_answer(tmp_path: Path) -> None:
    """A step of one node that took half as long again."""
    case = next(case for case in steps() if case.record.communication == "on")
    record = case.record.model_copy(
        update={"images_per_s": case.record.global_batch / case.predicted().seconds / 1.5}
    )
    file = tmp_path / "records.jsonl"
    file.write_text(record.model_dump_json() + "\n")
    before, after = (
        json.loads(said(*ASKED, "--json", *more))["ways"][0]
        for more in ((), ("--probe", str(file)))
    )
    assert after["images_per_s"] < 0.8 * before["images_per_s"]


def test_a_calibration_is_written_and_used(tmp_path: Path) -> None:
    out = tmp_path / "frontier.yaml"
    words = ("plan", "calibrate", str(FRONTIER / "records-published.jsonl"), "--machine")
    told = said(*words, "frontier", "--models", "vit_1b_gated", "--out", str(out))
    assert "told apart worst" in told and f"written: {out}" in told
    found = json.loads(said(*ASKED, "--json", "--calibration", str(out)))
    assert "measured steps of frontier" in found["calibration"]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("plan",), "--model, --machine, --nodes: a plan needs it"),
        ((*ASKED[:-1], "20000"), "nodes 20000: frontier has 9856"),
        ((*ASKED[:2], "vit_3c", *ASKED[3:]), "vit_3c"),
        ((*ASKED[:4], "local", *ASKED[5:]), "names no device with a known bfloat16 peak"),
        ((*ASKED, "--global-batch", "100"), "take a multiple of 256"),
        ((*ASKED, "--objective", "multitask"), "objective"),
        ((*ASKED, "--micro-batch", "100000"), "nothing fits: at least"),
        ((*ASKED, "--probe", str(FRONTIER)), "give one record of one node"),
        (("plan", "calibrate", str(FRONTIER), "--machine", "jupiter"), "takes 4 or more"),
    ],
    ids=str,
)
def test_bad_input(words: tuple[str, ...], rule: str) -> None:
    [line] = said(*words, code=2).splitlines()
    assert line.startswith("hpcgeo: ") and rule in line


def test_without_torch() -> None:
    """On a login node: the objective, too, says its closed forms without it."""
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['torch'] = None; "
        f"sys.argv = ['hpcgeo', *{list(ASKED)!r}]; from hpcgeo.cli.main import hpcgeo; hpcgeo()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("take ")


def test_the_planned_files_are_those_of_the_planner() -> None:
    from profiles import planned

    for name, text in planned.made().items():
        assert (planned.PLANNED / name).read_text() == text, (
            f"run python -m profiles.planned: {name}"
        )
