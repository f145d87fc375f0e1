"""The folder of maps: what they were made with, which are done, strips of those that are not.

maps.json         model and options of all maps in it
maps.jsonl        a line for each map that is done
.parts/NAME/      strips of a map that is not
.lock             held by the process that writes
"""

import fcntl
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hpcgeo.errors import InputError
from hpcgeo.files import aside, write_text
from hpcgeo.kinds.target import Array

MADE_WITH, DONE, PARTS, LOCK = "maps.json", "maps.jsonl", ".parts", ".lock"
_HELD: list[TextIO] = []  #: locks, open for as long as the process lives


class Done(BaseModel):
    """A map that is done: of which scene, and how large."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    scene: str  #: fingerprint of its files
    height: int
    width: int


class Journal:
    """What is known of the maps in a folder; rank 0 alone claims it and writes lines."""

    def __init__(self, folder: Path, ending: str) -> None:
        """Take the folder, and the ending of what is made in it; nothing is read yet."""
        self.folder, self._ending = folder, ending
        self.done: dict[str, Done] = {}

    def claim(self, made_with: Mapping[str, Any], *, force: bool) -> None:
        """Take over the folder.

        Args:
            made_with: model and options, as plain values.
            force: begin anew where they are others, or scenes have changed.

        Raises:
            InputError: it holds maps of another model or with other options, or is in use.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        path = self.folder / MADE_WITH
        there = None
        if path.exists():
            with suppress(ValueError):
                there = json.loads(path.read_text("utf-8", "replace"))
        if there is not None and there != dict(made_with):
            if not force:
                raise InputError(_differences(self.folder, there, made_with))
            (self.folder / DONE).unlink(missing_ok=True)
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        write_text(path, json.dumps(made_with, indent=1) + "\n")
        self.done = {one.name: one for one in self._lines()}

    def _lock(self) -> None:
        file = (self.folder / LOCK).open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"--out {self.folder} is in use by another process: wait for it, or choose another"
            ) from None
        except OSError:
            pass  # a file system without locks
        _HELD.append(file)

    def _lines(self) -> list[Done]:
        lines = []
        if (self.folder / DONE).exists():
            for line in (self.folder / DONE).read_text("utf-8", "replace").splitlines():
                with suppress(ValidationError):
                    lines.append(Done.model_validate_json(line))
        return lines

    def is_done(self, name: str, scene: str, *, force: bool) -> bool:
        """Return whether a map is there already.

        Raises:
            InputError: it is, of other files under the same name.
        """
        path, one = self.map_of(name), self.done.get(name)
        if one is None or not path.exists():
            return False
        if one.scene == scene:
            return True
        if not force:
            raise InputError(
                f"{path} is the map of other files, or of the same before they changed: choose "
                f"another --out, or --force to make it again"
            )
        return False

    def finish(self, done: Done) -> None:
        """Write down that a map is done, and forget its strips."""
        self.done[done.name] = done
        lines = [one.model_dump_json() for one in self.done.values()]
        write_text(self.folder / DONE, "".join(f"{line}\n" for line in lines))
        shutil.rmtree(self.parts_of(done.name), ignore_errors=True)
        with suppress(OSError):
            (self.folder / PARTS).rmdir()

    def map_of(self, name: str) -> Path:
        """Return the file of a map."""
        return self.folder / f"{name}{self._ending}"

    def parts_of(self, name: str) -> Path:
        """Return the folder of its strips."""
        return self.folder / PARTS / name.replace("/", "%")

    def begin(self, name: str, scene: str) -> None:
        """Make place for the strips of a map; those of other files under its name are dropped."""
        folder = self.parts_of(name)
        said = folder / "scene"
        if not said.exists() or said.read_text("utf-8", "replace") != scene:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_text(said, scene)

    def strip_of(self, name: str, number: int) -> Path:
        """Return the file of a strip."""
        return self.parts_of(name) / f"{number:06d}.npy"

    def keep(self, name: str, number: int, pixels: Array) -> None:
        """Keep a strip, whole or not at all."""
        with aside(self.strip_of(name, number)) as partial, partial.open("wb") as file:
            np.save(file, pixels)

    def missing(self, name: str, count: int) -> list[int]:
        """Return the numbers of the strips that are still to be made."""
        there = {path.name for path in self.parts_of(name).glob("*.npy")}
        return [n for n in range(count) if self.strip_of(name, n).name not in there]


def _differences(folder: Path, there: Any, asked: Mapping[str, Any]) -> str:
    known: Mapping[str, Any] = there if isinstance(there, dict) else {}
    names: Sequence[str] = sorted({*known, *asked})
    said = [
        f"{name}: {known.get(name)} -> {asked.get(name)}"
        for name in names
        if known.get(name) != asked.get(name)
    ]
    return (
        f"--out {folder} holds maps that were made otherwise; choose another, or --force to make "
        f"them anew. There -> asked for:\n  " + "\n  ".join(said)
    )
