"""Ends a job whose ranks wait for one that does not come, and names that one.

Every few seconds a thread of each rank leaves a beat in the store of the group: where its training
loop is, and since when. Rank 0 reads the beats of all, the others that of rank 0. No collective is
needed, and no call in the loop does more than set a variable.

Two things are seen. A rank without beats is stopped, killed, cut off, or holds Python's lock for
long; that is so in any phase, also a slow one. Ranks with beats that do not move hang: the ones
behind have not arrived, whatever the others wait in.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import torch.distributed as dist

from hpcgeo.launch.environment import Environment
from hpcgeo.parallel.group import own_store
from hpcgeo.train.nccl import flight_record
from hpcgeo.train.run_folder import TOUCH_S

Item = TypeVar("Item")
Phase = Literal[
    "starting",
    "reading data",
    "computing",
    "writing metrics",
    "saving a checkpoint",
    "evaluating the model",
    "ending",
]

#: Beats within train.hang_timeout_s: one may be late or lost.
BEATS = 8

#: Seconds that ranks which show signs of life may stay in anything but a step, and in the first
#: step: loading, compiling, a checkpoint, a file system that recovers.
SLOW_S = 600.0

#: A step may take this many times the longest one before it, if that is more than the hang timeout.
FACTOR = 10.0

#: Seconds that torch's flight recorder has to write.
RECORD_S = 10.0

#: What a rank leaves as its last beat.
DONE, FAILED = "done", "failed"
NEVER = b"0 0 0 0 ? ? starting"


@dataclass(frozen=True)
class Beat:
    """Where a rank was: `moves` counts its phases, and is the same for ranks that are together."""

    moves: int
    step: int
    age_s: float
    process: str
    host: str
    phase: str

    @classmethod
    def parse(cls, text: bytes) -> "Beat":
        """Return the beat of a line as `Watchdog` writes it, after the number of the beat."""
        _, moves, step, age_s, process, host, phase = (text or NEVER).decode().split(" ", 6)
        return cls(int(moves), int(step), float(age_s), process, host, phase)

    def __str__(self) -> str:
        return (
            f"{self.host} (process {self.process}, last seen {self.phase} after step {self.step})"
        )


class Watchdog:
    """Watches the ranks of a run from `begin` to the end of its block."""

    def __init__(self, environment: Environment, hang_timeout_s: float) -> None:
        """Prepare to watch.

        Args:
            environment: this process.
            hang_timeout_s: without a sign of life of a rank, or without progress in a step.
        """
        self.rank, self.world_size = environment.rank, environment.world_size
        self.host = environment.host
        self.hang_timeout_s, self.period_s = hang_timeout_s, hang_timeout_s / BEATS
        self.step = 0  #: finished ones
        self.lock: Path | None = None  #: file that rank 0 touches to show that the run is held
        self._phase: str = "starting"
        self._moves = 0
        self._since = time.monotonic()
        self._computed, self._longest_s = False, 0.0
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._phase = DONE if kind is None else FAILED
        self._leaving.set()
        for thread in self._threads:
            thread.join(self.period_s)  # the last beat is left; rank 0 may be gone already

    def begin(self) -> None:
        """Watch from now on; the ranks have met."""
        works = [self._hold] if self.rank == 0 else [self._listen]
        self._store = own_store()
        self._root = Beat.parse(b"")
        self._answered = time.monotonic()
        self._beat(0)
        works.append(self._talk)
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def at(self, phase: Phase) -> None:
        """Say what the loop of this rank does from now on; all ranks say the same in turn."""
        now = time.monotonic()
        if self._phase == "computing":
            if self._computed:  # the first one builds caches
                self._longest_s = max(self._longest_s, now - self._since)
            self._computed = True
        self._phase, self._since = phase, now
        self._moves += 1

    def place(self) -> str:
        """Return in words where this rank is."""
        return f"{self._phase} after step {self.step}"

    def first(self, text: str, *, follows: bool) -> str | None:
        """Tell the others why this rank fails, or return which of them failed first, and why.

        Args:
            text: the cause; of the ranks that leave one, the first is kept.
            follows: it is only that others are missing, and which is the question.
        """
        if not self._threads or self.world_size == 1:
            return None
        try:
            if not follows:
                # Names of files, which a text may hold, need not be UTF-8.
                said = text.encode("utf-8", "backslashreplace").decode()
                self._store.compare_set("first", "", f"rank {self.rank} on {self.host}: {said}")
                return None
            if not self._store.check(["first"]):  # a rank speaks before it ends, or was killed
                return None
            return f"first failed {self._store.get('first').decode()}"
        except dist.DistError:  # it lives in rank 0, or in torchrun
            return f"rank 0 on {self._root} has ended: look for its line"

    def reading(self, batches: Iterator[Item]) -> Iterator[Item]:
        """Yield from `batches`, and tell reading from computing."""
        while True:
            self.at("reading data")
            batch = next(batches)
            self.at("computing")
            yield batch

    def _talk(self) -> None:
        """Leave beats and read those of others until this rank leaves."""
        others = range(self.world_size) if self.rank == 0 else (0,)
        keys = [f"beat/{rank}" for rank in others]
        last: list[bytes | None] = [None] * len(keys)
        stuck: dict[int, float] = {}  # since when; few, so that thousands of ranks cost little
        number, complete = 0, False
        try:
            if self.rank == 0:
                self._store.set("verdict", "")
            while True:
                number += 1
                if self._was_stopped():
                    stuck = {}
                leaving = self._leaving.is_set()
                self._beat(number)
                if leaving:
                    return
                complete = complete or self._store.check(keys)
                there = keys if complete else [key for key in keys if self._store.check([key])]
                verdict, *beats = self._store.multi_get(["verdict", *there])
                if not complete:
                    found = dict(zip(there, beats, strict=True))
                    beats = [found.get(key, b"") for key in keys]
                before = self._answered
                if self._was_stopped():
                    stuck, before = {}, self._answered
                now = self._answered = time.monotonic()
                pairs = zip(others, last, beats, strict=True)
                same = [rank for rank, old, new in pairs if old == new]
                stuck = {rank: stuck.get(rank, before) for rank in same}
                last = [*beats]
                if verdict:
                    named, _, text = verdict.decode().partition(" ")
                    self._end(text, stacks=str(self.rank) in named.split(","))
                self._root = Beat.parse(beats[0])
                self._judge(beats, stuck, now)
                self._leaving.wait(self.period_s)
        except dist.DistError:
            if not self._leaving.wait(2 * self.period_s):  # collectives on GPUs notice nothing
                self._end(f"rank 0 on {self._root} has ended: look for its line", stacks=False)

    def _was_stopped(self) -> bool:
        """Return whether this process was stopped itself; if so, all times count from now."""
        now = time.monotonic()
        if now - self._answered <= self.hang_timeout_s / 2:
            return False
        self._answered = self._since = now
        return True

    def _beat(self, number: int) -> None:
        age_s = time.monotonic() - self._since
        place = f"{self._moves} {self.step} {age_s:.1f} {os.getpid()} {self.host} {self._phase}"
        self._store.set(f"beat/{self.rank}", f"{number} {place}")

    def _listen(self) -> None:
        """End this rank when the store, which lives in rank 0, is silent: calls of it never end."""
        awake = time.monotonic()
        while not self._leaving.wait(self.period_s):
            before, awake = awake, time.monotonic()
            if awake - before > self.hang_timeout_s / 2:
                self._answered = awake  # this process was stopped itself
            if awake - self._answered > self.hang_timeout_s:
                self._end(
                    f"rank 0 on {self._root} has given no sign of life for "
                    f"{self.hang_timeout_s:g} s, while this rank was {self.place()}; {_SILENT}",
                    stacks=self.rank == 1,
                )

    def _hold(self) -> None:
        """Show, to who cannot see the lock itself, that the run is held."""
        while not self._leaving.wait(TOUCH_S):
            if self.lock is not None:
                with suppress(OSError):  # the next one may succeed
                    os.utime(self.lock)

    def _judge(self, beats: Sequence[bytes], stuck: Mapping[int, float], now: float) -> None:
        """End the job when a rank has failed, is silent, or holds the others up."""
        failed = [rank for rank in stuck if beats[rank].endswith(FAILED.encode())]
        if failed:
            said = self._store.get("first").decode() if self._store.check(["first"]) else ""
            cause = f" (first {said})" if said else ""
            self._condemn(failed, beats, f"failed and said why{cause}; all ranks end")
        silent = [
            rank
            for rank, since in stuck.items()
            if now - since > self.hang_timeout_s and not beats[rank].endswith(DONE.encode())
        ]
        if silent:
            age_s = max(now - stuck[rank] for rank in silent)
            self._condemn(silent, beats, f"gave no sign of life for {age_s:.0f} s; {_SILENT}")
        # All ranks move together: as long as this one does, all do.
        if self.rank == 0 and now - self._since > self.hang_timeout_s:
            self._judge_progress(beats)

    def _judge_progress(self, lines: Sequence[bytes]) -> None:
        beats = {
            rank: beat
            for rank, line in enumerate(lines)
            if (beat := Beat.parse(line)).phase != DONE
        }
        last = min(beat.moves for beat in beats.values())
        behind = {rank: beat for rank, beat in beats.items() if beat.moves == last}
        beat = max(behind.values(), key=lambda beat: beat.age_s)
        limit_s = SLOW_S
        if beat.phase == "computing" and self._longest_s:
            limit_s = max(self.hang_timeout_s, FACTOR * self._longest_s)
        first = beat.phase == "computing" and not self._longest_s
        if beat.age_s <= limit_s or (first and self.world_size == 1):  # alone, it may be slow
            return
        if len(behind) == len(beats):
            say = "no rank is ahead: " + _HANGS.get(beat.phase, "a collective or a device hangs")
        else:
            ahead = max(beats.values(), key=lambda beat: beat.moves)
            say = f"{len(beats) - len(behind)} others wait, {ahead.phase} after step {ahead.step}"
        say = f"made no progress for {beat.age_s:.0f} s; {say}; the stacks above show where"
        self._condemn(list(behind), lines, f"{say}. {_SLOW}{_AGAIN}")

    def _condemn(self, ranks: list[int], beats: Sequence[bytes], what: str) -> NoReturn:
        """Name ranks to all others and end."""
        first = []
        for rank in ranks[:8]:
            beat = Beat.parse(beats[rank])
            first.append(f"rank {rank} on {beat}")
        more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
        text = f"{'; '.join(first)}{more} {what}"
        if self.rank == 0:
            self._store.set("verdict", f"{','.join(map(str, ranks[:8]))} {text}")
        self._end(text, stacks=self.rank < 2)

    def _record(self) -> None:
        if said := flight_record(self.rank):
            print(f"hpcgeo: rank {self.rank}{said}", file=sys.stderr, flush=True)

    def _end(self, text: str, *, stacks: bool) -> NoReturn:
        """Say why and end this process, whatever its other threads wait for."""
        if stacks:
            faulthandler.dump_traceback(all_threads=True)
        print(
            f"hpcgeo: rank {self.rank} of {self.world_size} on {self.host}: {text}",
            file=sys.stderr,
            flush=True,
        )
        recorder = threading.Thread(target=self._record, daemon=True)  # storage may hang, too
        recorder.start()
        recorder.join(RECORD_S)
        if self.rank == 0:
            time.sleep(1.5 * self.period_s)  # the others read the verdict here
        os._exit(1)


_STORAGE = "the storage does not answer"
#: What hangs where all ranks wait in the same place, by that place.
_HANGS = {
    "reading data": f"{_STORAGE}, or a reader process has died",
    "writing metrics": _STORAGE,
    "saving a checkpoint": _STORAGE,
}
_SLOW = "If it is but slow, raise train.hang_timeout_s. "
_AGAIN = "Start the job again, it resumes; if it happens again, without that host"
_SILENT = f"it is stopped, killed (out of memory?), or its host hangs. {_AGAIN}"
