"""The memory form against what real ranks hold, and against published figures."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from hpcgeo.config import RunConfig, load
from hpcgeo.objectives.mae.objective import forms
from hpcgeo.optimizers.layerwise import local
from hpcgeo.options import Parallel, Train
from hpcgeo.parallel.native import NativeEngine
from hpcgeo.plan.cases import classification, forms_of_record
from hpcgeo.plan.fit import GIB, TIGHT, verdict
from hpcgeo.plan.memory import peak, predict
from hpcgeo.plan.protocols import protocol
from hpcgeo.records import read
from hpcgeo.zoo import Forms, architecture
from tests.distributed import on_ranks
from tests.parallel.training import build
from tests.plan.published import FRONTIER


def _fsdp_parameters(objective: torch.nn.Module) -> list[Any]:
    modules = (module for module in objective.modules() if isinstance(module, FSDPModule))
    groups = (module._get_fsdp_state()._fsdp_param_group for module in modules)
    return [parameter for group in groups if group for parameter in group.fsdp_params]


def held(options: dict[str, Any]) -> tuple[int, int, int]:
    """Train one step; return the bytes of parameters, gradients and moments of this rank."""
    engine, topology = build(options, accumulate=2, model=architecture("vit_small"))
    assert isinstance(engine, NativeEngine)
    inputs = {"images": torch.randn(1, 3, 32, 32), "noise": torch.rand(1, 16)}
    # Whole gradients must not pile up between micro-batches: look before the last one.
    engine.forward_backward([inputs])
    if topology.strategy.name != "DDP":
        parameters = _fsdp_parameters(engine.objective)
        assert parameters and all(p.unsharded_accumulated_grad is None for p in parameters)
    engine.forward_backward([inputs, inputs])

    def size(tensor: torch.Tensor) -> int:
        return int(local(tensor).numel() * tensor.element_size())

    gradients = sum(size(p.grad) for p in engine.objective.parameters() if p.grad is not None)
    engine.step(1e-3)
    moments = sum(
        size(value)
        for state in engine.optimizer.state.values()
        for key, value in state.items()
        if key != "step"
    )
    return sum(size(p) for p in engine.objective.parameters()), gradients, moments


def of_images(run: RunConfig) -> Forms:
    """The closed forms of a run on three bands."""
    return forms(architecture(run.model.name), 3, run.data.chip, run.objective.mask_ratio)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "DDP"},
        {"strategy": "HYBRID_SHARD", "group_size": 2},
        {"strategy": "FULL_SHARD", "tensor": 2},
        *(
            pytest.param(options, marks=pytest.mark.long)
            for options in (
                {"strategy": "NO_SHARD"},
                {"strategy": "FULL_SHARD"},
                {"strategy": "NO_SHARD", "tensor": 4},
            )
        ),
    ],
    ids=str,
)
def test_what_ranks_hold_between_steps(options: dict[str, Any]) -> None:
    overrides = [f"parallel.{key}={value}" for key, value in options.items()]
    run = load("mae_vit_tiny", ["model.name=vit_small", *overrides])
    predicted = predict(of_images(run), run.parallel, run.train, world_size=4)
    answers = on_ranks(held, 4, options)
    parameters, gradients, moments = (sum(column) / 4 for column in zip(*answers, strict=True))
    assert parameters == pytest.approx(predicted.parameters, rel=1e-3)
    assert gradients == pytest.approx(predicted.gradients, rel=1e-3)
    assert moments == pytest.approx(predicted.optimizer, rel=1e-3)


def test_published_figures() -> None:
    """NO_SHARD keeps about 16 bytes a parameter, HYBRID_2 half; GiB allocated, arXiv 2404.11706."""
    for model, whole, half in (("vit_huge", 10.40, 5.70), ("vit_3b", 47.33, 24.63)):
        for k, published in ((1, whole), (2, half)):
            options = [f"model.name={model}", "parallel.strategy=HYBRID_SHARD"]
            run = load("mae_vit_base", [*options, f"parallel.group_size={k}"])
            states = predict(of_images(run), run.parallel, run.train, world_size=8)
            held = states.parameters + states.gradients + states.optimizer
            assert 0.3 < published - held / 2**30 < 4.1  # the study's "1.6 to 4.1 GiB" on top


def test_published_peaks_of_the_published_protocol() -> None:
    """Allocated to 2 % (4 % the worst), by one fitted constant; active 10 %, reserved 8 %; all that
    ran has a verdict that lets it run. Of 1B to 5B; HYBRID_SHARD(1) trained nothing."""
    off: dict[str, list[float]] = {"allocated": [], "active": [], "reserved": []}
    by = protocol("fsdp1")
    for record in read([FRONTIER / f"records-{name}.jsonl" for name in ("published", "memory")]):
        forms, memory = forms_of_record(record), record.memory
        if not memory or not forms or record.dtype != "bfloat16" or record.group_size == 1:
            continue
        parallel = Parallel(
            strategy=record.strategy, group_size=record.group_size, recompute="full"
        )
        train = Train(steps=1, micro_batch=record.micro_batch, dtype="bfloat16")
        found = peak(forms, parallel, train, record.world_size, by)
        assert memory.limit_bytes
        assert verdict(found, memory.limit_bytes / GIB) != "does not fit"
        if record.model not in ("vit_1b_gated", "vit_3b_gated", "vit_5b_gated"):
            continue
        for name, sizes in off.items():
            measured = getattr(memory, f"peak_{name}_bytes")
            alone = name == "reserved" and record.strategy == "NO_SHARD"
            if measured and not alone:  # a rank by itself reserves what there is
                said = min(getattr(found, name), TIGHT * memory.limit_bytes)
                sizes.append(abs(said / measured - 1))
    assert [len(sizes) for sizes in off.values()] == [8, 39, 6]
    assert np.mean(off["allocated"]) < 0.02 and max(off["allocated"]) < 0.04
    assert max(off["active"]) < 0.1
    assert max(off["reserved"]) < 0.08


def test_published_verdicts() -> None:
    """A model to 3B fits one GCD, 5B needs two, 15B four (arXiv 2404.11706)."""
    by, train = protocol("fsdp1"), Train(steps=1, micro_batch=32, dtype="bfloat16")
    for model, least in (("vit_3b_gated", 1), ("vit_5b_gated", 2), ("vit_15b_gated", 4)):
        forms = classification(architecture(model), 3, (224, 224))
        for k in (1, 2, 4, 8):
            parallel = Parallel(strategy="HYBRID_SHARD", group_size=k, recompute="full")
            word = verdict(peak(forms, parallel, train, 8, by), 63.98)
            assert (word != "does not fit") == (k >= least), (model, k, word)
