"""What a study asks for: members and steps of a file, what is refused before the first of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcgeo.errors import InputError
from hpcgeo.study.folder import StudyFolder
from hpcgeo.study.local import run_study
from hpcgeo.study.study import StudyFile, load_study, members, train_config
from hpcgeo.workloads.choice import workload_of
from tests import processes
from tests.evaluate.coloured import SIDE, scenes

ROOT = Path(__file__).parents[2]
PROBE = {"knn": {"data": ["scenes:{scenes}"], "options": {"model": "knn", "refit": False}}}
KEYS: dict[str, Any] = {
    "title": "tiny",
    "ranks": 1,
    "hours": 0.5,
    "places": {"scenes": "here/scenes"},
    "pretrain": {
        "mae": {
            "recipe": "mae_vit_tiny",
            "set": {"data": {"chip": 32}, "train.micro_batch": 4},
            "grid": {"model.name": ["vit_nano", "vit_tiny"], "train.steps": [20]},
        }
    },
    "probe": PROBE,
    "finetune": {
        "scenes": {
            "recipe": "finetune_vit_tiny",
            "set": {"data.tasks.scenes": {"reader": "scenes", "path": "{scenes}", "size": 32}},
        }
    },
}


def study(folder: Path, **keys: object) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(json.dumps(KEYS | keys))  # which is YAML, without aliases
    return file


def test_members_and_their_steps(tmp_path: Path) -> None:
    found = members(load_study(study(tmp_path), {"scenes": "/there"}), Path("out"))
    assert [member.name for member in found] == ["mae-vit_nano", "mae-vit_tiny"]
    names = ["pretrain", "probe knn", "finetune scenes", "finetune scenes from random weights"]
    assert [step.name for step in found[0].steps] == [*names, "score scenes"]
    pretrain, probe, tuned, of_random, score = (step.words for step in found[0].steps)
    folder = "out/pretrained/mae-vit_nano"
    assert pretrain[:3] == ("train", "mae_vit_tiny", "data.chip=32")
    assert {"model.name=vit_nano", "train.steps=20", f"run.dir={folder}"} <= {*pretrain}
    assert probe[:4] == ("probe", folder, "--on", "scenes:/there") and "--no-refit" in probe
    assert {"model.name=vit_nano", f"model.weights={folder}"} <= {*tuned}
    assert [word for word in tuned if word not in of_random] == [
        f"model.weights={folder}",
        "run.dir=out/finetuned/scenes/tuned/mae-vit_nano",
    ]
    assert score[:3] == ("evaluate", *(w.partition("=")[2] for w in (tuned[-2], of_random[-2])))
    assert [step.needs for step in found[0].steps][:4] == [(), ("pretrain",), ("pretrain",), ()]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"probe": {}, "finetune": {}}, "nothing to judge by"),
        ({"pretrain": {}}, "nothing to judge: give `pretrain`"),
        ({"probe": {"knn": {"data": ["scenes:{scens}"]}}}, "unknown place 'scens'.*scenes"),
        ({"encoders": {"mae-vit_nano": "dinov2_vits14:f"}}, "two members .* mae-vit_nano"),
        ({"encoders": {"a": "nothing:f"}}, "nothing"),
        ({"hours": 0}, "hours"),
        ({"places": {"scenes": ".", "out": "."}}, "places.out"),
        ({"pretrain": {"m": {"recipe": "mae_vit_tiny", "grid": {"seed": []}}}}, "grid.seed"),
        ({"encoders": {"..": "dinov2_vits14:f"}}, "encoders"),
        ({"probe": {"k": {"data": ["a:b"], "options": {"model": "no"}}}}, "probe k: unknown proto"),
        ({"probe": {"k": {"data": ["a:b"], "options": {"size": 13}}}}, "probe k: chip 13 x 13"),
        ({"probe": {"k": {"data": ["a:b"], "options": {"help": True}}}}, "help is no option"),
        (
            {"pretrain": {"mae": {"recipe": "mae_vit_tiny", "set": {"train.stps": 1}}}},
            "mae: .*stps",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything(tmp_path: Path, keys: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        members(load_study(study(tmp_path, **keys), {}), tmp_path / "out")


def test_places_are_those_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown place 'scenery'.*scenes"):
        load_study(study(tmp_path), {"scenery": "/there"})


def test_every_problem_is_listed_once_and_nothing_runs(tmp_path: Path) -> None:
    file = study(tmp_path)
    done = processes.hpcgeo("study", file, "--out", tmp_path / "out")
    code, log = done.returncode, done.stderr
    assert code == 2 and not (tmp_path / "out").exists()
    assert "probe knn and 5 more steps: task scenes: here/scenes/split.csv: no such file" in log
    assert log.count("here/scenes/split.csv") == 1
    file = study(
        tmp_path, finetune={}, probe={"k": {"data": ["generated:scenes"], "options": {"k": 3}}}
    )
    done = processes.hpcgeo("study", file, "--out", tmp_path / "out")
    assert done.returncode == 2 and "no such option" in done.stderr.lower()


def test_equal_flops_become_steps(tmp_path: Path) -> None:
    objectives = [{"name": "mae"}, {"name": "simmim", "mask_cell": 8}]
    pretrain = {
        "recipe": "mae_vit_tiny",
        "flops": 1e12,
        "set": {"data": {"chip": 32}, "train": {"micro_batch": 4, "accumulate": 2}},
        "grid": {"objective": objectives},
    }
    found = members(load_study(study(tmp_path, ranks=2, pretrain={"m": pretrain}), {}), tmp_path)
    assert [member.name for member in found] == ["m-mae", "m-simmim"]
    for member in found:
        config = train_config(member.steps[0])
        each = workload_of(config).model_flops(4 * 2 * 2)
        assert each and config.train.steps * each == pytest.approx(1e12, rel=0.5 * each / 1e12)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"set": {"train.steps": 9}}, "m: flops and train.steps: give one of the two"),
        ({"flops": 1.0}, "m: flops 1: one step takes"),
        ({"flops": 0}, "flops"),
        (
            {
                "set": {
                    "objective": {
                        "name": "combined",
                        "terms": {"a": {"objective": {"name": "mae"}}},
                    }
                }
            },
            "m: flops: those of objective combined on model vit_tiny are not known in closed form",
        ),
    ],
)
def test_flops_that_are_no_length(tmp_path: Path, keys: Any, said: str) -> None:
    pretrain = {"m": {"recipe": "mae_vit_tiny", "flops": 1e12} | keys}
    with pytest.raises(InputError, match=said):
        members(load_study(study(tmp_path, pretrain=pretrain), {}), tmp_path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a data set of images: where FLOPs are given, their bands are looked at."""
    folder = tmp_path_factory.mktemp("images")
    words = ["data", "build", scenes(folder / "scenes"), "--out", folder / "set", "--chip", SIDE]
    done = processes.hpcgeo(*words)
    assert done.returncode == 0, done.stderr
    return str(folder / "set")


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda f: f.stem)
def test_shipped_studies_are_studies(file: Path, images: str) -> None:
    named = StudyFile.model_validate(yaml.safe_load(file.read_text())).places
    places = {"images": images} if "images" in named else {}
    found = members(load_study(file, places), Path("out"))
    assert len(found) == len({member.name for member in found}) >= 4


