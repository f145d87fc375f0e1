"""A job script before the queue: what it misses, what it asks for, what it would train."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.launch.schedulers.scheduler import JobSize
from hpcgeo.launch.schedulers.table import every

#: Stands in every script of `hpcgeo jobs render`; another is not run, whatever it would do.
MARK = "# Written by `hpcgeo jobs render`"

#: Asks a script outside of a job for the words of its run.
CHECK = "HPCGEO_CHECK"


@dataclass(frozen=True)
class Looked:
    """What a script says.

    Attributes:
        missing: what it needs and does not find, a line each.
        asked: of the scheduler.
        recipe, overrides: of its run.
    """

    missing: list[str]
    asked: JobSize
    recipe: str
    overrides: list[str]


def look(script: Path, words: Sequence[str]) -> Looked:
    """Run a job script outside of a job, where it only looks for what it needs.

    Args:
        script: of `hpcgeo jobs render`.
        words: after it, options of the run.

    Raises:
        InputError: it is none.
    """
    try:
        text = script.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"job script {script}: cannot be read: {error}") from None
    suffixes = {f".{scheduler.suffix}": scheduler for scheduler in every()}
    scheduler = suffixes.get(script.suffix)
    asked = scheduler.asked(text) if scheduler else None
    if MARK not in text or CHECK not in text or asked is None:
        raise InputError(f"{script} is no script of `hpcgeo jobs render` for a run: render one")
    command = ["bash", str(script), *words]
    done = subprocess.run(command, env=os.environ | {CHECK: "1"}, capture_output=True, text=True)
    recipe, *overrides = done.stdout.split("\0")[:-1] or [""]
    missing = done.stderr.splitlines()
    if missing:  # and so without a value
        overrides = [word for word in overrides if not word.endswith("=")]
    if not recipe:
        raise InputError(f"{script}: {' '.join(missing) or 'says nothing'}: render it again")
    return Looked(missing, asked, recipe, overrides)
