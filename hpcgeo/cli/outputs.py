"""What a command is to write, looked at before the work whose result it is to hold."""

import os
from pathlib import Path

from hpcgeo.errors import InputError


def refuse_unwritable(path: Path | None, option: str, *, folder: bool = False) -> None:
    """Refuse a file or folder that cannot be written, without touching it.

    Args:
        path: None: none is asked for.
        option: that names it.
        folder: it is to be a folder.

    Raises:
        InputError: it is the other of the two, or cannot be made or written to.
    """
    if path is None:
        return
    there = path if path.exists() else next(one for one in path.absolute().parents if one.exists())
    if there == path and path.is_dir() != folder:
        wrong = "no folder" if folder else "a folder"
    elif there != path and not there.is_dir():
        wrong = f"{there} is no folder"
    elif not os.access(there, os.W_OK):
        wrong = f"{there} may not be written"
    else:
        return
    raise InputError(f"{option} {path}: {wrong}: choose another")
