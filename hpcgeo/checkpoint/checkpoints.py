"""Checkpoints of a run: written aside, checksummed, renamed when whole, the oldest then removed.

checkpoints/
  step-00000100/           any number of ranks and any strategy resumes from it
    step.json              the manifest: step, order of samples, bytes and SHA-256 of every file;
                           its last entry is the SHA-256 of the entries before
    index.json             where each piece of each tensor lies (`hpcgeo.checkpoint.rank_files`)
    rank-00000.safetensors the pieces
  step-00000200/
  step-00000300.partial/   being written; no checkpoint, removed at the next start
  step-00000400.damaged/   found damaged when it was to be loaded, and set aside
"""

import json
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import (
    ValidationError,
)
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load

from hpcgeo.checkpoint.folders import MANIFEST, saved
from hpcgeo.checkpoint.manifest import Manifest, opened, sealed
from hpcgeo.checkpoint.planning import Loading, Reader, StateLayout, flatten, put_back
from hpcgeo.checkpoint.rank_files import (
    INDEX,
    PORTION,
    FileEntry,
    damage,
    entry_of,
    file_name,
    fill,
    patiently,
    write,
)
from hpcgeo.errors import InputError
from hpcgeo.files import sync_folder, write_text
from hpcgeo.job_options import Checkpoint
from hpcgeo.log import log, track
from hpcgeo.parallel.engine import Engine
from hpcgeo.parallel.group import on_rank_0

#: How much longer than the fastest rank the slowest may take to write its file.
WRITE_TIMEOUT = timedelta(minutes=30)


