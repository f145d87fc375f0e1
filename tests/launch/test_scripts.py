"""Job scripts: the committed bytes, what bash and Slurm think of them, and every kind of end."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from hpcgeo.config import load, recipes
from hpcgeo.errors import InputError
from hpcgeo.launch import scripts
from hpcgeo.machines import machines

JOBS = Path(__file__).parents[2] / "jobs"
SLURM_MACHINES = [name for name, row in machines().items() if row.scheduler == "slurm"]

#: Stands in for `hpcgeo`: says its words, then does what END says.
STAND_IN = """#!/bin/bash
echo "$SLURM_PROCID of $SLURM_STEP_NUM_TASKS at $MASTER_ADDR: $*"
case $END in
  done) ;;
  fail) if ((SLURM_PROCID)); then exit 3; else sleep 100; fi ;;
  signal) trap 'echo "$SLURM_PROCID saved"; exit 0' USR2
    echo "$SLURM_PROCID ready"; while :; do sleep 0.1; done ;;
esac
"""


def hpcgeo(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("hpcgeo"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def one(machine: str, time: str, recipe: str = "mae_vit_tiny") -> list[str]:
    return [f"--machine={machine}", f"--recipe={recipe}", "--nodes=8", f"--time={time}"]


@pytest.fixture
def stand_in(tmp_path) -> dict[str, str]:
    path = tmp_path / "hpcgeo"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_the_committed_scripts_are_what_the_facts_say():
    assert {path.stem for path in JOBS.glob("*.sbatch")} == set(scripts.jobs())
    for name, job in scripts.jobs().items():
        path = JOBS / f"{name}.sbatch"
        assert path.read_bytes() == scripts.render(job).encode(), "run `hpcgeo jobs render`"
        assert os.access(path, os.X_OK)


@pytest.mark.parametrize("nodes", [1, 8])
@pytest.mark.parametrize("name", SLURM_MACHINES)
def test_every_machine_renders_to_good_bash(name, nodes):
    text = scripts.render(scripts.one_off(name, "mae_vit_tiny", nodes, "00:30:00"))
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "None" not in text and "{{" not in text and "\n\n\n" not in text
    body = text.split("#SBATCH")[-1].partition("\n")[2]
    assert "#SBATCH" not in body
    header = text.partition("\nset -euo")[0].partition("\nmodule")[0].splitlines()
    assert all(line.startswith("#") or not line for line in header)


def test_frontier_says_what_a_first_job_there_needs():
    text = (JOBS / "frontier_vit15b.sbatch").read_text()
    for words in (
        "#SBATCH --nodes=8",
        "#SBATCH --ntasks-per-node=8",
        "#SBATCH --core-spec=8",
        "#SBATCH --constraint=nvme",
        "#SBATCH --network=disable_rdzv_get",
        "#SBATCH --signal=B:USR2@60",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "module load rccl-net-plugin || exit 1",
        'sbcast --preserve --force "$ARCHIVE" "$NODE_LOCAL/env.tar.gz" || {',
        "--cpus-per-task=7",
        "--gpus-per-task=1",
        "--gpu-bind=closest",
        "--kill-on-bad-exit=1",
        "export NCCL_SOCKET_IFNAME=hsn0",
        'if ((SLURM_NNODES > 1)); then export NCCL_NET="AWS Libfabric"; fi',
        "16 node-hours",
    ):
        assert words in text, words
    assert "memhooks" not in text.replace("memhooks monitor deadlocks", "")
    made = text.index('mkdir -p "$MIOPEN_USER_DB_PATH"')
    assert made < text.index("hpcgeo train mae_vit_15b"), "made before the ranks start"
    assert "torchrun" not in text


def test_every_line_of_a_job_has_its_reason():
    """A comment stands above every line that the machine's facts put there."""
    lines = (JOBS / "frontier_vit15b.sbatch").read_text().splitlines()
    for above, line in pairwise(lines):
        if line.startswith(("module load", "export NCCL", "export FI_", "  --gpu")):
            assert above.lstrip().startswith("# "), line


@pytest.mark.parametrize(
    ("partition", "job"), [("frontier", "frontier_vit15b"), ("batch", "local_vit_tiny")]
)
def test_slurm_would_start_it(slurm, partition, job):
    said = slurm.run("sbatch", "--test-only", "-p", partition, JOBS / f"{job}.sbatch").stderr
    assert "to start at" in said and f"in partition {partition}" in said


def test_slurm_refuses_it_where_it_cannot_run(slurm):
    """So that the test above means something."""
    with pytest.raises(RuntimeError, match="allocation failure"):
        slurm.run("sbatch", "--test-only", "-p", "batch", JOBS / "frontier_vit15b.sbatch")


def test_words_after_the_script_reach_every_rank(slurm, stand_in):
    job = slurm.submit(
        JOBS / "local_vit_tiny.sbatch",
        "train.steps=20",
        "data.path=a folder",
        env=stand_in | {"END": "done", "RUN": "my runs/1"},
    )
    assert slurm.wait(job) == ("COMPLETED", 0)
    words = (
        "at node1: train mae_vit_tiny run.dir=my runs/1 data.path=synthetic launch.machine=local "
        f"launch.requeue={slurm.folder}/.requeue-{job} train.steps=20 data.path=a folder"
    )
    assert sorted(slurm.output(job).splitlines()) == [f"0 of 2 {words}", f"1 of 2 {words}"]


