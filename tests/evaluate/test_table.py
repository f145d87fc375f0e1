"""`hpcgeo evaluate`: the table says what the runs reach, what simpler models do, and who loses."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hpcgeo.config import load
from hpcgeo.data.labelled import open_tasks
from hpcgeo.errors import InputError
from hpcgeo.evaluate.baselines import fit_and_score
from hpcgeo.evaluate.score import Case, Reached
from hpcgeo.evaluate.table import FORMATS, _behind, _row, _write, drawn, evaluate
from hpcgeo.workloads.choice import workload_of
from hpcgeo.workloads.scores import Found
from tests.data.labelled import LAYOUTS
from tests.processes import hpcgeo
from tests.ranks import Own, ended, launch


def said_as(
    value: float | None, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


TABLE: dict[str, Any] = {
    "split": "test",
    "runs": [{"run": "all", "step": 2000}, {"run": "kilns", "step": 500}],
    "rows": [
        {
            "task": "brick_kilns",
            "metric": "accuracy",
            "better": "higher",
            "samples": 1200,
            "scores": {"all": said_as(0.9, 0.88, 0.92), "kilns": said_as(0.85, 0.83, 0.87)},
            "baselines": {"linear": said_as(0.8, 0.78, 0.82), "forest": said_as(0.95, 0.93, 0.96)},
            "best_baseline": "forest",
            "leads": [
                {"run": "all", "over": "the best baseline"} | said_as(-0.05, -0.06, -0.04),
                {"run": "all", "over": "the status quo"} | said_as(-0.04, -0.06, 0.0),
                {"run": "all", "over": "another run"} | said_as(0.05, 0.03, 0.07),
                {"run": "kilns", "over": "the best baseline"} | said_as(-0.1, -0.12, -0.08),
                {"run": "kilns", "over": "the status quo"} | said_as(-0.09, -0.11, -0.07),
            ],
            "gpna": 0.96,
            "status_quo": 0.94,
            "method": "ResNet-50",
        },
        {
            "task": "yields",
            "metric": "rmse",
            "better": "lower",
            "samples": 80,
            "scores": {"all": said_as(0.25, 0.2, 0.3)},
            "baselines": {"linear": said_as(0.5, 0.4, 0.6), "forest": said_as(None)},
            "best_baseline": "linear",
            "leads": [{"run": "all", "over": "the best baseline"} | said_as(0.25, 0.2, 0.3)],
        },
        {
            "task": "water",
            "metric": "r2",
            "better": "higher",
            "samples": 1,
            "scores": {"all": said_as(None)},
            "baselines": {"linear": said_as(0.0)},
            "best_baseline": "linear",
            "leads": [{"run": "all", "over": "the best baseline"} | said_as(None)],
        },
    ],
    "behind": ["all: behind the best baseline on 2 of 3 tasks: brick_kilns (significantly), water"],
    "baselines": ["linear", "forest"],
    "provenance": {"command": "hpcgeo evaluate all kilns", "commit": "abc"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short runs: `both` of two tasks, `single` of one of them."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["train.micro_batch=4", "optim.warmup_steps=1", "checkpoint.every=1"]
    for name, steps, tasks in (("both", 5, "[series, table]"), ("single", 2, "[table]")):
        options = [*small, f"train.steps={steps}", f"data.only={tasks}", f"run.dir={name}"]
        said(folder, "train", "gpna_tiny", *options)
    return folder


def said(folder: Path, *words: str, code: int = 0) -> str:
    done = hpcgeo(*words, cwd=folder)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_what_runs_reach_beside_baselines(runs: Path) -> None:
    words = ["evaluate", "both", "single", "--split", "validation", "--baselines", "linear,unet"]
    table = json.loads(said(runs, *words, "--json", "--out", "table.json"))
    assert json.loads((runs / "table.json").read_text()) == table
    assert [row["task"] for row in table["rows"]] == ["series", "table"]
    assert [run["step"] for run in table["runs"]] == [5, 2]
    series, number = table["rows"]
    for run in ("both", "single"):  # as each looked at itself when it ended
        for line in (runs / run / "scores.jsonl").read_text().splitlines():
            look = json.loads(line)
            row = {"series": series, "table": number}[look["task"]]
            assert row["scores"][run]["value"] == pytest.approx(look["value"], rel=1e-5)
            assert (row["metric"], row["samples"]) == (look["metric"], look["samples"])
    assert list(series["scores"]) == ["both"] and list(series["baselines"]) == ["linear"]
    among = series["scores"]["both"]
    p, width = among["value"], among["high"] - among["low"]
    assert width == pytest.approx(2 * 1.96 * (p * (1 - p) / 80) ** 0.5, rel=0.1)  # of a mean
    sets = [
        open_tasks("generated", Path("table"), split=split) for split in ("train", "validation")
    ]
    fitted, resampled = fit_and_score("linear", *sets, "r2", resamples=1000)
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert number["baselines"]["linear"] == said_as(
        fitted,
        *(pytest.approx(end, abs=1e-6) for end in (low, high)),  # kept with six digits
    )
    ahead = number["leads"][0]
    assert (ahead["run"], ahead["over"]) == ("both", "the best baseline")
    assert ahead["value"] == number["scores"]["both"]["value"] - fitted
    assert ahead["low"] < ahead["value"] < ahead["high"] and ahead["value"] < 0
    assert table["behind"][0].startswith("both: behind the best baseline on 2 of 2 tasks: series")
    said_surely = "table (significantly)" if ahead["high"] < 0 else "table"
    assert table["behind"][0].endswith(said_surely)
    assert {"commit", "command", "versions"} <= table["provenance"].keys()

    # On two ranks, with what is kept of the baselines: a made up value shows that it is read.
    kept = runs / "baselines.jsonl"
    made_up = {"value": 0.125, "resampled": [0.125] * 1000}
    lines = [json.loads(line) | made_up for line in kept.read_text().splitlines()]
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines) + "torn")
    there = Own(cwd=runs)
    ranks = launch(2, *words, "--out", "table.md", only={0: there, 1: there})
    assert ended(ranks)[0] == 0
    shown = ranks[0].communicate()[0]
    assert "0.125 (0.125 to 0.125) linear" in shown
    assert shown.splitlines()[-1].startswith("single: behind the best")
    rows = [line for line in (runs / "table.md").read_text().splitlines() if "series" in line]
    assert f"| {p:.3f} (0." in rows[0] and "|  | 0.125 (0.125 to 0.125) linear |" in rows[0]


def test_bad_input_is_said_before_the_work(runs: Path, tmp_path: Path) -> None:
    both, mae, masked = runs / "both", tmp_path / "mae", tmp_path / "masked"
    for folder, recipe, more in (
        (mae, "mae_vit_tiny", []),
        (masked, "gpna_tiny", ["objective.name=masked_tokens"]),
        (tmp_path / "new", "gpna_tiny", []),
    ):
        folder.mkdir()
        (folder / "config.yaml").write_text(load(recipe, more).to_yaml())
    for folders, options, message in (
        ([tmp_path], {}, "holds no run"),
        ([mae], {}, "is a run of mae, which answers no task: give runs with objective.name mul"),
        ([masked], {}, "is a run of masked_tokens, which answers no task"),
        ([tmp_path / "new"], {}, "holds no checkpoint"),
        ([both], {"step": 77}, "holds no checkpoint of step 77; there are: 4, 5"),
        ([both, both], {}, "the same run twice"),
        ([both], {"baselines": ["forrest"]}, "unknown baseline 'forrest' .did you mean 'forest'"),
        ([both], {"out": Path("table.xls")}, "unknown format of a table '.xls'; known: .json"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(folders, **options)
    assert "holds no run" in said(tmp_path, "evaluate", str(tmp_path), code=2)


def test_tasks_of_one_name_have_the_same_data(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    (other / "checkpoints/step-00000002").symlink_to(runs / "single/checkpoints/step-00000002")
    text = (runs / "single/config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("metric: null", "metric: rmse"))
    with pytest.raises(InputError, match=r"task table of .*other has another metric \(rmse\)"):
        evaluate([runs / "both", other])
    (other / "config.yaml").write_text(text.replace("path: table", "path: series"))
    with pytest.raises(InputError, match="was trained on other data than is there now"):
        evaluate([other])


def test_who_loses_is_said_and_an_undefined_score_does() -> None:
    assert _behind(["all", "kilns"], TABLE["rows"]) == [
        "all: behind the best baseline on 2 of 3 tasks: "
        "brick_kilns (significantly), water (significantly)",
        "all: behind the status quo on 1 of 1 task: brick_kilns",
        "all: behind another run on none of 1 task",
        "kilns: behind the best baseline on 1 of 1 task: brick_kilns (significantly)",
        "kilns: behind the status quo on 1 of 1 task: brick_kilns (significantly)",
    ]


def test_leads_are_taken_on_the_same_resamples(tmp_path: Path) -> None:
    """A run that is better by 0.01 everywhere is surely ahead, however far its score spreads."""
    run = load("gpna_tiny", ["data.only=[table]"])
    work = workload_of(run)
    case = Case(tmp_path, 1, tmp_path, run, work, work.sets_of("validation"))
    spread = np.random.default_rng(0).uniform(0.2, 0.8, 1000)
    found = {
        name: [Found("table", "r2", value, 80, spread + value - 0.5)]
        for name, value in (("first", 0.5), ("second", 0.51), ("third", 0.4))
    }
    baselines = {"linear": Reached(0.45, spread[::-1]), "forest": Reached(np.nan, spread * np.nan)}
    row = _row("table", case, "validation", found, baselines)
    leads = {(lead["run"], lead["over"]): lead for lead in row["leads"]}
    first = leads["first", "another run"]
    assert [first[key] for key in ("value", "low", "high")] == pytest.approx([-0.01] * 3)
    assert row["best_baseline"] == "linear" and ("second", "another run") not in leads
    unsure = leads["first", "the best baseline"]
    assert unsure["value"] == pytest.approx(0.05) and unsure["low"] < -0.3 < 0.3 < unsure["high"]
    assert row["baselines"]["forest"] == said_as(None)
    assert "first: behind another run on 1 of 1 task: table (significantly)" in _behind(
        ["first", "second", "third"], [row]
    )


def test_published_figures_stand_beside_the_same_task_alone(tmp_path: Path) -> None:
    path = LAYOUTS["brick_kilns"][0](tmp_path / "kilns")
    options = ["data.only=[brick_kilns]", f"data.tasks.brick_kilns.path={path}"]

    def row(part: str, *more: str) -> dict[str, Any]:
        run = load("gpna_sustainbench", [*options, "data.tasks.brick_kilns.size=32", *more])
        work = workload_of(run)
        case = Case(tmp_path, 1, tmp_path, run, work, work.sets_of(part))
        found = {"run": [Found("brick_kilns", "accuracy", 0.5, 4, np.full(1000, 0.5))]}
        return _row("brick_kilns", case, part, found, {})

    assert row("test") | {"gpna": 0.96, "status_quo": 0.94, "method": "ResNet-50"} == row("test")
    assert "gpna" not in row("validation")
    assert "gpna" not in row("test", "data.tasks.brick_kilns.metric=f1")


def test_markdown_is_as_it_was() -> None:
    assert (
        FORMATS[".md"](TABLE)
        == """\