class Checkpoints:
    """The checkpoints of one run; every rank calls every method.

    An asynchronous save copies this rank's pieces to a buffer on the host, which is kept for the
    next save, and leaves the rest to a thread; one is under way at a time. What the ranks tell each
    other about a save goes through a process group of its own, never between collectives of the
    training. A save that failed raises on every rank, at the next `save` or `wait`.

    Attributes:
        save_s: seconds of the longest whole save so far, from the call to the rename; of the run
            before it where it was resumed; 0.0 before the first. The same number on every rank, but
            one may learn it a step before another: agree before acting on it.
    """

    def __init__(
        self,
        folder: Path,
        options: Checkpoint,
        *,
        global_batch: int,
        data: str,
        run: Mapping[str, str] | None = None,
    ) -> None:
        """Keep checkpoints below `folder`.

        Args:
            global_batch: samples of a step; with another one the order of samples would break.
            data: fingerprint of the data set, likewise.
            run: options that a resumed run must not change.
        """
        self.folder = folder
        self.options = options
        self.save_s = 0.0
        self._order = {"global_batch": global_batch, "data": data, "run": dict(run or {})}
        self._group = dist.new_group(backend="gloo", timeout=WRITE_TIMEOUT)
        self._area = torch.empty(0, dtype=torch.uint8)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None
        self._layout: StateLayout
        self._planned_for: Engine | None = None

    def save(self, step: int, engine: Engine) -> None:
        """Write the state after `step` steps; an asynchronous save returns once it is copied.

        Raises:
            InputError: this save could not be written, or the one before; older ones are untouched.
        """
        self.wait()
        begin = time.perf_counter()
        flat = flatten(engine.state())
        if engine is not self._planned_for:
            self._layout, self._planned_for = StateLayout(flat, self._group), engine
        on_rank_0(lambda: self._find_room(step))
        pieces = self._layout.pieces(flat)
        index = self._layout.index(flat)
        if self.options.asynchronous:
            copied = list(fill(self._room(self._layout.size), pieces))
            self._under_way = self._thread.submit(self._write, step, index, copied, begin)
        else:
            self._write(step, index, fill(self._room(PORTION), pieces), begin)

    def wait(self) -> None:
        """Wait for the save that is under way.

        Raises:
            InputError: it could not be written; older ones are untouched.
        """
        under_way, self._under_way = self._under_way, None
        if under_way:
            under_way.result()

    def restore(self, engine: Engine) -> int:
        """Load the newest whole checkpoint and return its step; 0 for a run without any.

        Every rank checks the SHA-256 of some of the files. A damaged checkpoint is set aside,
        and the one before it is loaded.

        Raises:
            InputError: every checkpoint is damaged; one cannot be read just now; the newest is of
                another run: of another global batch, data set, model or seed.
        """
        on_rank_0(self._tidy)
        while (found := on_rank_0(self._newest)) is not None:
            folder, manifest = found
            wrong = self._damage(folder, manifest.files)
            if not wrong:
                break
            on_rank_0(partial(_set_aside, folder, wrong))
        if found is None:
            on_rank_0(self._refuse_to_start_anew)
            return 0
        state = engine.state()
        flat = flatten(state)
        reader = Reader(folder, _sizes(manifest.files))
        try:
            load(flat, storage_reader=reader, planner=Loading(), process_group=self._group)
        except CheckpointException as error:
            rank, (cause, _) = min(error.failures.items())
            raise InputError(f"{folder} does not fit this run (rank {rank}: {cause})") from None
        put_back(flat, state)
        engine.load(state)
        self.save_s = manifest.save_s
        return manifest.step

    def steps(self) -> list[int]:
        """Return the steps of all whole checkpoints, ascending."""
        return list(saved(self.folder))

    def _room(self, size: int) -> Tensor:
        """Return `size` bytes on the host, the same ones from save to save."""
        if len(self._area) != size:
            pinned = torch.cuda.is_available()  # copies from a device are several times faster
            self._area = torch.empty(0, dtype=torch.uint8)
            self._area = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        return self._area

    def _find_room(self, step: int) -> None:
        """Refuse a save that the disk cannot hold, before any byte of it is written."""
        needed = self._layout.total_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise self._failed(step, f"{self.folder}: {error.strerror}") from None
        if free < needed:
            raise self._failed(
                step,
                f"rank 0 on {platform.node()}: {self.folder}: {needed:,} bytes are needed, "
                f"{free:,} are free",
            )

    def _write(
        self, step: int, index: dict[str, Any], parts: Iterable[Tensor], begin: float
    ) -> None:
        """Write this rank's file; rank 0 completes the checkpoint, or removes it from the disk."""
        rank, world = dist.get_rank(), dist.get_world_size()
        aside = self.folder / f"step-{step:08d}.partial"
        path = aside / file_name(rank)
        mine: dict[str, Any] | str
        try:
            aside.mkdir(parents=True, exist_ok=True)
            mine = write(path, parts)
        except Exception as error:
            mine = (
                f"rank {rank} on {platform.node()}: {path}: {_cause(error)} (its file needs "
                f"{self._layout.size:,} bytes, {_free(self.folder)})"
            )
        of_ranks: list[Any] | None = [None] * world if rank == 0 else None
        dist.gather_object(mine, of_ranks, group=self._group)
        outcome: list[float | str] = [""]
        if of_ranks is not None:
            outcome[0] = self._complete(step, aside, index, of_ranks, begin)
        dist.broadcast_object_list(outcome, src=0, group=self._group)
        if isinstance(outcome[0], str):
            raise self._failed(step, outcome[0])
        self.save_s = outcome[0]

    def _complete(
        self, step: int, aside: Path, index: dict[str, Any], of_ranks: list[Any], begin: float
    ) -> float | str:
        """Return the seconds of the longest save so far, or why this one failed."""
        failures = [answer for answer in of_ranks if isinstance(answer, str)]
        if failures:
            shutil.rmtree(aside, ignore_errors=True)
            return "; ".join(failures[:3]) + ("; ..." if len(failures) > 3 else "")
        try:
            text = json.dumps(index, separators=(",", ":"))
            write_text(aside / INDEX, text)
            entries = {file_name(rank): entry for rank, entry in enumerate(of_ranks)}
            manifest = {
                "step": step,
                **self._order,
                "save_s": max(self.save_s, time.perf_counter() - begin),
                "files": {**entries, INDEX: entry_of(text)},
            }
            write_text(aside / MANIFEST, sealed(manifest))
            aside.rename(aside.with_suffix(""))
            sync_folder(self.folder)
            self._forget()
        except Exception as error:
            shutil.rmtree(aside, ignore_errors=True)
            return f"rank 0 on {platform.node()}: {aside}: {_cause(error)}"
        seconds = time.perf_counter() - begin
        log.info(
            "checkpoint of step %d: %.3g GB in %.1f s",
            step,
            self._layout.total_bytes / 1e9,
            seconds,
        )
        return max(self.save_s, seconds)

    def _failed(self, step: int, cause: str) -> InputError:
        return InputError(
            f"the checkpoint of step {step} could not be written: {cause}. What was written of it "
            f"is removed, older checkpoints ({_listed(self.steps())}) are untouched: make room "
            f"where the disk is full, then start the run again"
        )

    def _forget(self) -> None:
        every = self.options.keep_every
        for old in self.steps()[: -self.options.keep]:
            if every is None or old % every:
                folder = self.folder / f"step-{old:08d}"
                going = folder.with_suffix(".partial")  # what is half forgotten is no checkpoint
                folder.rename(going)
                shutil.rmtree(going, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove what an interrupted save or an interrupted forgetting left."""
        for folder in self.folder.glob("step-*.partial"):
            shutil.rmtree(folder)

    def _newest(self) -> "tuple[Path, Manifest] | None":
        for folder in sorted(self.folder.glob("step-" + "[0-9]" * 8), reverse=True):
            path = folder / MANIFEST
            try:
                manifest = opened(patiently(path, partial(path.read_text, "utf-8")))
            except InputError:
                raise
            except (ValueError, OSError) as error:
                if (folder / ".metadata").exists():
                    raise InputError(
                        f"{folder} was not written by hpcgeo: its .metadata is a pickle, which can "
                        f"run anything when it is loaded, so it never is; move the folder away"
                    ) from None
                _set_aside(folder, f"{MANIFEST}: {_cause(error)}")
                continue
            if folder.name != (own := f"step-{manifest.step:08d}"):
                _set_aside(folder, f"a copy of {own} under another name; to use it, rename it so")
                continue
            self._agree(folder, manifest)
            return folder, manifest
        return None

    def _agree(self, folder: Path, saved: "Manifest") -> None:
        if saved.global_batch != self._order["global_batch"]:
            raise InputError(
                f"{folder} was written with a global batch of {saved.global_batch}, this run "
                f"has {self._order['global_batch']}: choose train.micro_batch x train.accumulate x "
                f"ranks = {saved.global_batch}"
            )
        if saved.data != self._order["data"]:
            raise InputError(
                f"{folder} was written while reading other data: the data set has been built anew "
                f"since, so its samples have another order; choose another run.dir"
            )
        now: Any = self._order["run"]
        if others := [key for key in sorted(saved.run.keys() & now) if saved.run[key] != now[key]]:
            apart = "; ".join(f"{key}: {saved.run[key]} -> {now[key]}" for key in others)
            raise InputError(
                f"{folder} was written by another run (there -> here: {apart}): put back the "
                f"checkpoints of this one, or choose another run.dir"
            )

    def _damage(self, folder: Path, files: "Mapping[str, FileEntry]") -> str | None:
        """Return what is wrong with a checkpoint; each rank reads some of the files."""
        rank, world = dist.get_rank(), dist.get_world_size()
        own = sorted(files)[rank::world]
        found: list[str | None] = []
        unread = ""
        try:
            with ThreadPoolExecutor(torch.get_num_threads()) as threads:
                found += threads.map(lambda name: damage(folder / name, files[name]), own)
            if rank == 0 and not any(found):
                Reader(folder, _sizes(files))
        except InputError as error:
            unread = str(error)
        except ValueError as error:
            found.append(str(error))
        of_ranks: list[tuple[list[str | None], str]] = [([], "")] * world
        dist.all_gather_object(of_ranks, (found, unread), group=self._group)
        if faults := [fault for _, fault in of_ranks if fault]:
            raise InputError(faults[0])
        return "; ".join(wrong for of_rank, _ in of_ranks for wrong in of_rank if wrong) or None

    def _refuse_to_start_anew(self) -> None:
        damaged = sorted(path.name for path in self.folder.glob("*.damaged"))
        if damaged:
            raise InputError(
                f"every checkpoint in {self.folder} is damaged ({', '.join(damaged)}): restore one "
                f"from a copy, choose another run.dir, or delete that folder to start at step 0"
            )


def reader_of(folder: Path) -> Reader:
    """Return what reads a checkpoint outside a run, in one process.

    Raises:
        InputError: it is damaged.
    """
    try:
        files = opened((folder / MANIFEST).read_text("utf-8")).files
        for name, entry in track(files.items(), "checking", len(files)):
            if wrong := damage(folder / name, entry):
                raise ValueError(wrong)
        return Reader(folder, _sizes(files))
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(
            f"{folder} is damaged: {_cause(error)}: choose another with --step, or train on: the "
            f"run goes on from the one before"
        ) from None


def _sizes(files: Mapping[str, FileEntry]) -> dict[str, int]:
    return {name: entry.bytes for name, entry in files.items()}


def _set_aside(folder: Path, wrong: str) -> None:
    damaged = folder.with_suffix(".damaged")
    shutil.rmtree(damaged, ignore_errors=True)  # of an earlier time
    folder.rename(damaged)
    log.warning("%s is damaged: %s; set aside as %s", folder, wrong, damaged.name)


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, ValidationError):
        return "no manifest"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free:,} are free"
    except OSError:
        return "nobody knows how many are free"


def _listed(steps: list[int]) -> str:
    return f"steps {', '.join(map(str, steps))}" if steps else "none"
