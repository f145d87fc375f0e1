"""`hpcgeo train --check-resume`: it finds an exact resume exact, and another one not."""

import subprocess
import sys
from pathlib import Path

from tests.ranks import ALONE

OPTIONS = ["mae_vit_tiny", "data.chip=32", "train.micro_batch=4", "parallel.strategy=FULL_SHARD"]

#: The command, with an engine that forgets to load the optimizer's first moment of one tensor.
FORGETFUL = """
import sys
from hpcgeo.cli.main import hpcgeo
from hpcgeo.parallel.native import NativeEngine

load = NativeEngine.load

def forget(engine, state):
    state["optimizer"]["state.mask_token.exp_avg"].zero_()
    load(engine, state)

NativeEngine.load = forget
hpcgeo()
"""


def check(folder: Path, command: list[str], *options: str) -> tuple[int, str]:
    words = [
        *command,
        "train",
        *OPTIONS,
        f"run.dir={folder / 'run'}",
        "--check-resume",
        "2",
        *options,
    ]
    ended = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=240)
    assert not list(folder.iterdir()), "it leaves nothing behind"
    return ended.returncode, ended.stderr


def test_an_exact_resume_is_found_exact(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    code, said = check(tmp_path, [*torchrun, "-m", "hpcgeo"], "data.workers=1")
    assert code == 0, said
    for kind in ("loss", "parameters", "optimizer"):
        assert f"{kind:12}equal       0" in said


def test_another_resume_is_found_different(tmp_path: Path) -> None:
    code, said = check(tmp_path, [sys.executable, "-c", FORGETFUL])
    assert code == 1, said
    assert "optimizer   DIFFERENT" in said
    assert "Traceback" not in said


def test_more_steps_than_the_run_has_are_refused(tmp_path: Path) -> None:
    code, said = check(tmp_path, ALONE, "train.steps=3", "optim.warmup_steps=0")
    assert code == 2
    assert "--check-resume 2 needs 4 steps, the run has train.steps 3" in said