def test_a_dying_rank_ends_the_job(slurm, stand_in):
    """Rank 1 exits 3, rank 0 would sleep on and is killed; srun reports the highest code."""
    job = slurm.submit(JOBS / "local_vit_tiny.sbatch", env=stand_in | {"END": "fail"})
    state, code = slurm.wait(job, 60)
    assert state == "FAILED" and code in (3, 128 + 15, 128 + 9)


def test_the_signal_reaches_all_ranks_and_the_job_ends_well(slurm, stand_in):
    job = slurm.submit(JOBS / "local_vit_tiny.sbatch", env=stand_in | {"END": "signal"})
    for rank in range(2):
        slurm.wait_for(job, f"{rank} ready")
    slurm.run("scancel", "--batch", "--signal=USR2", job)
    assert slurm.wait(job, 60) == ("COMPLETED", 0)
    assert sorted(line for line in slurm.output(job).splitlines() if "saved" in line) == [
        "0 saved",
        "1 saved",
    ]


def test_render_writes_says_and_checks(tmp_path):
    first = hpcgeo("jobs", "render", cwd=tmp_path)
    assert first.stdout.count(": written") == len(scripts.jobs()), first.stderr
    assert hpcgeo("jobs", "render", cwd=tmp_path).stdout.count(": unchanged") == len(scripts.jobs())
    assert hpcgeo("jobs", "render", "--check", cwd=tmp_path).returncode == 0
    (tmp_path / "jobs/local_vit_tiny.sbatch").write_text("changed\n")
    checked = hpcgeo("jobs", "render", "--check", cwd=tmp_path)
    assert (checked.returncode, "local_vit_tiny.sbatch: differs" in checked.stdout) == (1, True)
    assert (tmp_path / "jobs/local_vit_tiny.sbatch").read_text() == "changed\n"
    one = hpcgeo("jobs", "render", "local_vit_tiny", cwd=tmp_path)
    assert one.stdout == "jobs/local_vit_tiny.sbatch: written\n"
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == [
        f"{name}.sbatch" for name in sorted(scripts.jobs())
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "unknown job 'nonsense'"),
        (["--machine=frontier"], "take"),
        (one("frontier", "03:00:00"), "03:00:00 is longer than the 2 h that 8 nodes may have"),
        (one("polaris", "01:00:00"), "polaris runs pbs"),
        (one("local", "90"), "time '90': write the time as HH:MM:SS"),
        (one("local", "01:00:00", "none"), "unknown recipe"),
    ],
)
def test_bad_words_are_one_line(words, message):
    done = hpcgeo("jobs", "render", *words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert message in done.stderr


def test_a_script_for_another_machine_is_printed():
    done = hpcgeo("jobs", "render", *one("jupiter", "01:00:00"))
    assert done.returncode == 0, done.stderr
    assert "mae_vit_tiny on 8 nodes = 32 ranks" in done.stdout


def test_an_hour_has_sixty_minutes():
    with pytest.raises(InputError, match="HH:MM:SS"):
        scripts.one_off("local", "mae_vit_tiny", 1, "00:60:00")
    with pytest.raises(InputError, match="nodes 0"):
        scripts.one_off("local", "mae_vit_tiny", 0, "00:30:00")
    job = scripts.one_off("local", "mae_vit_tiny", 1, "01:30:36")
    assert (job.hours, job.signal_s) == (pytest.approx(1.51), 60)
    assert scripts.one_off("local", "mae_vit_tiny", 1, "0:02:00").signal_s == 12


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_makes_a_job_whose_options_it_has(recipe: str) -> None:
    text = scripts.render(scripts.one_off("frontier", recipe, 2, "00:30:00"))
    assert ("data.path=" in text) == hasattr(load(recipe).data, "path")


def test_a_recipe_is_read_before_a_job_is_written() -> None:
    with pytest.raises(InputError, match="unknown recipe 'mae_vit_tino'"):
        scripts.render(scripts.one_off("frontier", "mae_vit_tino", 2, "00:30:00"))


@pytest.mark.parametrize("folder", ["d$(touch PWNED)", "sp ace", "quo'te", "semi;touch PWNED;"])
def test_a_path_is_a_word_of_the_script(tmp_path, folder):
    """Whatever stands in the path of a recipe reaches srun as it is, and runs nothing."""
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "mine.yaml").write_text(recipes()["mae_vit_tiny"])
    for name, does in (("srun", 'printf "%s|" "$@" > args'), ("scontrol", "echo node1")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    recipe = f"{folder}/mine.yaml"
    words = ("--machine=local", f"--recipe={recipe}", "--nodes=1", "--time=00:10:00")
    script = hpcgeo("jobs", "render", *words, cwd=tmp_path).stdout
    variables = {"SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1"}
    variables["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=os.environ | variables)
    assert f"train|{recipe}|" in (tmp_path / "args").read_text()
    assert not (tmp_path / "PWNED").exists()


def test_a_line_break_in_a_path_is_refused(tmp_path):
    (tmp_path / "a\nb").mkdir()
    (tmp_path / "a\nb" / "mine.yaml").write_text(recipes()["mae_vit_tiny"])
    words = ("--machine=local", "--recipe=a\nb/mine.yaml", "--nodes=1", "--time=00:10:00")
    done = hpcgeo("jobs", "render", *words, cwd=tmp_path)
    assert done.returncode == 2 and "no name of a file of a job" in done.stderr
