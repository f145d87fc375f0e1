"""Commands on the device that torch sees, and on the host as their reference."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

#: Of a module of tests.
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
]
#: No device is seen.
HOST = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
MAE = (
    *("mae_vit_tiny", "data.chip=32", "train.micro_batch=8", "train.eval_every=null"),
    *("optim.warmup_steps=1", "train.steps=4", "checkpoint.every=0", "launch.threads=1"),
)
GPNA = (
    *("gpna_tiny", "train.micro_batch=8", "train.eval_every=null", "optim.warmup_steps=1"),
    *("train.steps=3", "checkpoint.every=0", "launch.threads=1"),
)
HPCGEO = "hpcgeo"


def start(
    *words: object,
    ranks: int = 1,
    variables: dict[str, str] | None = None,
    module: str = HPCGEO,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, both outputs in one."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [sys.executable, *(launch if ranks > 1 else []), "-m", module, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | (variables or {}),
        timeout=240,
    )


def hpcgeo(*words: object, ranks: int = 1, variables: dict[str, str] | None = None) -> str:
    """Run a command; return what it said."""
    done = start(*words, ranks=ranks, variables=variables)
    assert done.returncode == 0, done.stdout
    return done.stdout


def losses(
    run: Path, *options: str, ranks: int = 1, variables: dict[str, str] | None = None
) -> list[float]:
    """Train, and return the loss of each step."""
    said = hpcgeo("train", *options, f"run.dir={run}", ranks=ranks, variables=variables)
    assert f" {ranks} {'cpu' if variables else 'cuda'} ranks" in said
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skip a test where packages are missing."""
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)}")
