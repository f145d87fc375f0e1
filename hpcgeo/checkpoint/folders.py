"""Which folders are whole checkpoints; no torch, so that it answers on a login node."""

from pathlib import Path

#: Written last.
MANIFEST = "step.json"


def saved(folder: Path) -> dict[int, Path]:
    """Return the folders of all whole checkpoints below a folder by their step, ascending."""
    whole = (path.parent for path in folder.glob(f"step-*[0-9]/{MANIFEST}"))
    return dict(sorted((int(path.name[5:]), path) for path in whole))