def test_a_done_step_keeps_its_options(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = StudyFolder(load_study(study(tmp_path), {}), out)
    first.claim()
    [member, _] = first.members
    done = member.steps[1]
    first.begin(member, done, out / "said", out / "again")
    assert first.state(member, done)[0] == "running"
    first.conclude(member, 0)
    assert first.state(member, done) == ("done", "")
    assert StudyFolder.there(out).study == first.study
    more = KEYS["probe"] | {"linear": KEYS["probe"]["knn"]}
    StudyFolder(load_study(study(tmp_path, probe=more), {}), out).claim()
    other = {"knn": {"data": ["scenes:{scenes}"], "options": {"model": "linear"}}}
    changed = StudyFolder(load_study(study(tmp_path, probe=other), {}), out)
    with pytest.raises(
        InputError, match="mae-vit_nano: probe knn is done there with other options"
    ):
        changed.claim()
    grown = KEYS["pretrain"]["mae"] | {"grid": {"train.steps": [20, 40]}}
    renamed = StudyFolder(load_study(study(tmp_path, pretrain={"mae": grown}), {}), out)
    with pytest.raises(InputError, match="mae-vit_nano has steps that are done there, and is none"):
        renamed.claim()


def test_a_failed_step_is_tried_by_the_next_call_and_what_needs_it_waits(tmp_path: Path) -> None:
    folder = StudyFolder(StudyFile(**KEYS), tmp_path)
    folder.claim()
    member = folder.members[0]
    step = folder.next(member)
    assert step is not None and step.name == "pretrain"
    folder.begin(member, step, tmp_path / "said", tmp_path / "again")
    (tmp_path / "said").write_text("hpcgeo: rank 0 of 1 on here: no room\n")
    folder.conclude(member, 1)
    assert folder.state(member, step) == ("failed", "rank 0 of 1 on here: no room")
    following = folder.next(member)
    assert following is not None and following.name == "finetune scenes from random weights"
    folder.claim()
    assert folder.next(member) == step
    # What a job is at is not done here beside it.
    place = tmp_path / "jobs" / "study-1"
    folder.begin(member, step, place / "0.out", place / "0.again")
    assert not folder.job_at(member)  # of no job
    now = tmp_path / "steps" / member.name / "now.json"
    now.write_text(now.read_text().replace('"job": ""', '"job": "7"'))
    with pytest.raises(InputError, match=r"mae-vit_nano: job 7 is at work on it.*--cancel"):
        run_study(folder)
    folder.interrupt(member)
    # Ended well, and neither done nor to be gone on with.
    folder.begin(member, step, tmp_path / "said", tmp_path / "again")
    assert not folder.conclude(member, 0)
    assert folder.state(member, step)[0] == "failed"
    folder.claim()
    folder.begin(member, step, tmp_path / "said", tmp_path / "again")
    (tmp_path / "again").touch()
    assert folder.conclude(member, 0) and folder.state(member, step)[0] == "waiting"
    # Begun late in a job, it stopped before it could save: it goes on in the next start.
    folder.begin(member, step, tmp_path / "said", tmp_path / "again", first=False)
    assert folder.conclude(member, 0) and (tmp_path / "again").exists()
    assert folder.state(member, step)[0] == "waiting"


def test_a_probe_and_a_fine_tuning_of_one_name_keep_their_scores(tmp_path: Path) -> None:
    probe = {"scenes": KEYS["probe"]["knn"]}
    found = members(load_study(study(tmp_path, probe=probe), {}), tmp_path)
    written = [step.writes for member in found for step in member.steps if step.writes]
    assert len(written) == len(set(written)) == 4


def test_what_saves_nothing_is_refused(tmp_path: Path) -> None:
    tuning = KEYS["finetune"]["scenes"] | {"set": {"checkpoint.every": 0}}
    done = processes.hpcgeo(
        *("study", study(tmp_path, finetune={"t": tuning}, probe={}), "--out", tmp_path / "o")
    )
    assert done.returncode == 2 and "checkpoint.every 0 leaves nothing to judge" in done.stderr
