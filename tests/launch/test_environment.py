"""Which rank, and where to meet: as the real launchers say it, and as broken ones do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcgeo.errors import InputError
from hpcgeo.launch.environment import Environment, discover
from hpcgeo.launch.rendezvous import meeting
from hpcgeo.launch.schedulers.slurm import first_host, tasks_per_node

#: Prints what the process thinks it is and where it would meet the others: one write, one line.
WHO = """
import dataclasses, json, os
from hpcgeo.launch.environment import discover
from hpcgeo.launch.rendezvous import meeting
environment = discover()
line = json.dumps(dataclasses.asdict(environment) | {"master": meeting(environment)}) + "\\n"
os.write(1, line.encode())
"""
SLURM_STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_GTIDS": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "3,1",
    "SLURM_STEP_NODELIST": "frontier[00012-00013]",
    "SLURMD_NODENAME": "frontier00013",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture
def who(tmp_path) -> Path:
    path = tmp_path / "who.py"
    path.write_text(WHO)
    return path


def said(text: str) -> list[dict]:
    """Return what the ranks said, in their order; Open MPI and Slurm add lines of their own."""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return sorted(lines, key=lambda line: line["rank"])


def shape(lines: list[dict]) -> list[tuple]:
    return [
        (line["rank"], line["world_size"], line["local_rank"], line["local_size"]) for line in lines
    ]


def clean() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM", "OMPI", "PMI", "MASTER"))
    }


def test_alone(who):
    [line] = said(subprocess.check_output([sys.executable, who], env=clean(), text=True))
    assert (line["launcher"], line["master"], line["job_id"]) == ("single", None, None)
    assert shape([line]) == [(0, 1, 0, 1)]


def test_a_step_on_two_nodes(slurm, who):
    job = slurm.submit(f"#SBATCH -N2 -n3\nsrun {sys.executable} {who}")
    assert slurm.wait(job) == ("COMPLETED", 0)
    lines = said(slurm.output(job))
    assert shape(lines) == [(0, 3, 0, 2), (1, 3, 1, 2), (2, 3, 0, 1)]
    assert [line["host"] for line in lines] == ["node1", "node1", "node2"]
    assert {line["launcher"] for line in lines} == {"slurm"}
    assert {line["job_id"] for line in lines} == {str(job)}
    assert len({tuple(line["master"]) for line in lines}) == 1
    assert lines[0]["master"][0] == "node1"


def test_two_steps_of_one_job_do_not_meet(slurm, who):
    job = slurm.submit(f"#SBATCH -N1 -n2\nfor i in 1 2; do srun {sys.executable} {who}; done")
    assert slurm.wait(job) == ("COMPLETED", 0)
    assert len({tuple(line["master"]) for line in said(slurm.output(job))}) == 2


def test_a_batch_script_without_srun_is_alone(slurm, who):
    """SLURM_PROCID=0 and SLURM_NTASKS=2 are set there; taking them would wait for nobody."""
    job = slurm.submit(
        f"#SBATCH -N2 -n2\necho $SLURM_PROCID of $SLURM_NTASKS\n{sys.executable} {who}"
    )
    assert slurm.wait(job) == ("COMPLETED", 0)
    assert "0 of 2" in slurm.output(job)
    [line] = said(slurm.output(job))
    assert (line["launcher"], line["master"], line["job_id"]) == ("single", None, str(job))


def test_a_batch_script_submitted_from_a_step_is_alone(slurm, who):
    """sbatch hands on the environment of the shell it is called in."""
    step = {
        name: value
        for name, value in SLURM_STEP.items()
        if name not in ("SLURMD_NODENAME", "SLURM_JOB_ID")
    }
    job = slurm.submit(f"#SBATCH -N2 -n2\n{sys.executable} {who}", env=step)
    assert slurm.wait(job) == ("COMPLETED", 0)
    [line] = said(slurm.output(job))
    assert (line["launcher"], line["master"]) == ("single", None)


def test_torchrun_inside_srun_is_torchrun(slurm, who):
    run = f"{sys.executable} -m torch.distributed.run --nproc-per-node 2 --master-port 29731 {who}"
    job = slurm.submit(f"#SBATCH -N1 -n1\nsrun -n1 {run}")
    assert slurm.wait(job)[0] == "COMPLETED", slurm.output(job)
    lines = said(slurm.output(job))
    assert shape(lines) == [(0, 2, 0, 2), (1, 2, 1, 2)]
    assert {line["launcher"] for line in lines} == {"torchrun"}
    assert {line["master"][1] for line in lines} == {29731}


needs_mpirun = pytest.mark.skipif(
    not shutil.which("mpirun"), reason="no mpirun: apt-get install openmpi-bin"
)
MPIRUN = "mpirun --allow-run-as-root --oversubscribe"


@pytest.mark.mpi
@pytest.mark.parametrize(
    "mpirun",
    [
        pytest.param(MPIRUN, marks=needs_mpirun, id="Open MPI"),
        pytest.param(
            "mpiexec.hydra",
            marks=pytest.mark.skipif(not shutil.which("mpiexec.hydra"), reason="no MPICH"),
            id="MPICH",
        ),
    ],
)
def test_mpirun(who, mpirun):
    def start():
        words = [*mpirun.split(), "-n", "2", sys.executable, who]
        return said(subprocess.check_output(words, env=clean(), text=True))

    first, second = start(), start()
    assert shape(first) == [(0, 2, 0, 2), (1, 2, 1, 2)]
    assert {line["launcher"] for line in first} == {"mpi"}
    assert first[0]["master"] == first[1]["master"] != second[0]["master"]
    assert first[0]["master"][0] == "localhost"


@pytest.mark.mpi
@needs_mpirun
def test_mpirun_inside_a_job_is_mpi(slurm, who):
    job = slurm.submit(
        f"#SBATCH -N2 -n2\nexport MASTER_ADDR=$(hostname)\n"
        f"{MPIRUN} -x MASTER_ADDR -n 2 --map-by node {sys.executable} {who}"
    )
    assert slurm.wait(job)[0] == "COMPLETED", slurm.output(job)
    lines = said(slurm.output(job))
    assert {line["launcher"] for line in lines} == {"mpi"}
    assert [line["host"] for line in lines] == ["node1", "node2"]
    assert shape(lines) == [(0, 2, 0, 1), (1, 2, 0, 1)]
    assert lines[0]["master"] == lines[1]["master"]


def test_precedence():
    everything = SLURM_STEP | OPEN_MPI | TORCHRUN
    assert discover(everything).launcher == "torchrun"
    assert discover(SLURM_STEP | OPEN_MPI).launcher == "mpi"
    assert discover(SLURM_STEP).launcher == "slurm"


def test_srun_with_pmi2_is_a_step():
    environment = discover(SLURM_STEP | {"PMI_RANK": "3", "PMI_SIZE": "4"})
    assert (environment.launcher, environment.host) == ("slurm", "frontier00013")
    assert (environment.rank, environment.local_size) == (3, 1)


@pytest.mark.parametrize(
    "local", [("MPI_LOCALRANKID", "MPI_LOCALNRANKS"), ("PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE")]
)
def test_mpich_and_cray(local):
    variables = {"PMI_RANK": "5", "PMI_SIZE": "8", local[0]: "1", local[1]: "4"}
    environment = discover(variables)
    assert (environment.rank, environment.world_size) == (5, 8)
    assert (environment.local_rank, environment.local_size) == (1, 4)
    assert environment.launcher == "mpi"


@pytest.mark.parametrize("family", [TORCHRUN, OPEN_MPI])
def test_every_missing_variable_is_named(family):
    for variable in family:
        rest = {name: value for name, value in family.items() if name != variable}
        with pytest.raises(InputError, match=f"^{variable} is missing"):
            discover(rest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (TORCHRUN | {"RANK": "one"}, "RANK='one' is no count"),
        (TORCHRUN | {"RANK": "-1"}, "RANK='-1' is no count"),
        (TORCHRUN | {"RANK": "8"}, "rank 8 of 8, as torchrun says, is impossible"),
        (TORCHRUN | {"LOCAL_RANK": "4"}, "local rank 4 of 4"),
        (TORCHRUN | {"WORLD_SIZE": ""}, "WORLD_SIZE='' is no count"),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, "PMI_RANK is set without a local rank"),
        (SLURM_STEP | {"SLURM_STEP_TASKS_PER_NODE": "3"}, "does not name node 1"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID is missing"),
    ],
)
def test_nonsense_is_named(change, message):
    with pytest.raises(InputError, match=message):
        discover(change)


def test_several_hosts_under_mpirun_need_an_address():
    environment = discover(OPEN_MPI)
    job = {"PMIX_NAMESPACE": "prterun-1"}
    with pytest.raises(InputError, match="set MASTER_ADDR to the host of rank 0"):
        meeting(environment, OPEN_MPI | job)
    address, port, start = meeting(environment, OPEN_MPI | job | {"MASTER_ADDR": "nid1"})
    assert address == "nid1" and 20_000 <= port < 30_000 and start == "prterun-1"
    with pytest.raises(InputError, match="set MASTER_PORT"):
        meeting(environment, OPEN_MPI | {"MASTER_ADDR": "nid1"})


def test_torchrun_without_an_address():
    with pytest.raises(InputError, match="set MASTER_ADDR"):
        meeting(discover(TORCHRUN), TORCHRUN)


@pytest.mark.parametrize("port", ["", "0", "65536", "http"])
def test_bad_ports(port):
    variables = SLURM_STEP | {"MASTER_PORT": port}
    with pytest.raises(InputError, match="is no port"):
        meeting(discover(variables), variables)


def test_what_the_user_sets_wins():
    variables = SLURM_STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    assert meeting(discover(variables), variables) == ("10.0.0.1", 1234, "7.0")


@pytest.mark.parametrize(
    "nodes", ["node1", "a,b", "frontier[00012-00015,00020]", "x[1-2]y[03,4],z", "n-1[7,9-11]"]
)
def test_first_host_is_what_scontrol_says(slurm, nodes):
    assert first_host(nodes) == slurm.run("scontrol", "show", "hostnames", nodes).stdout.split()[0]


@pytest.mark.parametrize(
    ("text", "tasks"), [("8", [8]), ("2(x3),1", [2, 2, 2, 1]), ("1,2(x2)", [1, 2, 2]), ("", [])]
)
def test_tasks_per_node(text, tasks):
    assert tasks_per_node(text) == tasks


def test_an_environment_checks_itself():
    with pytest.raises(InputError, match="rank 2 of 2"):
        Environment(2, 2, 0, 1, "host", "single")


ENROOT = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "9"}


def test_a_step_says_what_a_container_leaves_out():
    """RANK, WORLD_SIZE, LOCAL_RANK of the step without LOCAL_WORLD_SIZE; others are not alike."""
    found = discover(SLURM_STEP | ENROOT)
    assert (found.launcher, found.rank, found.world_size) == ("slurm", 3, 4)
    assert (found.local_rank, found.local_size) == (0, 1)
    assert meeting(found, SLURM_STEP | ENROOT)[:2] == ("a", 9)
    for other in (SLURM_STEP | ENROOT | {"RANK": "1"}, ENROOT):
        with pytest.raises(InputError, match="LOCAL_WORLD_SIZE"):
            discover(other)


def test_one_process_has_nobody_to_meet():
    alone = {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    alone |= {"SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_GTIDS": "0"}
    step = SLURM_STEP | alone | {"SLURM_STEP_NODELIST": "no-such-node"}
    assert meeting(discover(step), step) is None


def test_alone_in_a_job_of_several_tasks_is_said():
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}
    assert discover(job).idle == "alone in a job of 4 tasks: start it with srun"
    for other in (job | {"SLURM_NTASKS": "1"}, SLURM_STEP | job, {}):
        assert discover(other).idle == ""
