"""What has become of each step of a study, by files in its folder.

OUT/study.yaml          the study, with places as they are here
OUT/pretrained/MEMBER   runs
OUT/finetuned/NAME/MEMBER
OUT/scores/             records of scores, a file a step
OUT/features/           of frozen encoders
OUT/steps/MEMBER/       of each step:
  STEP.out              what it said, where it was done here
  STEP.done             it is done
  STEP.failed           how it failed, until the study is started again
  now.json              the step at work
OUT/jobs/NAME/          job script, members of its tasks, what each task said
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hpcgeo.checkpoint.folders import saved
from hpcgeo.config import RunConfig
from hpcgeo.errors import InputError
from hpcgeo.files import write_text
from hpcgeo.launch.environment import discover
from hpcgeo.study.study import Member, StudyFile, StudyStep, members, train_config
from hpcgeo.sweep.failures import ending
from hpcgeo.tables import checked, own
from hpcgeo.workloads.choice import objective_of
from hpcgeo.workloads.scores import read_scores, waited

STUDY = "study.yaml"
#: How much of what a step has said is shown, or looked at for a cause, in bytes.
LAST = 1 << 16


class StudyFolder:
    """A study in its folder."""

    def __init__(self, study: StudyFile, out: Path) -> None:
        """Look at it; nothing is written."""
        self.study, self.out = study, out
        self.members = members(study, out)

    @classmethod
    def there(cls, out: Path) -> "StudyFolder":
        """Return the study that a folder holds.

        Raises:
            InputError: it holds none.
        """
        file = out / STUDY
        return cls(checked(StudyFile, own(file, "study"), f"study {file}"), out)

    def claim(self, tried: Sequence[Member] | None = None) -> None:
        """Write the study down; steps that failed are to be tried again.

        Args:
            tried: members of which they are; None: all.

        Raises:
            InputError: the folder holds another study.
        """
        file, text = self.out / STUDY, yaml.safe_dump(self.study.model_dump(), sort_keys=False)
        if file.exists():
            self._refuse_other(StudyFolder.there(self.out))
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
        for member in self.members if tried is None else tried:
            for failed in (self.out / "steps" / member.name).glob("*.failed"):
                failed.unlink()

    def _refuse_other(self, there: "StudyFolder") -> None:
        """Refuse to change what is begun; new members and new steps are welcome."""
        ours = {member.name: member for member in self.members}
        for member in there.members:
            mine = {step.name: step.words for step in getattr(ours.get(member.name), "steps", ())}
            for step in member.steps:
                state = self.state(member, step)[0]
                if state not in ("done", "running"):
                    continue
                if member.name not in ours:
                    raise InputError(
                        f"{self.out}: {member.name} has steps that are {state} there, and is none "
                        f"of the study now (its name says what varies in a grid): keep it, or "
                        f"choose another --out"
                    )
                if mine.get(step.name, step.words) != step.words:
                    raise InputError(
                        f"{self.out}: {member.name}: {step.name} is {state} there with other "
                        f"options: choose another --out, or give it another name"
                    )

    def state(self, member: Member, step: StudyStep) -> tuple[str, str]:
        """Return the state of a step, with details."""
        if self._mark(member, step, "done").exists():
            return "done", ""
        now = self.now(member)
        if now and now["step"] == step.name:
            return "running", self.last_line(member)
        failed = self._mark(member, step, "failed")
        if failed.exists():
            return "failed", failed.read_text("utf-8").strip()
        return "waiting", ""

    def states(self) -> list[tuple[str, str]]:
        """Return the states of all steps, member by member."""
        return [self.state(member, step) for member in self.members for step in member.steps]

    def left(self, member: Member) -> list[StudyStep]:
        """Return the steps of a member that are not done."""
        return [step for step in member.steps if self.state(member, step)[0] != "done"]

    def next(self, member: Member) -> StudyStep | None:
        """Return the step of a member that can be done next; None: there is none in this start."""
        for step in self.left(member):
            ready = not {one.name for one in self.left(member)} & set(step.needs)
            if ready and self.state(member, step)[0] == "waiting":
                return step
        return None

    def begin(
        self, member: Member, step: StudyStep, output: Path, again: Path, *, first: bool = True
    ) -> list[str]:
        """Write down that a step is at work, and return the words after `hpcgeo` that do it.

        Args:
            output: file that holds what it says, below what others said.
            again: file that is left where it stops in time and has to go on.
            first: nothing was done before it in this start.
        """
        again.unlink(missing_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        self._now(member).parent.mkdir(parents=True, exist_ok=True)
        if step.writes is not None:
            step.writes.parent.mkdir(parents=True, exist_ok=True)
            step.writes.unlink(missing_ok=True)
        said = output.stat().st_size if output.exists() else 0
        job = discover().job_id or ""
        now = {"step": step.name, "job": job, "said": said}
        now |= {"output": str(output), "again": str(again), "first": first}
        write_text(self._now(member), json.dumps(now))
        return [*step.words, *([f"launch.requeue={again}"] if step.trains else [])]

    def conclude(self, member: Member, code: int | None, more: str = "") -> bool:
        """Write down how the step at work ended; return whether it stopped in time, to go on.

        Args:
            code: exit code; None: it was not seen.
            more: what is known beside what it said.
        """
        now = self.now(member)
        step = next((one for one in member.steps if now and one.name == now["step"]), None)
        stopped = False
        if step is not None and now is not None:
            failed = self._mark(member, step, "failed")
            if code != 0:
                how = ending(f"{_said(now)}\n{more}", code)
                if how.status != "cancelled":
                    write_text(failed, f"{how.error}\n")
            elif not step.trains or ended(train_config(step)):
                self._mark(member, step, "done").touch()
            elif not (stopped := Path(now["again"]).exists()):
                if now["first"]:
                    write_text(failed, "it stopped and saved no step: give it more `hours`\n")
                else:  # too late in its job: it has a whole one in the next start
                    write_text(Path(now["again"]), f"{step.name}: no time was left for it\n")
                    stopped = True
        self._now(member).unlink(missing_ok=True)
        return stopped

    def interrupt(self, member: Member) -> None:
        """Forget what is at work: it was stopped from outside, and is done another time."""
        self._now(member).unlink(missing_ok=True)

    def now(self, member: Member) -> dict[str, Any] | None:
        """Return what is known of the step at work."""
        try:
            found: dict[str, Any] = json.loads(self._now(member).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found

    def job_at(self, member: Member) -> str:
        """Return the job of the study that is at work on a member; none: empty."""
        now = self.now(member)
        jobs = (self.out / "jobs").absolute()
        return str(now["job"]) if now and jobs in Path(now["output"]).parents else ""

    def output(self, member: Member, step: StudyStep) -> Path:
        """Return the file of what a step says."""
        return self._mark(member, step, "out")

    def last_line(self, member: Member) -> str:
        """Return the last line that the step at work has said."""
        lines = _said(self.now(member)).splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _now(self, member: Member) -> Path:
        return self.out / "steps" / member.name / "now.json"

    def _mark(self, member: Member, step: StudyStep, what: str) -> Path:
        return self.out / "steps" / member.name / f"{step.name.replace(' ', '-')}.{what}"


def _said(now: dict[str, Any] | None) -> str:
    """Return the end of what the step at work has said."""
    try:
        with Path(now["output"] if now else "").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST, now["said"] if now else 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def ended(run: RunConfig) -> bool:
    """Whether a run has made all its steps, or found that nothing is left to learn."""
    reached = max(saved(run.run.dir / "checkpoints"), default=0)
    if reached >= run.train.steps:
        return True
    last = [score for score in read_scores(run.run.dir) if score.step == reached]
    return waited(last, objective_of(run).patience)
