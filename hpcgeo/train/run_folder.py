"""The folder of a run: claimed once, resumed by the same configuration, never overwritten.

config.yaml        the resolved configuration
metrics.jsonl      a line per step
preparation.json   of runs with tasks, how their samples are prepared
scores.jsonl       of runs with tasks, a line per task and evaluation
baselines.jsonl    of runs that were evaluated, what simpler models reach on their tasks
record.json        the profile record
checkpoints/       training state
tensorboard/       event file
reconstructions/   pictures: input, masked, reconstruction
export/            weights for other libraries
skipped/           of steps that were not finite: ranks and samples
lock               held by the process that writes
"""

import fcntl
import json
import os
import platform
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import TextIO

from pydantic import ValidationError

from hpcgeo.checkpoint.folders import saved
from hpcgeo.config import RunConfig, differences
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.log import log
from hpcgeo.tables import parse
from hpcgeo.train.schedule import learning_rate

LOCK = "lock"
#: What a process that was killed while it claimed a folder leaves in it.
CLAIMING = {LOCK, "config.yaml.partial"}
#: Seconds between touches of the lock by its holder: where a file system keeps locks to one host,
#: that is what another host sees.
TOUCH_S = 3.0
_HELD: list[TextIO] = []  #: locks, open for as long as the process lives


def claim(run: RunConfig) -> Path:
    """Create the folder of a run, or agree with the run that is there; called by rank 0 alone.

    One that made no step is replaced: a start that failed blocks no folder.

    Raises:
        InputError: the folder holds another run (the message shows the difference), or something
            that is no run, or is in use, or cannot be written.
    """
    folder = run.run.dir
    config = folder / "config.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not config.exists() and any(path.name not in CLAIMING for path in folder.iterdir()):
            raise InputError(f"run.dir {folder} is not empty and holds no run: choose another")
        _lock(folder / LOCK)
        there = _there(config) if config.exists() else None
        if there is not None and _has_steps(folder):
            _agree(run, there)
        else:
            write_text(config, run.to_yaml())
    except OSError as error:
        raise InputError(f"run.dir {folder}: {error.strerror}: choose another") from None
    return folder


def begin(run: RunConfig, folder: Path, step: int) -> None:
    """Take over the folder from `step` on: its configuration is now this one (options that may
    change on resume may differ), and lines of metrics after that step are dropped, to be
    written again.

    Raises:
        InputError: the run there has ended and left no checkpoint: it would be done anew.
    """
    if step == 0 and (folder / "record.json").exists():
        raise InputError(
            f"run.dir {folder} holds a run that left no checkpoint: choose another run.dir"
        )
    write_text(folder / "config.yaml", run.to_yaml())
    _forget_after(folder / "metrics.jsonl", step)


def say_longer(run: RunConfig, folder: Path, step: int, global_batch: int) -> None:
    """Say of a run that has ended whether it goes on, and what its learning rate then does."""
    planned, steps = _there(folder / "config.yaml").train.steps, run.train.steps
    if planned < steps:
        log.warning(
            "%s goes on: planned for %d steps, now for %d; from here on the learning rate is that "
            "of a run of %d steps, warm-up and half a cosine: %.3g at step %d, after %.3g at step "
            "%d",
            *(folder, planned, steps, steps),
            *(learning_rate(step, steps, global_batch, run.optim), step + 1),
            *(learning_rate(step - 1, planned, global_batch, run.optim), step),
        )
    elif step == steps:
        log.info("%s is complete; with a larger train.steps it goes on", folder)


def _lock(path: Path) -> None:
    """Hold the folder until this process ends; the file says who does."""
    file, locks = path.open("a+", encoding="utf-8"), True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another job"
        raise InputError(
            f"run.dir {path.parent} is in use by {owner}: wait for it, or choose another"
        ) from None
    except OSError as error:  # Lustre mounted without flock
        log.warning("%s: no locks there (%s): whoever touches it has it", path, error.strerror)
        locks = False
    file.seek(0)
    owner = file.read().strip()
    elsewhere = not locks or not owner.endswith(f" on {platform.node()}")
    if owner and elsewhere and _touched(path):
        raise InputError(
            f"run.dir {path.parent} is in use by {owner}, which still touches its lock (this file "
            f"system keeps locks to one host, or has none): wait for it, or choose another"
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    _HELD.append(file)


def _touched(path: Path) -> bool:
    """Return whether another host touches the lock; a file not touched for an hour is left over."""
    before = path.stat().st_mtime
    with TemporaryFile(dir=path.parent) as new:  # by the clock that dates files there, not by ours
        if abs(os.fstat(new.fileno()).st_mtime - before) > 3600:
            return False
    end = time.monotonic() + 3 * TOUCH_S
    while time.monotonic() < end:
        time.sleep(0.5)
        with path.open() as file:  # opened anew: NFS then asks the server
            if os.fstat(file.fileno()).st_mtime != before:
                return True
    return False


def _forget_after(metrics: Path, step: int) -> None:
    if not metrics.exists():
        return
    kept: list[str] = []
    last = torn = 0
    for line in metrics.read_text("utf-8", "replace").split("\n"):
        try:
            number = json.loads(line)["step"]
            if number <= last:
                torn += 1
            elif number <= step:
                kept.append(f"{line}\n")
                last = number
        except (ValueError, KeyError, TypeError, RecursionError):
            torn += bool(line.strip())
    if torn:
        log.warning("%s: %d lines are no further step of the run: dropped", metrics, torn)
    write_text(metrics, "".join(kept))


def _has_steps(folder: Path) -> bool:
    metrics = folder / "metrics.jsonl"
    made = metrics.exists() and metrics.stat().st_size > 0
    return made or (folder / "record.json").exists() or (folder / "checkpoints").exists()


def _there(config: Path) -> RunConfig:
    """Return the configuration of the run that is there; an InputError where it is none."""
    try:
        return RunConfig.model_validate(parse(config.read_text("utf-8"), str(config)))
    except (ValidationError, UnicodeDecodeError):
        raise InputError(
            f"{config} is no configuration of this version: choose another run.dir"
        ) from None


def _agree(run: RunConfig, there: RunConfig) -> None:
    found = differences(there, run)
    planned, steps = there.train.steps, run.train.steps
    reached = max(saved(run.run.dir / "checkpoints"), default=0)
    if steps < planned or (steps > planned and reached < planned):
        found.append(
            f"train.steps: {planned} -> {steps} (it is at step {reached}: never fewer, and more "
            f"when it has ended)"
        )
    if found:
        raise InputError(
            f"run.dir {run.run.dir} holds another run; choose another run.dir, or resume with the "
            f"same configuration. There -> asked for:\n  " + "\n  ".join(found)
        )


def refuse_other(run: RunConfig) -> None:
    """Refuse a folder in which another run has made steps, without touching it.

    Raises:
        InputError: it has; the message shows the difference.
    """
    config = run.run.dir / "config.yaml"
    if config.exists() and _has_steps(run.run.dir):
        _agree(run, _there(config))
