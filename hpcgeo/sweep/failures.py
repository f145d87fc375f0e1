"""How a point ended that left no record: status, and cause in one line, from what was said."""

import re
from dataclasses import dataclass
from typing import Literal

from hpcgeo.errors import out_of_memory
from hpcgeo.launch.schedulers.table import every

Status = Literal["failed", "out_of_memory", "cancelled"]

#: The most that a record repeats of a line.
LONGEST = 500

#: The out-of-memory killer of the kernel; schedulers have words of their own for theirs.
OOM_KILLED = re.compile(r"oom-kill:|Out of memory: Kill")

#: A rank that says no cause of its own, only that it misses another one.
FOLLOWED = re.compile(
    r"lost the other ranks|a collective was given up|no sign of life|failed and said why"
    r"|has ended: look for its line"
)
#: Exit code of the first process that torchrun saw end.
FIRST = re.compile(r"Root Cause.*?exitcode\s*:\s*(-?\d+)", re.DOTALL)
WRONG_INPUT = 2
#: How a rank says who it is.
RANK = re.compile(r"^rank \d+ of \d+ on \S+: ")


@dataclass(frozen=True)
class Ending:
    """Why a point has no measurement; one that was cancelled is no data point.

    Attributes:
        wrong_input: what was wrong with its input, whichever rank says it; None: something else.
    """

    status: Status
    error: str
    wrong_input: str | None = None


def ending(said: str, code: int | None = None) -> Ending:
    """Return how a point ended.

    Args:
        said: what its processes, and those that started them, wrote.
        code: exit code of the launcher, where it came to have one.
    """
    lines = [line.strip() for line in said.splitlines()]
    ours = [line.removeprefix("hpcgeo: ") for line in lines if line.startswith("hpcgeo: ")]
    causes = [line for line in ours if not FOLLOWED.search(line)]
    # The answer is kept for ever: what others say, such as a library that fell back, is none.
    if line := next(filter(out_of_memory, causes), None):
        return _ending("out_of_memory", line)
    words = [known.endings for known in every()]
    ends: tuple[tuple[list[re.Pattern[str]], Status, str], ...] = (
        ([OOM_KILLED, *(their.out_of_memory for their in words)], "out_of_memory", ""),
        ([their.time_limit for their in words], "failed", "no end within the time limit: "),
        ([their.node_failed for their in words], "failed", "the node failed: "),
        ([their.cancelled for their in words], "cancelled", "the job was cancelled: "),
    )
    for patterns, status, cause in ends:
        if line := _first(patterns, lines):
            return _ending(status, f"{cause}{line}")
    if causes:
        wrong = WRONG_INPUT in (code, _first_code(said))
        return _ending("failed", causes[0], RANK.sub("", causes[0]) if wrong else None)
    if _killed(said, code, [their.first_rank for their in words]):
        return _ending(
            "failed",
            "a rank was killed (SIGKILL) without a word; the system does so where memory runs out",
        )
    if ours:
        return _ending("failed", ours[0])
    last = next((line for line in reversed(lines) if line), "nothing was said")
    return _ending("failed", last if code is None else f"exit code {code}: {last}")


def _killed(said: str, code: int | None, first_rank: list[re.Pattern[str]]) -> bool:
    for pattern in first_rank:
        if first := pattern.search(said):
            return first[1].startswith("Killed")
    return code in (137, -9) or _first_code(said) == -9


def _first_code(said: str) -> int | None:
    found = FIRST.search(said)
    return int(found[1]) if found else None


def _first(patterns: list[re.Pattern[str]], lines: list[str]) -> str | None:
    return next((line for line in lines if any(p.search(line) for p in patterns)), None)


def _ending(status: Status, error: str, wrong_input: str | None = None) -> Ending:
    short = error if len(error) <= LONGEST else f"{error[:LONGEST]}..."
    return Ending(status, short, wrong_input)
