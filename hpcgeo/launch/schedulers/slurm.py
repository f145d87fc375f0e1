"""Slurm; all that knows its commands, its variables and its words."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.launch.schedulers.scheduler import (
    Allocation,
    Endings,
    InDoubtError,
    JobSize,
    Queued,
    Scheduler,
    Started,
    count,
)
from hpcgeo.log import log

MAX_ARRAY = 1001  # Slurm's default of MaxArraySize; task numbers are below it

#: Of an error after which the controller may have done what it was told.
IN_DOUBT = re.compile(
    r"[Tt]imed out|[Cc]onnect|[Cc]ommunication|[Zz]ero [Bb]ytes|[Ss]end/recv|no answer"
)

#: Lines of the script that no word for sbatch and none of its variables may change: by these jobs
#: are found again, and their cost is what was said.
OURS = re.compile(
    r"^#SBATCH (--(?:job-name|nodes|ntasks-per-node|time|array|output|open-mode|exclusive"
    r"|no-requeue)\b.*)$",
    re.MULTILINE,
)


class Slurm(Scheduler):
    """Slurm, by its commands."""

    name = "slurm"
    suffix = "sbatch"
    package = "hpcgeo.launch.schedulers"
    #: What it says when it ends a job, and its names of the state then. (It also says that a step
    #: was cancelled when one rank has failed.)
    endings = Endings(
        out_of_memory=re.compile(
            r"^(slurmstepd|srun|JobState).*(oom[-_]kill|Out Of Memory|OUT_OF_MEMORY)"
        ),
        time_limit=re.compile(r"DUE TO TIME LIMIT|JobState=TIMEOUT"),
        node_failed=re.compile(r"DUE TO NODE FAILURE|JobState=(NODE|BOOT)_FAIL"),
        cancelled=re.compile(
            r"\*\*\* JOB [\d_]+ ON \S+ CANCELLED AT|DUE TO PREEMPTION"
            r"|JobState=(CANCELLED|PREEMPTED)"
        ),
        # srun then kills the others
        first_rank=re.compile(r"srun: error: .*?: task[s]? [\d,-]+: (.*)"),
    )

    def submit(self, script: Path, name: str, options: str = "") -> None:
        # On the command line, after the user's: the last one counts.
        lines = OURS.findall(script.read_text("utf-8"))
        ours = [word for line in lines for word in shlex.split(line)]
        try:
            job = _ask("sbatch", *shlex.split(options), *ours, "--parsable", script)
            if not job.strip():
                raise InputError("sbatch gave no job: drop what keeps it from submitting")
        except InputError as refusal:
            if not self._accepted(name, refusal):
                raise
            log.warning("%s; the job was accepted all the same", refusal)

    def queue(self) -> Iterator[Queued]:
        # %K: number in the array; %i: job and number; -a: hidden partitions too.
        said = _ask("squeue", "-h", "-a", "-r", "-u", os.getuid(), "-o", "%j|%K|%i|%T")
        for line in said.splitlines():
            name, number, job, state = line.rsplit("|", 3)
            if number.isdecimal():
                waits = state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD")
                yield Queued(name, int(number), job, not waits)

    def cancel(self, jobs: Iterable[str]) -> None:
        _ask("scancel", *jobs)

    def state(self, job: str) -> str:
        """Return what accounting or the controller says, while these know."""
        questions = (
            ("JobState=", ["sacct", "-X", "-n", "-P", "-o", "State", "-j", job]),
            ("", ["scontrol", "-o", "show", "job", job]),
        )
        for prefix, command in questions:
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            except (OSError, subprocess.TimeoutExpired):
                continue
            found = re.search(r"JobState=\w+", prefix + done.stdout.strip())
            if done.returncode == 0 and found:
                return found[0]
        return ""

    def max_tasks(self) -> int:
        try:
            found = re.search(r"MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"))
        except InputError:  # a plan is made anywhere
            found = None
        return max(1, int(found[1])) if found else MAX_ARRAY

    def asked(self, script: str) -> JobSize | None:
        said = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
        words = [said.get(name) for name in ("nodes", "ntasks-per-node", "time")]
        nodes, per_node, time = words
        return JobSize(int(nodes), int(per_node), time) if nodes and per_node and time else None

    def allocation(self, environ: Mapping[str, str]) -> Allocation | None:
        if "SLURM_JOB_ID" not in environ:
            return None
        begin, end = environ.get("SLURM_JOB_START_TIME"), environ.get("SLURM_JOB_END_TIME")
        tasks = environ.get("SLURM_NTASKS", "1")
        return Allocation(
            environ["SLURM_JOB_ID"],
            environ.get("SLURMD_NODENAME") or None,
            float(begin) if begin else None,
            float(end) if end else None,
            "" if tasks == "1" else f"alone in a job of {tasks} tasks: start it with srun",
        )

    def started(self, environ: Mapping[str, str]) -> Started | None:
        # A batch script that is no step has SLURM_PROCID=0 and SLURM_NTASKS=n too.
        if "SLURM_STEP_NUM_TASKS" not in environ:
            return None
        rank, size, local_rank, node = (
            count(environ, variable, "a Slurm step")
            for variable in (
                *("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
                *("SLURM_LOCALID", "SLURM_NODEID"),
            )
        )
        per_node = tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
        if node >= len(per_node):
            raise InputError(
                f"SLURM_STEP_TASKS_PER_NODE={environ.get('SLURM_STEP_TASKS_PER_NODE')!r} does not "
                f"name node {node}: start the ranks with srun"
            )
        # sbatch, called inside a step, leaks that step's variables into the new batch script;
        # the list of this host's ranks is always fresh, and has one entry there.
        if environ.get("SLURM_GTIDS", "").count(",") + 1 != per_node[node]:
            return None
        nodes = environ.get("SLURM_STEP_NODELIST")
        name = f"{environ.get('SLURM_JOB_ID')}.{environ.get('SLURM_STEP_ID')}"
        first = first_host(nodes) if nodes else None
        return Started((rank, size, local_rank, per_node[node]), first, name)

    def times(self, job: str) -> tuple[float, float] | None:
        command = ["squeue", "-h", "-j", job, "-o", "%S %e"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
            begin, end = map(datetime.fromisoformat, answer.stdout.split())
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
        return begin.timestamp(), end.timestamp()

    def _accepted(self, name: str, refusal: InputError) -> bool:
        """Return whether a job was accepted though sbatch failed.

        Raises:
            InDoubtError: nobody can tell.
        """
        if not shutil.which("sbatch"):
            return False
        try:
            if any(task.name == name for task in self.queue()):
                return True
        except InputError:
            raise InDoubtError(str(refusal)) from None
        if IN_DOUBT.search(str(refusal)):
            raise InDoubtError(str(refusal)) from None
        return False


def _ask(*command: object) -> str:
    """Run one of Slurm's commands and return what it said.

    Raises:
        InputError: it is not there, or refuses.
    """
    words = [str(word) for word in command]
    # Variables of a user's that filter or ask back; those of sbatch say who pays.
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SQUEUE_", "SCANCEL_"))
    }
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=env)
    except OSError:
        raise InputError(
            f"there is no {words[0]} here: jobs are submitted where Slurm's commands are"
        ) from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{words[0]} gives no answer: try again later") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"{words[0]}: {said[-1].removeprefix(f'{words[0]}: ')}")
    return done.stdout


def tasks_per_node(text: str) -> list[int]:
    """Return the tasks of every node from Slurm's short form.

    >>> tasks_per_node("2(x3),1")
    [2, 2, 2, 1]
    """
    return [
        int(tasks)
        for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(nodes or 1))
    ]


def first_host(nodes: str) -> str:
    """Return the first host of Slurm's short form, as ``scontrol show hostnames`` would.

    Done here because containers rarely hold scontrol.

    >>> first_host("frontier[00012-00015,00020],login1")
    'frontier00012'
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])
