"""`hpcgeo plan`: the answer first, as text and as values, without torch; and what it refuses."""

import json
from pathlib import Path

import pytest
import yaml

from hpcgeo.config import load
from hpcgeo.sweep.points import load_sweep
from tests.plan.published import FRONTIER, steps
from tests.processes import hpcgeo

OWN = """
title: Six devices a node
sources: {me: a test}
device: A100-80
devices_per_node: [6, me]
links: {node: [300, me], out: [100, me]}
scheduler: slurm
"""
ASKED = ("plan", "--model", "vit_3b", "--machine", "frontier", "--nodes", "32")


def said(*words: str, code: int = 0) -> str:
    done = hpcgeo(*words)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_answer_is_first_and_can_be_trained_as_it_stands() -> None:
    first, second, *rest = said(*ASKED, "--samples", "990000", "--epochs", "100").splitlines()
    options, colon, figures = first.removeprefix("take ").partition(": ")
    assert colon and "images/s (" in figures and "MFU" in figures
    assert "GiB: fits; a step is " in second
    run = load("mae_vit_3b", options.split())
    assert run.train.micro_batch > 1
    [cost] = [line for line in rest if line.startswith("99,000,000 images: ")]
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
    """With chip, objective and samples, on a machine of a file of one's own."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(OWN)
    words = ["plan", "--model", "vit_base", "--machine", str(mine), "--nodes", "2"]
    words += ["--objective", "{name: simmim, mask_cell: 16}", "--chip", "192", "--samples", "1e6"]
    words += ["--global-batch", "768", "--write-job", str(tmp_path / "job")]
    told = said(*words)
    recipe = tmp_path / "job/simmim_vit_base.yaml"
    run = load(str(recipe))
    assert (run.objective.name, run.data.chip, run.train.steps) == ("simmim", (192, 192), 1303)
    assert run.launch.machine == str(mine)
    assert f"hpcgeo train {recipe} --dry --ranks 12" in told
    options = told.partition(": ")[0].removeprefix("take ").split()
    assert run.parallel.strategy == options[0].partition("=")[2]
    assert any(path.suffix == ".sbatch" for path in (tmp_path / "job").iterdir())
    assert "is there: choose another folder" in said(*words, code=2)


def test_groups_fill_nodes_of_any_size(tmp_path: Path) -> None:
    """Six devices a node: three and six, never four, which would straddle two nodes."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(OWN)
    words = ["plan", "--model", "vit_1b", "--machine", str(mine), "--nodes", "4", "--json"]
    ways = json.loads(said(*words, "--rows", "99"))["ways"]
    sizes = {int(way["strategy"].partition("(")[2][:-1]) for way in ways if "(" in way["strategy"]}
    assert {2, 3, 6, 12} <= sizes and not {4, 8} & sizes


def test_any_micro_batch_that_divides_a_global_batch_is_tried() -> None:
    ways = json.loads(said(*ASKED[:-1], "4", "--json", "--global-batch", "3072"))["ways"]
    assert {way["micro_batch"] for way in ways} & {96, 48, 24}


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
        ((*ASKED, "--samples", "inf"), "--samples"),
        ((*ASKED[:-1], "9700"), "may have"),
        ((*ASKED, "--chip", "225"), "take --chip"),
        ((*ASKED, "--map", "x.svg"), "--map draws a machine whole"),
        (("plan", "--machine", "frontier", "--map", "x.png"), "name it *.svg"),
        ((*ASKED, "--objective", "gfm"), "objective.teacher is missing; give it in --objective"),
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
