"""What a first user does on a real GPU: one command for each path that only a device has.

The same commands on the host are the reference: losses agree to the rounding of the device.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hpcgeo.parallel.device import name_of
from hpcgeo.records import Record, read
from hpcgeo.train.energy import find
from tests.device.commands import GPNA, GPU, HOST, MAE, hpcgeo, losses, needs

pytestmark = GPU

DEVICE = torch.device("cuda", 0)
BF16 = "train.dtype=bfloat16"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[Sequence[str], list[float]]:
    """Losses on the host, by recipe."""
    folder = tmp_path_factory.mktemp("host")
    return {recipe: losses(folder / recipe[0], *recipe, variables=HOST) for recipe in (MAE, GPNA)}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="ddp"),
        pytest.param(["parallel.strategy=FULL_SHARD"], id="fsdp"),
        pytest.param(["parallel.strategy=ZERO1"], id="deepspeed", marks=needs("deepspeed")),
        pytest.param(["parallel.recompute=full"], id="recompute"),
        pytest.param(["parallel.recompute=selective"], id="recompute-selective"),
        pytest.param(["parallel.compile=true"], id="compile", marks=needs("triton")),
        pytest.param(["parallel.strategy=FULL_SHARD", "parallel.offload=true"], id="offload"),
        pytest.param(["data.workers=1"], id="workers"),
        pytest.param(["optim.ema=0.7"], id="ema"),
    ],
)
def test_mae_in_float32(
    tmp_path: Path, expected: dict[Sequence[str], list[float]], options: list[str]
) -> None:
    found = losses(tmp_path / "run", *MAE, *options)
    assert found == pytest.approx(expected[MAE], rel=1e-3)


@pytest.mark.parametrize("strategy", ["DDP", "FULL_SHARD"])
def test_mae_in_bfloat16(
    tmp_path: Path, expected: dict[Sequence[str], list[float]], strategy: str
) -> None:
    found = losses(tmp_path / "run", *MAE, BF16, f"parallel.strategy={strategy}")
    assert found == pytest.approx(expected[MAE], rel=0.05)


@pytest.mark.parametrize("mode", ["packed", "padding"])
@pytest.mark.parametrize(("dtype", "rel"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_gpna(
    tmp_path: Path, expected: dict[Sequence[str], list[float]], mode: str, dtype: str, rel: float
) -> None:
    options = (f"data.batching.mode={mode}", f"train.dtype={dtype}")
    assert losses(tmp_path / "run", *GPNA, *options) == pytest.approx(expected[GPNA], rel=rel)


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    hpcgeo("train", *MAE, f"run.dir={tmp_path / 'checked'}", "--check-resume", 2)
    run, options = tmp_path / "run", (*MAE, "checkpoint.every=2")
    whole = losses(run, *options)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    assert losses(run, *options) == pytest.approx(whole, rel=1e-4)


def test_evaluation_and_export(tmp_path: Path) -> None:
    run = tmp_path / "run"
    losses(run, *GPNA, "checkpoint.every=3", "train.eval_every=3")
    assert "accuracy" in hpcgeo("evaluate", run, "--baselines", "none")
    hpcgeo("export", run, "--to", "safetensors", "--out", tmp_path / "out")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Of a profile run."""
    folder = tmp_path_factory.mktemp("profile")
    words = ("profile", "run", *MAE, BF16, "--steps", 4, "--warmup", 2)
    hpcgeo(*words, "--records", folder / "records.jsonl", "--trace", folder / "traces")
    return read([folder / "records.jsonl"])[-1]


def test_a_profile(record: Record) -> None:
    """Phases by the device's clock; a peak, or a product that was measured in its place."""
    assert record.device == name_of(DEVICE)
    assert record.peak_source in ("tabled", "measured") and record.mfu
    assert record.phases and record.phases.forward_s > 0 and record.phases.backward_s > 0
    assert record.memory and record.memory.limit_bytes and record.memory_source == "reserved"
    assert bool(record.energy) == bool(find(DEVICE, leads=True))


def test_the_trace_of_a_device(record: Record) -> None:
    assert record.activity and record.activity.compute_s > 0


@needs("pynvml") if torch.version.cuda else needs("amdsmi")
def test_the_device_counts_its_energy() -> None:
    counters = find(DEVICE, leads=True)
    assert counters is not None and counters.own
    before = counters.read()
    for _ in range(20):
        torch.randn(4096, 4096, device=DEVICE) @ torch.randn(4096, 4096, device=DEVICE)
    torch.cuda.synchronize()
    assert all(joules >= before[name] for name, joules in counters.read().items())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize(
    "options",
    [
        ["parallel.strategy=DDP", "train.micro_batch=4"],
        ["parallel.strategy=FULL_SHARD", "train.micro_batch=4"],
        ["parallel.strategy=FULL_SHARD", "parallel.tensor=2"],
        pytest.param(["parallel.strategy=ZERO2", "train.micro_batch=4"], marks=needs("deepspeed")),
    ],
)
def test_two_devices(
    tmp_path: Path, expected: dict[Sequence[str], list[float]], options: list[str]
) -> None:
    found = losses(tmp_path / "run", *MAE, *options, ranks=2)
    assert found == pytest.approx(expected[MAE], rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_collectives(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    words = ("profile", "collectives", "--to", "64KB", "--seconds", 2, "--records", records)
    hpcgeo(*words, ranks=2)
    assert records.read_text()
