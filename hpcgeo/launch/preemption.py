"""When to stop: a signal or the clock sets a flag, the training loop asks and saves."""

import math
import signal
import time
from types import FrameType
from typing import Any

from hpcgeo.errors import InputError
from hpcgeo.job_options import Launch
from hpcgeo.launch.environment import Environment
from hpcgeo.launch.schedulers.table import scheduler
from hpcgeo.log import log
from hpcgeo.machines import machine

#: USR2 because NCCL may use USR1; TERM is what a scheduler sends that cancels or preempts; INT is
#: Ctrl-C.
SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)

#: Seconds kept for the end of a job before the time of a save is known; a tenth of a short job.
UNMEASURED_S = 300.0

#: A save on a shared file system may take twice the longest so far; one more regular save may
#: be due, and one more step.
MARGIN = 2.0

#: Part of a job that start-up and a save may eat.
OVERHEAD = 0.1

_IMPORTED_S = time.time()  #: close to the start of the process: torch comes later


class Stop:
    """Asks a run to stop; use it as a context manager and call `requested` after each step.

    The clock is read by rank 0 alone and signals reach ranks one by one, so ranks differ for a
    moment: the loop has to agree before it acts.

    Attributes:
        reason: why the run has to stop; None as long as it has not.
    """

    def __init__(self, environment: Environment, launch: Launch) -> None:
        """Set the clock.

        Args:
            environment: this process; rank 0 also watches the clock.
            launch: its time limit counts from now, in seconds; the job may end earlier. Its
                machine knows the longest job. Where the job may be requeued it is the run's alone,
                and start-up counts from its begin; elsewhere from that of the process.
        """
        self.reason: str | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._end: float | None = None
        self._warned = environment.rank > 0
        if environment.rank:
            return
        now = time.time()
        begin, end = job_times(environment)
        self._what = f"job {environment.job_id}"
        if launch.time_limit is not None and (end is None or now + launch.time_limit < end):
            end = now + launch.time_limit
            self._what = f"launch.time_limit {launch.time_limit:g} s"
        self._end = end
        self._unmeasured_s = min(UNMEASURED_S, 0.1 * (end - now)) if end else 0.0
        begin = begin if begin and launch.requeue else _IMPORTED_S
        self.startup_s = now - begin  #: from the start of the job to the first step
        self._bin, self._bin_s = _bin(environment, launch)
        self._length_s = end - begin if end else self._bin_s

    def requested(self, save_s: float, step_s: float) -> str | None:
        """Return why the run has to stop, or None.

        Args:
            save_s: the longest save so far in seconds; 0 before the first.
            step_s: the last step in seconds.
        """
        if self.reason is None and signal.SIGUSR2 in signal.sigpending():
            self._receive(signal.SIGUSR2, None)
        if self.reason is None and self._end is not None:
            left = self._end - time.time()
            if left <= self._needs(save_s, step_s):
                save = f"takes {save_s:.3g} s" if save_s else "was not measured yet"
                self.reason = f"{left:.0f} s left of {self._what}, a save {save}"
        return self.reason

    def saved(self, save_s: float) -> None:
        """Warn once if start-up and a save eat much of the job.

        Args:
            save_s: the longest save so far in seconds; 0 before the first.
        """
        if self._warned or not save_s or self._length_s is None:
            return
        self._warned = True
        part = (self.startup_s + save_s) / self._length_s
        if part > OVERHEAD:
            longer = ""
            if self._bin_s is not None and self._bin_s > self._length_s:
                longer = f"ask for a longer job ({self._bin}), "
            log.warning(
                "start-up %.3g s and a save %.3g s eat %.0f %% of a job of %.0f s: %sput the "
                "software on node-local disks, write checkpoints to faster storage or train on "
                "fewer nodes",
                *(self.startup_s, save_s, 100 * part, self._length_s, longer),
            )

    def __enter__(self) -> "Stop":
        for number in SIGNALS:
            # A shell's background jobs do not hear Ctrl-C.
            if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # Asked again while it ends, a run that was asked ends as it does; Ctrl-C still cuts in.
            asked = self.reason is not None and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if asked else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason:
            raise KeyboardInterrupt  # the second Ctrl-C will not wait
        self.reason = f"received {signal.Signals(number).name}"

    def _needs(self, save_s: float, step_s: float) -> float:
        """Return the seconds from now to a whole checkpoint, record and picture, with margin."""
        if not save_s:
            return self._unmeasured_s
        return MARGIN * (save_s + step_s) + 0.1 * self._unmeasured_s


def hold() -> None:
    """Keep USR2 pending in this process and all it starts; `Stop` sees it there.

    Elsewhere it would kill: while modules are imported, while the record of a stopped run is
    written, and the readers, which it reaches too. TERM is not held: a start that hangs must end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


def job_times(environment: Environment) -> tuple[float | None, float | None]:
    """Return begin and end of this job in seconds of the epoch; None for what is unknown."""
    job = environment.job_id
    if environment.scheduler is None or job is None or environment.job_end_s is not None:
        return environment.job_begin_s, environment.job_end_s
    if times := scheduler(environment.scheduler).times(job):
        return times
    log.warning(
        "the end of job %s is unknown: only a signal or launch.time_limit stops it in time", job
    )
    return None, None


def _bin(environment: Environment, launch: Launch) -> tuple[str, float | None]:
    """Return the longest job of so many nodes on this machine, in words and in seconds."""
    nodes = math.ceil(environment.world_size / environment.local_size)
    where = machine(launch.machine)
    try:
        hours = where.hours(nodes)
    except InputError:  # more nodes than the facts know; the run is there all the same
        return "", None
    if hours is None:
        return "", None
    return f"{where.name}: {hours:g} h on {nodes} nodes", hours * 3600
