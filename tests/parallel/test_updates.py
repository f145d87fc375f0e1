"""Layer-wise decay and a frozen phase: the factors, and the same under every engine and optimizer.

A tiny MAE; its decoder stands where a head would.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from hpcgeo.checkpoint.checkpoints import Checkpoints
from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.job_options import Checkpoint
from hpcgeo.models.backbone import backbone
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.optimizers import layerwise
from hpcgeo.optimizers.table import optimizers
from hpcgeo.options import Optim
from hpcgeo.parallel.updates import Update, updates
from hpcgeo.zoo import architecture
from tests.distributed import Ranks, on_ranks
from tests.parallel.test_sameness import parameters_differ
from tests.parallel.training import MODEL, build, run, whole

pytestmark = pytest.mark.slow

DECAY, FROZEN, STEPS = 0.75, 2, 4


def layer_of_mae(name: str, layers: int) -> int:
    """As `get_layer_id_for_vit` of MAE's util/lr_decay.py, in our names."""
    if name == "class_token" or name.startswith("embed"):
        return 0
    if name.startswith("blocks"):
        return int(name.split(".")[1]) + 1
    return layers


def test_factors_are_those_of_mae() -> None:
    row = architecture("vit_tiny")
    with torch.device("meta"):
        network = MAE(row, 3, MaeOptions())
    found = updates(network, Optim(layer_decay=DECAY))
    layers = row.encoder.depth + 1
    for name, update in found.items():
        own = name.removeprefix("backbone.")
        layer = layer_of_mae(own, layers) if own != name else layers
        assert update == Update(DECAY ** (layers - layer), False), name


def test_a_perceiver_reads_first() -> None:
    with torch.device("meta"):
        network = torch.nn.Module()
        network.backbone = backbone(architecture("gpna_tiny"), [("a", "b", 0)], 0, "uniform")
        network.head = torch.nn.Linear(2, 2)
    found = updates(network, Optim(layer_decay=0.5, frozen_steps=1))
    depth = architecture("gpna_tiny").stack.depth
    expected = {
        "backbone.latent_token": 0.5 ** (depth + 2),
        "backbone.tokenizer.sample_token": 0.5 ** (depth + 2),
        "backbone.read.attention.q.weight": 0.5 ** (depth + 1),
        f"backbone.blocks.{depth - 1}.attention.qkv.weight": 0.5,
    }
    assert {name: found[name] for name in expected} == {
        name: Update(scale, True) for name, scale in expected.items()
    }
    assert found["head.weight"] == Update(1.0, False)


def test_what_has_no_backbone_is_refused() -> None:
    with pytest.raises(InputError, match=r"optim\.layer_decay 0\.5: this objective names no"):
        updates(torch.nn.Linear(2, 2), Optim(layer_decay=0.5))
    with pytest.raises(InputError, match=r"frozen_steps 101 is more than train\.steps 100"):
        load("mae_vit_tiny", ["optim.frozen_steps=101"])


OPTIMS = {
    name: Optim(name=name, clip=1.0, layer_decay=DECAY, frozen_steps=FROZEN)
    for name in optimizers()
}
OPTIMS["average"] = OPTIMS["AdamW"].model_copy(update={"ema": 0.5})
ALONE = {"strategy": "DDP"}
NATIVE: list[dict[str, Any]] = [
    {"strategy": "DDP"},
    {"strategy": "HYBRID_SHARD", "group_size": 1},
    {"strategy": "FULL_SHARD"},
    {"strategy": "FULL_SHARD", "tensor": 2},
]
ZERO: list[dict[str, Any]] = [{"strategy": f"ZERO{stage}"} for stage in range(4)]


def steps_of(engine: Any, topology: Any, steps: range) -> None:
    for step in steps:
        engine.frozen = step < FROZEN
        run(engine, topology, [step])


def outcomes(settings: list[tuple[dict[str, Any], str]], steps: int) -> list[dict[str, Any]]:
    layerwise.PRECISION = torch.float32  # in bfloat16 a last bit may turn a rounding
    found = []
    for options, name in settings:
        engine, topology = build(options, optim=OPTIMS[name])
        steps_of(engine, topology, range(steps))
        found.append(whole(engine.state()))
    return found if dist.get_rank() == 0 else []


def resumed(folder: Path, name: str, first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """Save in the middle of the frozen phase, and go on under another strategy."""
    layerwise.PRECISION = torch.float32
    kept = Checkpoints(folder, Checkpoint(), global_batch=1, data="")
    engine, topology = build(first, optim=OPTIMS[name])
    steps_of(engine, topology, range(1))
    kept.save(1, engine)
    kept.wait()
    engine, topology = build(then, optim=OPTIMS[name])
    assert kept.restore(engine) == 1
    steps_of(engine, topology, range(1, STEPS))
    return whole(engine.state())


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """Return the weights of one process after the frozen phase and at the end."""
    names = list(OPTIMS)
    settings = [(ALONE, name) for name in names]
    with Ranks(1) as ranks:
        both = [ranks(outcomes, settings, steps, timeout_s=300)[0] for steps in (FROZEN, STEPS)]
        begin, once = (ranks(outcomes, settings[:1], steps)[0][0] for steps in (0, FROZEN + 1))
    return {
        "begin": begin,
        "once": once,
        "frozen": dict(zip(names, both[0], strict=True)),
        "end": dict(zip(names, both[1], strict=True)),
    }


def test_the_backbone_rests_and_then_moves(alone: dict[str, Any]) -> None:
    for name in OPTIMS:
        for key, value in alone["begin"].items():
            is_backbone = key.startswith("backbone.")
            assert np.array_equal(alone["frozen"][name][key], value) == is_backbone, (name, key)
            assert not np.array_equal(alone["end"][name][key], value), (name, key)


def test_the_first_step_of_adam_is_as_long_as_its_rate(alone: dict[str, Any]) -> None:
    """State of zero steps: no drift of moments or of their count while the backbone rested."""
    moved_once = alone["once"]
    depth = MODEL.encoder.depth
    for block in range(depth):
        name = f"backbone.blocks.{block}.mlp.into.bias"
        moved = np.abs(moved_once[name] - alone["begin"][name]).max()
        assert moved == pytest.approx(1e-3 * DECAY ** (depth - block), rel=1e-2)


def test_every_engine_and_optimizer_does_the_same(alone: dict[str, Any]) -> None:
    settings = [(options, "AdamW") for options in NATIVE]
    settings += [(NATIVE[2], name) for name in OPTIMS if name != "AdamW"]
    try:
        import deepspeed  # noqa: F401

        settings += [(options, "AdamW") for options in ZERO]
    except ImportError:
        pass
    for (options, name), found in zip(
        settings, on_ranks(outcomes, 2, settings, STEPS, timeout_s=400)[0], strict=True
    ):
        assert parameters_differ(found, alone["end"][name]) < 2e-5, (options, name)


@pytest.mark.parametrize(
    ("name", "first", "then"),
    [
        ("average", NATIVE[2], NATIVE[0]),
        ("Muon", NATIVE[0], NATIVE[3]),
    ],
)
def test_a_frozen_phase_is_resumed_in_its_middle(
    alone: dict[str, Any],
    tmp_path: Path,
    name: str,
    first: dict[str, Any],
    then: dict[str, Any],
) -> None:
    found = on_ranks(resumed, 2, tmp_path, name, first, then)[0]
    assert parameters_differ(found, alone["end"][name]) < 2e-5