| task | metric | n | all | kilns | best baseline | ahead by | GPNA | status quo |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| brick_kilns | accuracy ↑ | 1,200 | 0.900 (0.880 to 0.920) | 0.850 (0.830 to 0.870) | 0.950 \
(0.930 to 0.960) forest | -0.050 (-0.060 to -0.040) | 0.960 | 0.940 ResNet-50 |
| yields | rmse ↓ | 80 | 0.250 (0.200 to 0.300) |  | 0.500 (0.400 to 0.600) linear | +0.250 \
(+0.200 to +0.300) |  |  |
| water | r2 ↑ | 1 | NaN |  | 0.000 linear | NaN |  |  |

test split; all at step 2,000, kilns at step 500; n: samples; in brackets the 95 % confidence \
interval, of 1,000 resamples of clusters (samples of one location); ahead by: of the first run \
with the task, negative where the best of linear, forest is better; significantly: the 95 % \
confidence interval of the lead is below 0; GPNA, status quo: as published.

- all: behind the best baseline on 2 of 3 tasks: brick_kilns (significantly), water

`hpcgeo evaluate all kilns`, commit abc
"""
    )


def test_a_file_that_says_something_else_is_left(tmp_path: Path) -> None:
    out, other = tmp_path / "made" / "table.json", TABLE | {"split": "validation"}
    _write(out, TABLE, force=False)
    _write(out, TABLE, force=False)
    with pytest.raises(InputError, match="is there and says something else: --force, or another"):
        _write(out, other, force=False)
    assert json.loads(out.read_text()) == TABLE
    _write(out, other, force=True)
    assert json.loads(out.read_text()) == other
    assert [path.name for path in out.parent.iterdir()] == ["table.json"]


def test_csv_has_a_line_for_each_number() -> None:
    lines = FORMATS[".csv"](TABLE).splitlines()
    assert len(lines) == 1 + (2 + 2 + 2) + (1 + 2) + (1 + 1)
    assert "brick_kilns,test,accuracy,higher,1200,ResNet-50,published,0.94,," in lines
    assert "water,test,r2,higher,1,all,run,,," in lines


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_every_number(width: int) -> None:
    table = copy.deepcopy(TABLE)
    console = Console(width=width, record=True, file=None)
    with console.capture() as shown:
        console.print(drawn(table))
    text = shown.get()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    for number in (
        "0.900",
        "0.880",
        "0.850",
        "0.950",
        "-0.050",
        "0.960",
        "0.940",
        "NaN",
        "brick_kilns",
    ):
        assert number in text, text
