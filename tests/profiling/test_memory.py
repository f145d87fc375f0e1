"""Memory by cause of an observed step against the closed form, and what a host grants."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from hpcgeo.config import load
from hpcgeo.measured import Memory
from hpcgeo.objectives.mae.objective import forms
from hpcgeo.phases import phase
from hpcgeo.profiling import memory as module
from hpcgeo.profiling.memory import Ledger, host_bytes, observe, predicted, total, worst
from hpcgeo.zoo import architecture
from tests.distributed import on_ranks
from tests.parallel.training import build

MODEL = architecture("vit_small")
BANDS = 1  # so the tensors of the loss, which come and go, are small beside those of the blocks
MICRO_BATCH = 64  # so many that activations weigh more than parameters


STACKS = (MODEL.encoder, MODEL.decoder)


long = partial(pytest.param, marks=pytest.mark.long)


class Seen(NamedTuple):
    """What is held at the peak, and of each cause the most, which may be at another moment."""

    at_peak: Memory
    most: Counter[str]


def observed(
    options: dict[str, Any], dtype: str, accumulate: int = 2, micro_batch: int = MICRO_BATCH
) -> Seen:
    """Return what the third step of the rank that holds most is seen to hold."""
    engine, topology = build(options, accumulate=accumulate, dtype=dtype, model=MODEL, bands=BANDS)
    most: Counter[str] = Counter()

    class Kept(Ledger):
        def at_peak(self) -> Counter[str]:
            for now in self.course():
                most.update({cause: max(0, now[cause] - most[cause]) for cause in now})
            return super().at_peak()

    def step() -> torch.Tensor:
        shapes = {"images": (micro_batch, BANDS, 32, 32), "noise": (micro_batch, 16)}
        engine.forward_backward(
            {name: torch.rand(shape) for name, shape in shapes.items()} for _ in range(accumulate)
        )
        return engine.step(1e-3)

    step()
    step()
    module.Ledger = Kept  # type: ignore[misc]
    norm, memory = observe(engine, topology, step, compiled="compile" in options)
    module.Ledger = Ledger  # type: ignore[misc]
    assert norm.isfinite()
    holds_most = worst(memory, topology)
    assert total(holds_most) >= total(memory)
    return Seen(memory, most)


def closed_form(options: dict[str, Any], dtype: str, ranks: int, accumulate: int = 2) -> Memory:
    given = {"model.name": MODEL.name, "data.chip": 32, "train.dtype": dtype}
    given |= {"train.micro_batch": MICRO_BATCH, "train.accumulate": accumulate}
    given |= {f"parallel.{key}": value for key, value in options.items()}
    run = load("mae_vit_tiny", [f"{key}={value}" for key, value in given.items()])
    return predicted(run, forms(MODEL, BANDS, (32, 32), 0.75), ranks)


@pytest.mark.parametrize(
    ("ranks", "options", "dtype", "arriving"),
    [
        (1, {"strategy": "DDP"}, "float32", 0),
        long(1, {"strategy": "DDP"}, "bfloat16", 0),
        (2, {"strategy": "FULL_SHARD"}, "float32", 1),
        long(2, {"strategy": "SHARD_GRAD_OP"}, "bfloat16", 1),
        long(4, {"strategy": "HYBRID_SHARD", "group_size": 2}, "float32", 1),
        long(2, {"strategy": "ZERO1"}, "float32", 0),
        long(2, {"strategy": "ZERO3"}, "float32", 3),
    ],
    ids=str,
)
def test_every_cause_is_what_the_closed_form_says(
    ranks: int, options: dict[str, Any], dtype: str, arriving: int
) -> None:
    """Within 5 %. The form adds up the most of each cause: units are gathered at other moments."""
    form = closed_form(options, dtype, ranks)
    for seen in on_ranks(observed, ranks, options, dtype):
        memory = seen.at_peak
        for cause in ("parameters", "gradients", "optimizer", "activations"):
            held, said = getattr(memory, f"{cause}_bytes"), getattr(form, f"{cause}_bytes")
            assert held == pytest.approx(said, rel=0.05), cause
        assert form.gathered_bytes is not None
        # For moments, units are there a second time: in the flat buffers that they arrive in.
        unit = 4 * max(stack.parameters / stack.depth for stack in STACKS)
        assert 0.95 * form.gathered_bytes <= seen.most["gathered"]
        assert seen.most["gathered"] <= 1.05 * (form.gathered_bytes + arriving * unit)
        assert memory.peak_resident_bytes and memory.peak_allocated_bytes is None


def test_gathered_units_at_the_peak() -> None:
    """Of few samples, the peak is where the first unit computes and the next is gathered."""
    options = {"strategy": "FULL_SHARD"}
    form = closed_form(options, "float32", 2)
    for seen in on_ranks(observed, 2, options, "float32", 1, 16):
        assert seen.at_peak.gathered_bytes == pytest.approx(form.gathered_bytes, rel=0.05)
        for cause in ("parameters", "optimizer"):
            held, said = (getattr(m, f"{cause}_bytes") for m in (seen.at_peak, form))
            assert held == pytest.approx(said, rel=0.05)


def augmented(pixels: int) -> Memory:
    """Return what is seen of a step whose views are cut from images of so many pixels."""
    engine, topology = build({"strategy": "DDP"}, model=MODEL, bands=BANDS)

    def step() -> torch.Tensor:
        with phase("host_to_device"):
            views = torch.rand(4, BANDS, pixels)[..., : 32 * 32].reshape(4, BANDS, 32, 32).clone()
        engine.forward_backward([{"images": views, "noise": torch.rand(4, 16)}])
        return engine.step(1e-3)

    step()
    return observe(engine, topology, step)[1]


def test_the_phase_of_the_peak() -> None:
    """Large images hold most before forward: activations and gradients are not there then."""
    (usual,) = on_ranks(augmented, 1, 32 * 32)
    assert usual.phase in ("forward", "backward") and usual.activations_bytes
    assert usual.batch_bytes == 4 * 4 * BANDS * 32 * 32
    (large,) = on_ranks(augmented, 1, 2**22)
    assert large.phase == "host_to_device" and large.activations_bytes == 0
    assert large.batch_bytes == pytest.approx(4 * 4 * BANDS * 2**22, rel=1e-3)


@pytest.mark.long
def test_recompute() -> None:
    options = {"strategy": "FULL_SHARD", "recompute": "full"}
    form = closed_form(options, "float32", 2)
    for seen in on_ranks(observed, 2, options, "float32"):
        assert seen.most["activations"] == pytest.approx(form.activations_bytes, rel=0.05)
        # At the peak the last block has given back the output of its activation function, and
        # holds gradients instead.
        given_back = MICRO_BATCH * 17 * STACKS[1].hidden * 4
        held = seen.at_peak.activations_bytes
        assert form.activations_bytes and held
        assert form.activations_bytes - given_back == pytest.approx(held, rel=0.05)


@pytest.mark.parametrize(
    ("group", "files", "granted"),
    [
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7/memory.max": "4000"}, 4000),
        ("0::/slurm/job_7\n", {"slurm/memory.max": "9000", "slurm/job_7/memory.max": "max"}, 9000),
        ("4:memory:/job_7\n0::/\n", {"memory/job_7/memory.limit_in_bytes": "5000"}, 5000),
        ("3:cpu,cpuacct:/job_7\n", {"memory/job_7/memory.limit_in_bytes": "5000"}, None),
    ],
)
def test_what_a_host_grants(
    tmp_path: Path, group: str, files: dict[str, str], granted: int | None
) -> None:
    texts = {"proc/self/cgroup": group} | {f"sys/fs/cgroup/{k}": v for k, v in files.items()}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = host_bytes(tmp_path)
    assert found == granted if granted else found > 2**28
