"""Files that are whole or absent: written aside, flushed to disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
