"""`hpcgeo train --check-resume`: it finds an exact resume exact, and another one not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcgeo.parallel.native import NativeEngine
from tests.processes import hpcgeo

pytestmark = pytest.mark.slow

OPTIONS = ["mae_vit_tiny", "data.chip=32", "train.micro_batch=4", "parallel.strategy=FULL_SHARD"]
CHECK = ["train", *OPTIONS, "run.dir=run", "--check-resume", "2"]


def test_an_exact_resume_is_found_exact(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words = [*torchrun, "-m", "hpcgeo", *CHECK]
    ended = subprocess.run(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    for kind in ("loss", "parameters", "optimizer"):
        assert f"{kind:12}equal       0" in ended.stderr
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def forget() -> None:
    """Have the engine forget to load the optimizer's first moment of one tensor."""
    load = NativeEngine.load

    def forgetful(engine: NativeEngine, state: Any) -> None:
        state["optimizer"]["state.mask_token.exp_avg"].zero_()
        load(engine, state)

    NativeEngine.load = forgetful  # type: ignore[method-assign]


def test_another_resume_is_found_different(tmp_path: Path) -> None:
    ended = hpcgeo(*CHECK, cwd=tmp_path, before=forget)
    assert ended.returncode == 1, ended.stderr
    assert "optimizer   DIFFERENT" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_more_steps_than_the_run_has_are_refused(tmp_path: Path) -> None:
    ended = hpcgeo(*CHECK, "train.steps=3", "optim.warmup_steps=0", cwd=tmp_path)
    assert ended.returncode == 2
    assert "--check-resume 2 needs 4 steps, the run has train.steps 3" in ended.stderr
