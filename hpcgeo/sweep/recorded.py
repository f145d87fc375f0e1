"""Which points of a sweep are recorded, and what is left to measure of each."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hpcgeo.log import log
from hpcgeo.records import Record, read
from hpcgeo.sweep.failures import Ending
from hpcgeo.sweep.points import (
    FLAGS,
    Cell,
    Point,
    Sweep,
    UntilOom,
    key_of,
    resolve,
    try_of,
    without,
)
from hpcgeo.train.provenance import commit, versions
from hpcgeo.train.record import stated


class Known:
    """The records that answer cells of a sweep.

    A tree with uncommitted changes may be any code; a failure may have been the machine's: neither
    answers. Out of memory is an answer.

    Attributes:
        answers: measured or out of memory, by the key of the cell.
        failures: the latest failure of the rest.
        others: what other code measured last.
    """

    def __init__(
        self,
        sweep: Sweep,
        records: Iterable[Record],
        *,
        any_code: bool = False,
        retry: bool = False,
    ) -> None:
        """Sort records by cell.

        Args:
            any_code: by whatever code: these were measured just now.
            retry: out of memory is no answer.
        """
        self.answers: defaultdict[str, list[Record]] = defaultdict(list)
        self.failures: dict[str, Record] = {}
        self.others: dict[str, Record] = {}
        for record in records:
            if record.config is None or record.data == "cached":  # the latter is another question
                continue
            asked = {name: str(getattr(record, name)) for name in FLAGS}
            key = key_of(sweep, record.config, record.world_size, record.nodes, asked)
            if not any_code and _other_code(record):
                if record.status == "ok":
                    self.others[key] = record
            elif record.status == "failed" or (retry and record.status == "out_of_memory"):
                self.failures[key] = record
            elif any_code or _enough(sweep, record):
                self.answers[key].append(record)


def pending(sweep: Sweep, cell: Cell, answers: Sequence[Record]) -> Point | None:
    """Return what has to be measured next for a cell, given its answers; None when it is done."""
    if sweep.until_oom is None:
        return None if answers else cell.point
    value = sweep.until_oom.next(*_tried(sweep.until_oom, answers))
    return None if value is None else try_of(sweep, cell.point, value)


def answer(sweep: Sweep, answers: Sequence[Record]) -> tuple[str, str]:
    """Return state and details of a cell from its answers, of which there is at least one."""
    if sweep.until_oom:
        fits, fails = _tried(sweep.until_oom, answers)
        low = max(fits, default=0)
        above = min((value for value in fails if value > low), default=None)
        more = f"{above} does not" if above else "the end of the search"
        best = f"largest {sweep.until_oom.option}: {low} ({more})"
        return ("measured", best) if low else ("out of memory", f"{above} does not fit")
    record = answers[-1]
    if record.status == "out_of_memory":
        return "out of memory", record.error or ""
    noun = "samples" if record.mixed else "images"
    rate = "" if record.images_per_s is None else f"{record.images_per_s:.1f} {noun}/s"
    if record.noisy and record.tokens_per_s:
        return "noisy", f"{rate}, spread of tokens per second {record.tokens_per_s.relative:.0%}"
    if record.noisy and record.step_s:
        return "noisy", f"{rate}, spread of the step time {record.step_s.relative:.0%}"
    return "measured", rate


def standing(sweep: Sweep, cell: Cell, known: Known) -> tuple[str, str]:
    """Return state and details of a cell that is not at work."""
    answers = known.answers[cell.key]
    if pending(sweep, cell, answers) is not None:
        failed = known.failures.get(cell.key)
        return ("failed", f"{failed.error}") if failed else ("waiting", "")
    state, details = answer(sweep, answers)
    return "recorded", details if state == "measured" else f"{state}: {details}"


def failure(sweep: Sweep, point: Point, ending: Ending) -> Record:
    """Return the record of a point that ended badly."""
    run = resolve(sweep, point)
    fields = stated(run, point.ranks) | dict(point.options)
    fields |= {"status": ending.status, "error": ending.error, "device": "not started"}
    fields |= {"nodes": point.nodes or 1}
    fields |= {"data": run.source}
    fields["config"] = without(fields["config"], ["run"])
    return Record(**fields)


def recorded(path: Path) -> list[Record]:
    """Return the records of a file or folder, which need not exist yet."""
    if path.is_dir() and not any(path.rglob("records*.jsonl")):
        return []
    return read([path], torn=_skipped) if path.exists() else []


@cache
def _skipped(error: str) -> None:
    log.warning("%s: skipped, torn by a crash or a full disk", error)  # once


def say_measured_again(every: Iterable[Cell], known: Known) -> None:
    """Say what is recorded by other code, and why it is measured again: it costs a second time."""
    again = [
        known.others[cell.key]
        for cell in every
        if cell.key in known.others and not known.answers[cell.key]
    ]
    if again:
        log.warning(
            "measured by other code, to be measured again: %d points (%s)",
            len(again),
            _other_code(again[-1]),
        )


def _other_code(record: Record) -> str:
    """Return how the code of a record differs from this code; nothing where it does not."""
    head, dirty = commit()
    if record.dirty or dirty:
        return "uncommitted changes"
    here = {"commit": head, "changes": dirty, **versions()}
    there = {"commit": record.commit, "changes": record.dirty, **record.versions}
    return ", ".join(
        f"{name} {there.get(name)}, here {here.get(name)}"
        for name in here | there
        if there.get(name) != here.get(name)
    )


def _enough(sweep: Sweep, record: Record) -> bool:
    """Return whether at least so many steps were measured as the sweep asks for."""
    if record.status == "out_of_memory":
        return True
    steps = len(record.step_s.values) if record.step_s else 0
    return steps >= sweep.steps and (record.warmup_steps or 0) >= sweep.warmup


def _tried(search: UntilOom, answers: Sequence[Record]) -> tuple[list[int], list[int]]:
    """Return the values that fit, and those that do not."""
    fits: list[int] = []
    fails: list[int] = []
    for record in answers:
        value: Any = record.config
        for part in search.option.split("."):
            value = value[part]
        (fits if record.status == "ok" else fails).append(value)
    return fits, fails
