"""A study done here, one step after the other; the same call goes on where it was interrupted."""

import subprocess
import time
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo.evaluate.probed_data import data_set
from hpcgeo.machines import machine
from hpcgeo.study.folder import StudyFolder
from hpcgeo.study.study import Member, StudyStep, labels, load_study, train_config
from hpcgeo.sweep.local import StoppedError, alone, end, launcher, terminated_is_interrupted
from hpcgeo.sweep.progress import Board
from hpcgeo.train.preflight import problems
from hpcgeo.workloads.mixture import open_task

#: Seconds between two looks at what a step says.
LOOK_S = 1.0
#: Pixels on a side of images of data that is opened to see whether it can be.
TRIED = 32


def open_study(file: Path, out: Path, places: Mapping[str, str]) -> StudyFolder:
    """Return a study in a folder; nothing is written.

    Raises:
        InputError: what would stop one of its steps, before any is started.
    """
    study = load_study(file, places)
    where = machine(study.machine)
    devices = int(where.devices_per_node.value)
    if study.ranks % study.nodes or (where.device and study.ranks > study.nodes * devices):
        raise InputError(
            f"ranks {study.ranks} on {study.nodes} nodes of {where.name}, which have {devices} "
            f"devices each: a multiple of the nodes, at most {study.nodes * devices}"
        )
    opened = StudyFolder(study, out)
    wrong: dict[str, list[str]] = {}
    for member in opened.members:
        for step in opened.left(member):
            for line in _problems(step, study.ranks):
                wrong.setdefault(line, []).append(f"{member.name}: {step.name}")
    if wrong:
        raise InputError(
            "\n".join(
                f"{of[0]}{f' and {len(of) - 1} more steps' if of[1:] else ''}: {line}"
                for line, of in wrong.items()
            )
        )
    return opened


def _problems(step: StudyStep, ranks: int) -> list[str]:
    """Return what would stop a step, a line each."""
    try:
        if step.trains:
            run = train_config(step)
            if not run.checkpoint.every:
                return ["checkpoint.every 0 leaves nothing to judge: give a number of steps"]
            return problems(run, ranks)
        for word, text in pairwise(step.words):
            if word == "--on":
                _open(text)
    except InputError as error:
        return [str(error)]
    gone = [file for file in step.reads if not Path(file).exists()]
    return [f"{file}: no such file or folder: say with --place where it is" for file in gone]


@cache
def _open(text: str) -> None:
    """Open what a probe reads; an InputError says what is wrong."""
    one = data_set(text)
    open_task(one.name, one.task.model_copy(update={"patch": 1, "size": TRIED}), 0)


def run_study(folder: StudyFolder) -> Board:
    """Do what is left of a study; return the states of all steps.

    A step that fails is recorded with its cause, and what needs it waits; the rest goes on.

    Raises:
        InputError: another call works in the folder, or it holds another study.
        StoppedError: by Ctrl-C; the step at work ends in order.
    """
    if folder.study.nodes > 1:
        raise InputError(
            f"nodes {folder.study.nodes}: --submit makes jobs of the members; here it is one node"
        )
    with alone(folder.out / "lock", "study"):
        for member in folder.members:
            if job := folder.job_at(member):
                raise InputError(
                    f"{member.name}: job {job} is at work on it, or was when it ended: wait for it "
                    f"(--submit --watch), or end it (--submit --cancel)"
                )
        for member in folder.members:  # of a call that was killed
            folder.interrupt(member)
        folder.claim()
        with board(folder) as shown:
            try:
                with terminated_is_interrupted():
                    for member in folder.members:
                        while (step := folder.next(member)) and not _do(
                            folder, member, step, shown
                        ):
                            pass
            except KeyboardInterrupt:
                raise StoppedError(shown) from None
    return shown


def board(folder: StudyFolder) -> Board:
    """Return the table of all steps."""
    return Board(labels(folder.members), folder.states(), good="done")


def _do(folder: StudyFolder, member: Member, step: StudyStep, shown: Board) -> bool:
    """Do a step; return whether it stopped in time, to go on in another call."""
    index = labels(folder.members).index(f"{member.name}: {step.name}")
    said = folder.output(member, step)
    words = folder.begin(member, step, said, said.with_suffix(".again"))
    command = [*launcher(folder.study.ranks), *words]
    shown.set(index, "running")
    code: int | None = None
    with said.open("ab") as output:
        # In a session of its own: Ctrl-C comes here alone, and the ranks are ended in order.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while (code := process.poll()) is None:
                time.sleep(LOOK_S)
                shown.detail(index, folder.last_line(member))
        except BaseException:
            end(process)
            folder.interrupt(member)
            shown.set(index, *folder.state(member, step))
            raise
    stopped = folder.conclude(member, code)
    shown.set(index, *folder.state(member, step))
    return stopped
