"""Packages that add something to hpcgeo from outside: one module, one entry point."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import hpcgeo
from tests.ranks import Own, ended, launch

#: Returns the exit code of `hpcgeo` with an installed package, and what it said.
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def install(tmp_path: Path) -> Callable[[str, dict[str, str]], Run]:
    """Install a package of one module, as pip would, into a folder of its own."""

    def installed(text: str, entry_points: dict[str, str]) -> Run:
        site = tmp_path / "site"
        info = site / "outside-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "outside.py").write_text(text)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
        lines = [f"[{group}]\n{row}\n" for group, row in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))

        def run(*words: object, ranks: int = 1, program: str = "") -> tuple[int, str]:
            path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
            env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
            if ranks > 1:
                own = Own(cwd=tmp_path, site=site)
                return ended(launch(ranks, *words, only=dict.fromkeys(range(ranks), own)))
            if program:
                done = subprocess.run(
                    [sys.executable, "-c", program],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=env,
                )
            else:
                done = hpcgeo(*words, cwd=tmp_path, env=env, together=True)
            return done.returncode, done.stdout

        return run

    return installed
