"""Job scripts: the committed bytes, what bash and Slurm think of them, and every kind of end."""

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from hpcgeo.config import load, recipes
from hpcgeo.errors import InputError
from hpcgeo.launch import scripts
from hpcgeo.machines import machine, machines
from tests.processes import hpcgeo

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
    header = text.partition("\nmissing()")[0].splitlines()
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
        "ROCM=${ROCM:-7.1.1}",
        "module load rocm/$ROCM || exit 1",
        "module load rccl-net-plugin || exit 1",
        'sbcast --preserve --force "$ARCHIVE" "$NODE_LOCAL/env.tar.gz" || {',
        "--cpus-per-task=7",
        "--gpus-per-task=1",
        "--gpu-bind=closest",
        "--kill-on-bad-exit=1",
        "export NCCL_SOCKET_IFNAME=hsn0",
        "export GLOO_SOCKET_IFNAME=hsn0",
        "if ((SLURM_NNODES > 1)); then export NCCL_NET=OFI; fi",
        "--use-compress-program=pigz",
        "24 h to 64 nodes with --partition=extended",
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
    ("partition", "job"),
    [("frontier", "frontier_vit15b"), ("cuda", "cuda_vit1b"), ("batch", "local_vit_tiny")],
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
        (["--machine=frontier"], "one script needs --recipe"),
        (one("frontier", "25:00:00"), "25 h are longer than the 24 h that 8 nodes may have"),
        (one("polaris", "01:00:00"), "polaris runs pbs"),
        (one("local", "90"), "time = '90': write the time as HH:MM:SS"),
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


def test_a_job_of_a_day_goes_where_days_are(slurm):
    """Above the two hours of so few nodes Frontier has a partition of its own."""
    text = scripts.render(scripts.one_off("frontier", "mae_vit_tiny", 8, "24:00:00"))
    assert "\n#SBATCH --partition=extended\n" in text
    path = slurm.folder / "day.sbatch"
    path.write_text(text)
    assert "in partition extended" in slurm.run("sbatch", "--test-only", path).stderr
    short = scripts.render(scripts.one_off("frontier", "mae_vit_tiny", 8, "02:00:00"))
    assert "#SBATCH --partition" not in short


def looked(text: str, folder: Path, **variables: str) -> tuple[int, str]:
    """Run a script outside of a job; return its exit code and what it says."""
    environ = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environ, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_what_is_missing_is_said_before_the_queue(tmp_path):
    text = (JOBS / "frontier_vit15b.sbatch").read_text()
    code, said = looked(text, tmp_path)
    assert code == 2 and said.startswith("frontier_vit15b: ARCHIVE=env.tar.gz: no such file: ")
    (tmp_path / "env.tar.gz").touch()
    code, said = looked(text, tmp_path)
    assert code == 2 and "DATA is not set: the folder that `hpcgeo data build` wrote" in said
    code, said = looked(text, tmp_path, DATA="sets/none")
    assert code == 2 and "DATA=sets/none: no such data set" in said
    assert len(said.splitlines()) == 1
    for data in ("synthetic", str(tmp_path)):
        code, said = looked(text, tmp_path, DATA=data)
        assert (code, said) == (0, "frontier_vit15b: all is there; submit it\n")


@pytest.mark.parametrize(("hip", "code"), [("7.1.25424", 0), ("6.2.41133", 2)])
def test_frontier_s_environment_is_unpacked_and_looked_at(tmp_path, hip, code):
    """The whole script, with stand-ins for what a node has: from the archive to the ranks."""
    home, packed = tmp_path / "mnt", tmp_path / "packed" / "bin"
    stand_ins = {
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "sbcast": 'cp "${@: -2:1}" "${@: -1}"',
        "scontrol": "echo node1",
        "pigz": 'exec gzip "$@"',
    }
    inside = {"python": f"echo {hip}", "hpcgeo": 'echo "$0 $*; $MIOPEN_USER_DB_PATH"'}
    for folder, scripts_of in ((tmp_path / "bin", stand_ins), (packed, inside)):
        folder.mkdir(parents=True)
        for name, does in scripts_of.items():
            (folder / name).write_text(f"#!/bin/bash\n{does}\n")
            (folder / name).chmod(0o755)
    home.mkdir()
    subprocess.run(["tar", "czf", "env.tar.gz", "-C", "packed", "bin"], cwd=tmp_path, check=True)
    text = (JOBS / "frontier_vit15b.sbatch").read_text().replace("/mnt/bb/$USER", str(home))
    environ = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "DATA": "synthetic"}
    environ |= {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "node1"}
    got, said = looked("module() { :; }\n" + text, tmp_path, **environ)
    assert got == code, said
    if code:
        assert "built for ROCm 6.2.41133, the module is rocm/7.1.1: set ROCM" in said
        assert "hpcgeo train" not in said
    else:
        assert f"{home}/env/bin/hpcgeo train mae_vit_15b run.dir=runs/frontier_vit15b" in said
        assert (home / "miopen-7").is_dir()


