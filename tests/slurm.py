"""A real Slurm on this host: the fixture `slurm` starts its own munged, slurmctld and slurmd.

Four nodes of four CPUs run jobs. Where unshare is permitted each has its own host name and its own
process namespace, so that killing a node kills all that ran there. Eight more nodes look like
Frontier's to the controller, one like a DGX H100, and run nothing: they are what
`sbatch --test-only` is asked about.
"""

import getpass
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

NUM_NODES = 4
MISSING = [name for name in ("munged", "slurmctld", "slurmd") if not shutil.which(name)]

CONF = """\
ClusterName=lab
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
TmpFS={folder}/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AllowSpecResourcesUsage=YES
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
SuspendProgram=/bin/true
ResumeProgram=/bin/true
SuspendTime=86400
SuspendExcNodes=node[1-4]
KillWait=5
JobRequeue=1
EnforcePartLimits=ALL
AccountingStorageType=accounting_storage/none
GresTypes=gpu
"""
SIZE = "Boards=1 SocketsPerBoard=1 CoresPerSocket={n} CPUs={n} ThreadsPerCore=1 RealMemory={m}"


class Slurm:
    """The running cluster: submit, wait, read."""

    def __init__(self, folder: Path, named: bool) -> None:
        self.folder = folder
        self.named = named  #: every node has its own host name
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "SBATCH", "OMPI", "PMI"))
        } | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            # `hpcgeo` is that of the tests, also where its environment is not activated.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def run(
        self, *command: object, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands; its failure is an error that shows what it said."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environ | dict(env or {}),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def submit(
        self,
        script: str | Path,
        *args: object,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> int:
        """Submit a script, given as its path or its text, with words after it; return the job."""
        if isinstance(script, str):
            text, script = script, self.folder / f"job-{time.monotonic_ns()}.sbatch"
            script.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}")
        output = self.folder / "job-%j.out"
        return int(
            self.run(
                "sbatch", "--parsable", f"--output={output}", *options, script, *args, env=env
            ).stdout.split(";")[0]
        )

    def output(self, job: int) -> str:
        """Return what a job has said so far."""
        path = self.folder / f"job-{job}.out"
        return path.read_text() if path.exists() else ""

    def show(self, job: int) -> dict[str, str]:
        """Return what `scontrol show job` says."""
        return self.links(job)[0]

    def links(self, job: int) -> list[dict[str, str]]:
        """Return the same of every job of an array, in their order."""
        lines = self.run("scontrol", "-o", "show", "job", job).stdout.splitlines()
        shown = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

        def task(facts: dict[str, str]) -> float:
            number = facts.get("ArrayTaskId", "0")
            return int(number) if number.isdecimal() else math.inf  # 3-5%1: those that wait

        return sorted(shown, key=task)

    def wait(self, job: int, timeout_s: float = 120) -> tuple[str, int]:
        """Wait for a job to end; return its state and exit code."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            facts = self.show(job)
            if facts["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
                return facts["JobState"], int(facts["ExitCode"].split(":")[0])
            time.sleep(0.1)
        self.run("scancel", job)
        raise TimeoutError(f"job {job} runs after {timeout_s} s:\n{self.output(job)}")

    def chain(self, job: int, timeout_s: float = 120) -> list[dict[str, str]]:
        """Wait until no job of an array waits or runs; return what Slurm shows of each."""
        end = time.monotonic() + timeout_s
        while self.run("squeue", "-h", "-j", job).stdout:
            if time.monotonic() > end:
                raise TimeoutError(f"chain {job} runs after {timeout_s} s: {self.links(job)}")
            time.sleep(0.1)
        return self.links(job)

    def wait_for(self, job: int, text: str, timeout_s: float = 60) -> None:
        """Wait until a job has said `text`."""
        end = time.monotonic() + timeout_s
        while text not in self.output(job):
            if time.monotonic() > end:
                raise TimeoutError(f"job {job} never said {text!r}:\n{self.output(job)}")
            time.sleep(0.1)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A running Slurm, stopped at the end with all that it started."""
    if MISSING:
        pytest.skip(f"no {', '.join(MISSING)}: apt-get install slurm-wlm munge")
    # Not pytest's own folder: the path of a socket may have 107 characters only.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        yield _start(folder, daemons)
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGKILL)
        for daemon in daemons:
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> Slurm:
    named = not subprocess.run(
        ["unshare", "-u", "-m", "-p", "-f", "true"], capture_output=True
    ).returncode
    _configure(folder)
    cluster = Slurm(folder, named)

    def start(*command: object) -> None:
        # Dies with the process that runs the tests, however that ends.
        words = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        log = (folder / "daemons.log").open("ab")
        with log:
            daemons.append(
                subprocess.Popen(words, env=cluster.environ, stdout=log, stderr=log, cwd=folder)
            )

    start(
        *("munged", "--foreground", "--force", "--key-file", folder / "munge.key"),
        *("--socket", folder / "munge.socket", "--pid-file", folder / "munge.pid"),
        *("--log-file", folder / "munge.log", "--seed-file", folder / "munge.seed"),
    )
    start("slurmctld", "-D", "-f", folder / "slurm.conf")
    for number in range(1, NUM_NODES + 1):
        node = f"slurmd -D -f {folder}/slurm.conf -N node{number}"
        if named:
            node = f"hostname node{number}; mount --bind {folder}/hosts /etc/hosts; {node}; exit"
            start(
                *("unshare", "-u", "-m", "-p", "--fork", "--kill-child=KILL", "--mount-proc"),
                *("sh", "-c", node),
            )
        else:
            start(*node.split())
    end = time.monotonic() + 30
    while True:
        try:
            states = cluster.run("sinfo", "-h", "-p", "batch", "-o", "%t %D").stdout.split()
            if states == ["idle", str(NUM_NODES)]:
                return cluster
        except RuntimeError as error:
            states = [str(error)]
        if time.monotonic() > end:
            logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
            raise TimeoutError(f"Slurm does not come up: {states}\n{logs}")
        time.sleep(0.1)


