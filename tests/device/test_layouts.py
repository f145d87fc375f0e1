"""Every layout on devices computes what one process on the host computes.

On two devices where there are two; `HPCGEO_ALL=1 pytest -s -m gpu tests/device` prints the table.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.device.commands import GPNA, GPU, HOST, MAE, hpcgeo, needs

pytestmark = [*GPU, pytest.mark.long]

RANKS = min(2, torch.cuda.device_count())

NATIVE = ("DDP", "NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD", "HYBRID_SHARD", "HYBRID_SHARD_ZERO2")
ZERO = ("ZERO0", "ZERO1", "ZERO2", "ZERO3")
FULL = "parallel.strategy=FULL_SHARD"
MORE = {
    "tensor": (FULL, f"parallel.tensor={RANKS}"),
    "tensor, no shards": ("parallel.strategy=NO_SHARD", f"parallel.tensor={RANKS}"),
    "accumulate": (FULL, "train.accumulate=2"),
    "accumulate under DDP": ("parallel.strategy=DDP", "train.accumulate=2"),
    "recompute": (FULL, "parallel.recompute=full"),
    "selective recompute": (FULL, "parallel.recompute=selective"),
    "prefetch": (FULL, "parallel.forward_prefetch=2", "parallel.backward_prefetch=2"),
    "offload": (FULL, "parallel.offload=true"),
    "readers": (FULL, "data.workers=2"),
    "clipping": (FULL, "optim.clip=0.1"),
    "average": (FULL, "optim.ema=0.7"),
    "SGD": (FULL, "optim.name=SGD"),
}


def strategies(*names: str) -> list[object]:
    groups = {"HYBRID": (f"parallel.group_size={RANKS}",)}
    zero = [needs("deepspeed")]
    return [
        pytest.param(
            (f"parallel.strategy={name}", *groups.get(name.partition("_")[0], ())),
            id=name,
            marks=zero if name in ZERO else [],
        )
        for name in names
    ]


LAYOUTS = [pytest.param(options, id=name) for name, options in MORE.items()]


def trained(run: Path, *options: str, on_host: bool = False) -> list[tuple[float, float]]:
    """Train the global batch of the recipe; return loss and gradient norm of each step."""
    ranks = 1 if on_host else RANKS
    values = dict(option.split("=", 1) for option in options[1:])
    split = int(values.get("train.accumulate", 1)) * ranks // int(values.get("parallel.tensor", 1))
    micro = int(values["train.micro_batch"]) // split
    words = ("train", *options, f"train.micro_batch={micro}", f"run.dir={run}")
    hpcgeo(*words, ranks=ranks, variables=HOST if on_host else None)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["loss"], row["grad_norm"]) for row in rows]


#: Options that change what is computed, wherever it is.
OTHER = ("optim.clip", "optim.ema", "optim.name")


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> dict[Sequence[str], object]:
    """Losses and norms of one process on the host, by recipe and those options."""
    return {}


def compare(
    folder: Path, known: dict[Sequence[str], object], recipe: Sequence[str], options: Sequence[str]
) -> None:
    kept = (*recipe, *(option for option in options if option.startswith(OTHER)))
    if kept not in known:
        known[kept] = trained(folder / "host", *kept, on_host=True)
    found = trained(folder / "run", *recipe, *options)
    far = max(
        abs(a - b) / abs(b)
        for ours, theirs in zip(found, known[kept], strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    print(f"\n{recipe[0]} {' '.join(options)}: {RANKS} devices, {far:.1e}", end="")
    assert far < 1e-3


@pytest.mark.parametrize("options", [*strategies(*NATIVE, *ZERO), *LAYOUTS])
def test_mae(tmp_path: Path, on_host: dict[Sequence[str], object], options: Sequence[str]) -> None:
    compare(tmp_path, on_host, MAE, options)


@pytest.mark.parametrize("options", [*strategies(*NATIVE, "ZERO1"), *LAYOUTS])
def test_a_mixture(
    tmp_path: Path, on_host: dict[Sequence[str], object], options: Sequence[str]
) -> None:
    compare(tmp_path, on_host, GPNA, options)