def test_lumi_names_its_container_and_what_lies_in_it(tmp_path):
    text = scripts.render(scripts.one_off("lumi-g", "mae_vit_1b", 8, "01:00:00"))
    assert "SIF is not set: the container" in looked(text, tmp_path)[1]
    (tmp_path / "torch.sif").touch()
    said = looked(text, tmp_path, SIF="torch.sif")[1]
    assert "VENV=hpcgeo.sqsh: no such file: hpcgeo, a virtual environment" in said
    (tmp_path / "hpcgeo.sqsh").touch()
    assert looked(text, tmp_path, SIF="torch.sif", DATA="synthetic")[0] == 0
    assert text.index("module use /appl/local/laifs/modules") < text.index("module load lumi-aif")


def test_a_script_is_for_an_environment_that_has_hpcgeo(tmp_path):
    text = (JOBS / "cuda_vit1b.sbatch").read_text()
    code, said = looked(text, tmp_path, DATA="synthetic", PATH="/usr/bin:/bin")
    assert code == 2 and "no hpcgeo on PATH: activate the environment" in said


@pytest.mark.parametrize(("hip", "fits"), [("7.1.25424-4179531dcd", True), ("6.2.41133", False)])
def test_torch_and_module_are_of_one_release(tmp_path, hip, fits):
    check = machine("frontier").checks[0]
    python = tmp_path / "python"
    python.write_text(f"#!/bin/bash\necho {hip}\n")
    python.chmod(0o755)
    text = f'ROCM=7.1.1 ARCHIVE=a\n{check.test} || {{ echo "{check.error}"; exit 2; }}'
    code, said = looked(text, tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (code == 0) == fits
    assert fits or "built for ROCm 6.2.41133, the module is rocm/7.1.1" in said


def test_ranks_of_juwels_meet_on_infiniband():
    text = scripts.render(scripts.one_off("juwels-booster", "mae_vit_1b", 8, "01:00:00"))
    assert "\nexport MASTER_ADDR=${hosts[0]}i\n" in text
    assert "\nexport GLOO_SOCKET_IFNAME=ib0\n" in text


def test_only_a_trial_has_data_of_its_own():
    for name, job in scripts.jobs().items():
        text = (JOBS / f"{name}.sbatch").read_text()
        assert ("\n# A trial: " in text) == (job.data is not None)


def test_an_hour_has_sixty_minutes():
    with pytest.raises(InputError, match="HH:MM:SS"):
        scripts.one_off("local", "mae_vit_tiny", 1, "00:60:00")
    with pytest.raises(InputError, match="nodes = 0"):
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
    words = (("srun", 'printf "%s|" "$@" > args'), ("scontrol", "echo node1"), ("hpcgeo", ":"))
    for name, does in words:
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    recipe = f"{folder}/mine.yaml"
    words = ("--machine=local", f"--recipe={recipe}", "--nodes=1", "--time=00:10:00")
    script = hpcgeo("jobs", "render", *words, cwd=tmp_path).stdout
    variables = {"SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1"}
    variables["DATA"] = "synthetic"
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


def test_a_recipe_brings_its_own_data(tmp_path):
    """On the user's own machine generated samples, at a centre none without being asked."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(recipes()["mae_vit_tiny"] + "\n")
    local, centre = (
        scripts.one_off(name, str(recipe), 1, "00:30:00") for name in ("local", "lumi-g")
    )
    assert (local.data, centre.data) == ("synthetic", None)
    text = recipe.read_text().replace("data:\n", "data:\n  path: sets/my $(photos)\n", 1)
    recipe.write_text(text)
    job = scripts.one_off("lumi-g", str(recipe), 1, "00:30:00")
    assert "DATA=${DATA:-'sets/my $(photos)'}\n" in scripts.render(job)