def _configure(folder: Path) -> None:
    for name in ("state", "spool", *(f"tmp/node{n}" for n in range(1, NUM_NODES + 1))):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    ports = _free_ports(1 + NUM_NODES)
    nodes = range(1, NUM_NODES + 1)
    lines = [
        f"NodeName=node{n} NodeAddr=127.0.1.{n} Port={ports[n]} {SIZE.format(n=4, m=8000)}"
        for n in nodes
    ]
    lines += [
        # No slurmd behind these: the controller is only asked whether a job would fit there. As
        # sleeping cloud nodes they need not answer.
        f"NodeName=frontier[1-8] NodeAddr=127.0.2.[1-8] Port=1 {SIZE.format(n=64, m=512000)} "
        "Gres=gpu:8 Features=nvme State=CLOUD",
        f"NodeName=cuda1 NodeAddr=127.0.3.1 Port=1 {SIZE.format(n=112, m=2000000)} "
        "Gres=gpu:8 State=CLOUD",
        f"PartitionName=batch Nodes=node[1-{NUM_NODES}] Default=YES MaxTime=02:00:00 State=UP",
        "PartitionName=frontier Nodes=frontier[1-8] MaxTime=02:00:00 State=UP",
        "PartitionName=extended Nodes=frontier[1-8] MaxTime=24:00:00 State=UP",
        "PartitionName=cuda Nodes=cuda1 MaxTime=24:00:00 State=UP",
    ]
    conf = CONF.format(
        host=socket.gethostname(),
        port=ports[0],
        user=getpass.getuser(),
        folder=folder,
        # Ranks meet on a port that follows from the job: not on that of another cluster here.
        first_job=random.randint(1, 1_000_000),
    )
    (folder / "slurm.conf").write_text(conf + "\n".join(lines) + "\n")
    (folder / "gres.conf").write_text(
        "AutoDetect=off\nNodeName=frontier[1-8],cuda1 Name=gpu Count=8\n"
    )
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    hosts = "".join(f"127.0.1.{n} node{n}\n" for n in nodes)
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + hosts)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
