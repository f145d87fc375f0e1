"""Going on in another job: rank 0 leaves a request, the job script asks the scheduler.

The script asks, not the rank: it runs on the same node, has the scheduler's commands also where the
ranks live in a container without them, and asks when every rank has ended and every file is closed.
A job that was cancelled has no script any more, so it stays cancelled.
"""

from pathlib import Path

from hpcgeo.files import write_text
from hpcgeo.log import log


def request(path: Path, *, reason: str, began: int, step: int, saved: list[int]) -> bool:
    """Leave the request to go on, unless the next job would do this one's steps again.

    Args:
        path: where the job script looks for the request.
        reason: why the run stopped.
        began: the step at which this job began.
        step: the step at which it stopped.
        saved: steps of the whole checkpoints.

    Returns:
        Whether the request was left.
    """
    newest = max(saved, default=0)
    if newest <= began:
        log.warning(
            "no requeue: this job went from step %d to %d and saved none of it (newest checkpoint: "
            "%s), the next would do the same; set checkpoint.every, or ask for a longer job",
            *(began, step, newest or "none"),
        )
        return False
    try:
        write_text(path, f"stopped after step {step}: {reason}\n")
    except OSError as error:
        log.warning("no requeue: %s: %s; submit the job again to go on", path, error.strerror)
        return False
    return True
