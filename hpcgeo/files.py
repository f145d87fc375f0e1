"""Files that are whole or absent: written aside, flushed, renamed; and files read patiently."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hpcgeo.errors import InputError

Answer = TypeVar("Answer")

#: How often a file is asked for before it counts as not to be read, and seconds between.
ATTEMPTS, PAUSE_S = 3, 1.0


def patiently(path: Path, read: Callable[[], Answer]) -> Answer:
    """Return what reading a file gives; what fails for a moment is asked for again.

    Raises:
        InputError: it still cannot be read, and says nothing of what the file holds.
        FileNotFoundError: there is no such file.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return read()
        except FileNotFoundError:
            raise
        except OSError as error:
            if attempt == ATTEMPTS:
                raise InputError(
                    f"{path} cannot be read just now: {error.strerror} (asked {ATTEMPTS} times); "
                    f"nothing was changed: start it again when the file system answers"
                ) from None
            time.sleep(PAUSE_S)
    raise AssertionError


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield the name to write to; it becomes `path` when the block ends, and nothing on an error.

    Raises:
        OSError: the file could not be renamed, or what the block raises.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk: what was renamed in it stays renamed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with aside(path) as partial, partial.open("wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))  # names may be in another encoding
        file.flush()
        os.fsync(file.fileno())
