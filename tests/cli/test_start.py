"""Before a command starts: an old PyTorch is refused, closed outputs are no files of the run."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.processes import EXEC
from tests.ranks import SMALL, metrics

TRAIN = [*EXEC, "train", "mae_vit_tiny", *SMALL, "train.steps=4", "checkpoint.every=2"]


@pytest.mark.parametrize(
    ("version", "code"), [("2.7.1+cu128", 2), ("1.13.0", 2), ("2.8.0a0+34c6371d24.nv25.8", 0)]
)
def test_an_old_pytorch_is_refused_before_anything(tmp_path: Path, version: str, code: int) -> None:
    facts = tmp_path / f"torch-{version}.dist-info" / "METADATA"
    facts.parent.mkdir()
    facts.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    words = [*EXEC, "train", "mae_vit_tiny", "--print"]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, timeout=60
    )
    assert done.returncode == code, done.stderr
    if code:
        [line] = done.stderr.splitlines()
        assert line.startswith(f"hpcgeo: PyTorch {version} is installed, and hpcgeo needs 2.8 or ")


@pytest.mark.slow
@pytest.mark.parametrize("closed", [pytest.param("2>&-", marks=pytest.mark.long), "<&- >&- 2>&-"])
def test_a_run_with_closed_outputs(tmp_path: Path, closed: str) -> None:
    """Nothing that is said reaches a file of the run, which could have the number of stderr."""
    run = tmp_path / "run"
    words = [*TRAIN, "data.workers=1", f"run.dir={run}"]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    assert subprocess.run([*shell, *words], timeout=120).returncode == 0
    assert [row["step"] for row in metrics(run)] == [1, 2, 3, 4]
    assert sorted(path.name for path in (run / "checkpoints").iterdir())[-1] == "step-00000004"
    said = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0 and "damaged" not in said.stderr


def test_a_refusal_with_closed_outputs(tmp_path: Path) -> None:
    """The exit code says it."""
    words = [*EXEC, "train", "mae_vit_tiny", "train.steps=none", f"run.dir={tmp_path / 'run'}"]
    shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh"]
    assert subprocess.run([*shell, *words], timeout=60).returncode == 2
