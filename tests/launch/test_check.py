"""`hpcgeo jobs check`: what is wrong with a job, before it waits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcgeo.cli.jobs import app
from hpcgeo.config import recipes
from hpcgeo.errors import InputError
from hpcgeo.launch import scripts
from hpcgeo.launch.environment import EXIT_CODE
from hpcgeo.launch.look import look

JOBS = Path(__file__).parents[2] / "jobs"
FRONTIER = JOBS / "frontier_vit15b.sbatch"
#: Found by the script itself.
ARCHIVE = "frontier_vit15b: ARCHIVE=env.tar.gz: no such file"


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A login node where all is there."""
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_JOB_ID", "RUN", "ROCM", "ARCHIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATA", "synthetic")
    (tmp_path / "env.tar.gz").touch()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path


def check(*words: object) -> tuple[int, str, list[str]]:
    done = CliRunner().invoke(app, ["check", *map(str, words)])
    if isinstance(done.exception, InputError):
        return 2, "", str(done.exception).splitlines()
    return done.exit_code, done.stdout, done.stderr.splitlines()


def test_nothing_is_wrong(login: Path) -> None:
    code, said, wrong = check(FRONTIER, "train.steps=5000")
    assert (code, wrong) == (0, [])
    assert "all is there; submit it" in said
    assert "8 nodes x 2 h = 16 node-hours a start; jobs may last 2 h to 91 nodes" in said
    assert "memory of a device: fits: 38.8 GiB allocated" in said


def test_all_that_is_missing_is_said_at_once(login: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA")
    (login / "env.tar.gz").unlink()
    code, said, wrong = check(FRONTIER, "parallel.tensor=3")
    assert (code, said, len(wrong)) == (2, "", 3)
    assert wrong[0].startswith(ARCHIVE) and "DATA is not set" in wrong[1]
    assert "parallel.tensor 3 does not divide the world of 64 ranks" in wrong[2]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["train.stepz=9"], ["unknown option 'train.stepz'"]),
        (["data.path=none"], ["none: no index.json"]),
        (["parallel.strategy=DDP"], ["memory of a device: does not fit: 309 GiB allocated"]),
        (["--nodes", 10_000], ["10000 nodes are more than a job on frontier may have"]),
        (["--time", "25:00:00"], ["25 h are longer than the 24 h"]),
        (["--time", "25"], ["write the time as HH:MM:SS"]),
        (
            ["data.chip=100", "model.weights=none", "optim.name=Adamw"],
            ["unknown optim.name 'Adamw'", "chip 100 x 100 is no multiple", "model.weights none"],
        ),
    ],
)
def test_a_line_for_each_problem(login: Path, words: list[object], wrong: list[str]) -> None:
    code, _, found = check(FRONTIER, *words)
    assert code == 2 and len(found) == len(wrong), found
    for line, part in zip(found, wrong, strict=True):
        assert part in line


def test_another_run_in_the_folder_is_said(login: Path) -> None:
    (login / "runs/frontier_vit15b").mkdir(parents=True)
    text = recipes()["mae_vit_tiny"]
    (login / "runs/frontier_vit15b/config.yaml").write_text(text)
    (login / "runs/frontier_vit15b/metrics.jsonl").write_text("{}\n")
    code, _, found = check(FRONTIER, "--time", "25:00:00")
    assert code == 2 and "25 h are longer than the 24 h" in found[0]
    assert "run.dir runs/frontier_vit15b holds another run" in found[1]


def test_labelled_data_are_opened(login: Path) -> None:
    text = scripts.render(scripts.one_off("local", "gpna_open", 1, "00:30:00"))
    (login / "open.sbatch").write_text(text)
    code, _, found = check("open.sbatch", "data.only=[landuse]")
    assert code == 2 and found[-1].startswith("task landuse: data/"), found


@pytest.mark.parametrize("text", ["touch PWNED\n", f"# {scripts.__doc__}\ntouch PWNED\n"])
def test_only_scripts_of_ours_are_run(login: Path, text: str) -> None:
    (login / "mine.sbatch").write_text(f"#!/bin/bash\n#SBATCH --nodes=1\n{text}")
    with pytest.raises(InputError, match="no script of `hpcgeo jobs render`"):
        look(login / "mine.sbatch", [])
    with pytest.raises(InputError, match="cannot be read"):
        look(login / "none.sbatch", [])
    assert not (login / "PWNED").exists()


def test_images_are_checked_without_torch(login: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from hpcgeo.launch.look import look; "
        "from hpcgeo.train.preflight import job_problems; "
        f"print(job_problems(look(Path({str(FRONTIER)!r}), []), 8, 2.0)[0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[] False\n", done.stderr


def test_a_wrong_input_ends_a_job_with_2(tmp_path: Path) -> None:
    """One rank says what is wrong, srun kills the others and answers with 143."""
    stand_ins = {
        "srun": 'while [[ $1 == --* ]]; do shift; done; "$@"; exit 143',
        "scontrol": "echo node1",
        "hpcgeo": f'exec {sys.executable} -m hpcgeo "$@"',
    }
    for name, does in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "node1"}

    def ends(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", str(JOBS / "local_vit_tiny.sbatch"), *words],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **job},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        return done.returncode, done.stderr

    code, said = ends("train.stepz=5")
    assert code == 2 and "unknown option 'train.stepz'" in said, said
    assert ends("--help")[0] == 143
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".exit")]


def test_the_variable_is_the_script_s() -> None:
    assert f"export {EXIT_CODE}=" in FRONTIER.read_text()
