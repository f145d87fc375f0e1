"""When to stop: a signal or the clock sets a flag, the training loop asks and saves."""

import signal
import subprocess
import time
from datetime import datetime
from types import FrameType, TracebackType
from typing import Any

from hpcgeo.launch.environment import Environment
from hpcgeo.log import log

#: USR2 because NCCL may use USR1; TERM is what scancel and a preempting scheduler send.
SIGNALS = (signal.SIGUSR2, signal.SIGTERM)

#: Time left for the last step and the checkpoint before a job ends; a tenth of a short job.
MARGIN_S = 300.0


class Stop:
    """Asks a run to stop; use it as a context manager and call `requested` after each step.

    The clock is read by rank 0 alone and signals reach ranks one by one, so ranks differ for a
    moment: the loop has to agree before it acts.
    """

    def __init__(self, environment: Environment, time_limit: float | None = None) -> None:
        """Set the clock.

        Args:
            environment: this process; rank 0 also watches the clock.
            time_limit: seconds from now; None means the end of the Slurm job, less a margin.
        """
        self._reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._deadline: float | None = None
        self._late = ""
        now = time.time()
        if environment.rank:
            return
        if time_limit is not None:
            self._deadline = now + time_limit
            self._late = f"time limit of {time_limit:g} s reached"
        elif (end := job_end(environment)) is not None:
            self._deadline = end - min(MARGIN_S, 0.1 * (end - now))
            self._late = f"job {environment.job_id} ends soon"

    def requested(self) -> str | None:
        """Return why the run has to stop, or None."""
        if not self._reason and self._deadline is not None and time.time() >= self._deadline:
            self._reason = self._late
        return self._reason

    def __enter__(self) -> "Stop":
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._reason = f"received {signal.Signals(number).name}"


def job_end(environment: Environment) -> float | None:
    """Return the end of this Slurm job in seconds of the epoch; None without job or limit."""
    if environment.job_id is None or environment.job_end_s is not None:
        return environment.job_end_s
    command = ["squeue", "-h", "-j", environment.job_id, "-o", "%e"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return datetime.fromisoformat(answer.stdout.strip()).timestamp()
    except (OSError, subprocess.SubprocessError, ValueError):
        log.warning(
            "the end of job %s is unknown: only a signal or launch.time_limit stops it in time",
            environment.job_id,
        )
        return None
