"""What the tests of sweeps start from."""

import os
import shutil
from pathlib import Path

import pytest

import hpcgeo


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which the package is a copy outside git: it has no changes to commit, so that
    what it measured is skipped."""
    root = tmp_path_factory.mktemp("code")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(hpcgeo.__file__).parent, root / "hpcgeo", ignore=ignore)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
