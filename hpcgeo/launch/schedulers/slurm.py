"""What is asked of Slurm: to run one of its commands, and which jobs are ours."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from hpcgeo.errors import InputError

#: Of an error after which the controller may have done what it was told.
IN_DOUBT = re.compile(
    r"[Tt]imed out|[Cc]onnect|[Cc]ommunication|[Zz]ero [Bb]ytes|[Ss]end/recv|no answer"
)


@dataclass(frozen=True)
class Queued:
    """A task of an array that waits or runs."""

    name: str
    number: int
    job: str
    running: bool


def ask(*command: object) -> str:
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


def queue() -> Iterator[Queued]:
    """Yield all tasks of arrays of this user, in hidden partitions too.

    Raises:
        InputError: Slurm does not answer.
    """
    # %K: number in the array; %i: job and number.
    said = ask("squeue", "-h", "-a", "-r", "-u", os.getuid(), "-o", "%j|%K|%i|%T")
    for line in said.splitlines():
        name, number, job, state = line.rsplit("|", 3)
        if number.isdecimal():
            waits = state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD")
            yield Queued(name, int(number), job, not waits)


def accepted(name: str, refusal: InputError) -> bool | None:
    """Return whether a job was accepted though sbatch failed; None where nobody can tell.

    Args:
        name: of the job, which no other has.
        refusal: what sbatch said.
    """
    if not shutil.which("sbatch"):
        return False
    try:
        if any(task.name == name for task in queue()):
            return True
    except InputError:
        return None
    return None if IN_DOUBT.search(str(refusal)) else False
