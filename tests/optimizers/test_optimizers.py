"""Every optimizer: against plain formulas, the same under every strategy, and after a resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from hpcgeo.checkpoint.checkpoints import Checkpoints
from hpcgeo.config import load
from hpcgeo.errors import InputError
from hpcgeo.job_options import Checkpoint
from hpcgeo.optimizers import layerwise
from hpcgeo.optimizers.table import GROUP, Group, Optimizer, optimizer, optimizers
from hpcgeo.options import Optim
from tests.distributed import Ranks, on_ranks
from tests.parallel.test_sameness import parameters_differ
from tests.parallel.training import build, run, whole

LR, DECAY, STEPS = 1e-2, 0.1, 3
MOMENTUM, BETAS = 0.8, (0.9, 0.99)


def gradients(parameter: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(parameter.shape, generator=generator) for _ in range(STEPS)]


def ours(name: str, shape: tuple[int, ...], hidden: bool) -> Tensor:
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape))
    written = {"betas": BETAS, "momentum": MOMENTUM}
    taken = {key: written[key] for key in optimizer(name).takes}
    optim = Optim(name=name, weight_decay=DECAY, **taken)
    made = optimizer(name).make([Group([parameter], len(shape) > 1, hidden)], optim)
    made.param_groups[0]["lr"] = LR
    for gradient in gradients(parameter):
        parameter.grad = gradient
        made.step()
    return parameter.detach()


def lars(w: Tensor) -> Tensor:
    """As util/lars.py of MAE."""
    velocity = torch.zeros_like(w)
    for g in gradients(w):
        if w.ndim > 1:
            g = g + DECAY * w
            g = g * 0.001 * w.norm() / g.norm()
        velocity = MOMENTUM * velocity + g
        w = w - LR * velocity
    return w


def lamb(w: Tensor) -> Tensor:
    """Algorithm 2 of arXiv 1904.00962."""
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients(w), 1):
        m = BETAS[0] * m + (1 - BETAS[0]) * g
        v = BETAS[1] * v + (1 - BETAS[1]) * g**2
        r = m / (1 - BETAS[0] ** t) / ((v / (1 - BETAS[1] ** t)).sqrt() + 1e-6)
        if w.ndim > 1:
            r = r + DECAY * w
            r = r * w.norm() / r.norm()
        w = w - LR * r
    return w


@pytest.mark.parametrize(("name", "formula"), [("LARS", lars), ("LAMB", lamb)])
@pytest.mark.parametrize("shape", [(6, 4), (5,)])
def test_layerwise_optimizers_follow_their_formula(name, formula, shape):
    start = torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    torch.testing.assert_close(ours(name, shape, False), formula(start))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is new in 2.9")
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_muon_is_that_of_torch_on_matrices(shape):
    theirs = torch.nn.Parameter(torch.linspace(-1, 1, 24).reshape(shape))
    muon = torch.optim.Muon(
        [theirs],
        lr=LR,
        weight_decay=DECAY,
        momentum=MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    for gradient in gradients(theirs):
        theirs.grad = gradient
        muon.step()
    torch.testing.assert_close(ours("Muon", shape, True), theirs.detach())


@pytest.mark.parametrize("shape", [(6, 4), (5,)])
def test_muon_is_adamw_elsewhere(shape):
    torch.testing.assert_close(ours("Muon", shape, False), ours("AdamW", shape, False))


@pytest.mark.parametrize("name", [name for name in optimizers() if name != "AdamW"])
def test_zeros_stay_finite(name):
    parameter = torch.nn.Parameter(torch.zeros(3, 3))
    made = optimizer(name).make([Group([parameter], True, True)], Optim(name=name))
    parameter.grad = torch.zeros(3, 3)
    made.param_groups[0]["lr"] = LR
    made.step()
    assert not parameter.detach().any()


ALONE = {"strategy": "DDP"}
#: Replicas, shards, parts of matrices; a resume goes on under DDP.
OVER_RANKS = [
    {"strategy": "HYBRID_SHARD", "group_size": 1},
    {"strategy": "FULL_SHARD"},
    {"strategy": "FULL_SHARD", "tensor": 2},
]


#: Every optimizer, and one that keeps an average of the weights.
OPTIMS = {name: Optim(name=name, clip=1.0) for name in optimizers()}
OPTIMS["average"] = Optim(clip=1.0, ema=0.5)


def outcome(engine: Any) -> dict[str, Any]:
    """Return the parameters as whole arrays, or their averages where there are any."""
    state = engine.state()
    averages = {
        key.removeprefix("state.").removesuffix(".ema"): value
        for key, value in state["optimizer"].items()
        if key.endswith(".ema")
    }
    return whole({"model": averages or state["model"]})


def trained(settings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Train by every optimizer and setting."""
    layerwise.PRECISION = torch.float32  # in bfloat16 a last bit may turn a rounding
    found = {}
    for name, optim in OPTIMS.items():
        for options in settings:
            engine, topology = build(options, optim=optim)
            run(engine, topology, range(STEPS))
            found[f"{name} {options}"] = outcome(engine)
    return found if dist.get_rank() == 0 else {}


def resumed(folder: Path) -> dict[str, dict[str, Any]]:
    """Save in shards half-way, and go on whole."""
    layerwise.PRECISION = torch.float32
    found = {}
    for name, optim in OPTIMS.items():
        kept = Checkpoints(folder / name, Checkpoint(), global_batch=1, data="")
        engine, topology = build({"strategy": "FULL_SHARD"}, optim=optim)
        run(engine, topology, range(2))
        kept.save(2, engine)
        kept.wait()
        engine, topology = build({"strategy": "DDP"}, optim=optim)
        assert kept.restore(engine) == 2
        run(engine, topology, range(2, STEPS))
        found[name] = outcome(engine)
    return found if dist.get_rank() == 0 else {}


@pytest.mark.slow
def test_one_process_is_many_and_resumed(tmp_path):
    alone = on_ranks(trained, 1, [ALONE])[0]
    with Ranks(2) as ranks:
        many = ranks(trained, OVER_RANKS, timeout_s=300)[0]
        again = ranks(resumed, tmp_path, timeout_s=300)[0]
    for name in OPTIMS:
        wanted = alone[f"{name} {ALONE}"]
        found = {str(options): many[f"{name} {options}"] for options in OVER_RANKS}
        found["resumed"] = again[name]
        differences = {key: parameters_differ(value, wanted) for key, value in found.items()}
        print(name, differences)
        assert max(differences.values()) < 2e-5, (name, differences)


def averaged(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each setting errors of weights and average, and whether training saw neither."""
    found = []
    for options in settings:
        engine, topology = build(options, optim=OPTIMS["average"])
        plain, _ = build(options, optim=OPTIMS["AdamW"])
        inputs = {"images": torch.ones(2, 3, 32, 32), "noise": torch.rand(2, 16)}
        first = float(engine.evaluate("error", inputs))
        assert first == float(plain.evaluate("error", inputs))  # before a step there is no average
        for one in (engine, plain):
            run(one, topology, range(2))
        of_average = float(engine.evaluate("error", inputs))
        of_weights = float(plain.evaluate("error", inputs))
        losses = [run(one, topology, range(2, STEPS))[0] for one in (engine, plain)]
        found.append({"errors": (first, of_average, of_weights), "losses": losses})
    return found


def test_the_average_is_evaluated_and_the_weights_are_trained():
    for found in on_ranks(averaged, 2, [ALONE, *OVER_RANKS[:2]], timeout_s=300)[0]:
        assert len(set(found["errors"])) == 3
        assert found["losses"][0] == found["losses"][1]


def test_an_average_longer_than_the_run_is_refused():
    options = ["train.steps=100", "optim.warmup_steps=1"]
    with pytest.raises(InputError, match=r"1,000 steps, and train.steps is 100: .*at most 0\.99"):
        load("mae_vit_tiny", [*options, "optim.ema=0.999"])
    assert load("mae_vit_tiny", [*options, "optim.ema=0.99"]).optim.ema == 0.99


def test_it_moved():
    moved = on_ranks(trained, 1, [{"strategy": "FULL_SHARD"}])[0]
    names = list(OPTIMS)
    weights = [moved[f"{name} {OVER_RANKS[1]}"] for name in names]
    for number, ours in enumerate(weights):
        assert all(parameters_differ(ours, other) > 1e-6 for other in weights[number + 1 :])


@pytest.mark.parametrize(
    ("overrides", "backend", "offload", "rule"),
    [
        ({"name": "SGD", "betas": (0.5, 0.5)}, "native", False, "optim.betas has no effect"),
        ({"name": "AdamW", "momentum": 0.5}, "native", False, "one of SGD, LARS, Muon"),
        ({"name": "LARS"}, "deepspeed", False, "choose parallel.strategy=FULL_SHARD"),
        ({"name": "Muon"}, "native", True, "drop parallel.offload"),
        (
            {"name": "AdamW", "ema": 0.99},
            "deepspeed",
            False,
            "optim.ema=0.99 under parallel.backend=deepspeed",
        ),
    ],
)
def test_what_cannot_be_is_refused(overrides, backend, offload, rule):
    with pytest.raises(InputError, match=rule) as error:
        optimizer(overrides["name"]).refuse(Optim(**overrides), backend, offload)
    assert "\n" not in str(error.value)


def test_an_unknown_name_says_how_to_add_one():
    with pytest.raises(InputError, match=f"did you mean 'Muon'.*known: AdamW, SGD.*{GROUP}"):
        optimizer("Moun")


def test_a_saved_configuration_names_every_option_and_is_taken():
    written = load("mae_vit_tiny", ["optim.name=SGD"]).optim.model_dump()
    assert set(written) == set(Optim.model_fields)
    optimizer("SGD").refuse(Optim(**written), "native", False)  # raises nothing


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with an optimizer of its own, as pip would install it."""
    facts = tmp_path / "lion-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: lion\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{GROUP}]\nLion = lion:LION\n")
    (tmp_path / "lion.py").write_text(
        "from dataclasses import replace\n"
        "from hpcgeo.optimizers.table import ROWS\n"
        "LION = replace(ROWS[1], name='Lion')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    optimizers.cache_clear()
    yield
    optimizers.cache_clear()


def test_an_installed_package_adds_one(installed):
    assert isinstance(optimizer("Lion"), Optimizer)
    group = Group([torch.nn.Parameter(torch.ones(2))], False, False)
    assert optimizer("Lion").make([group], Optim(name="Lion"))
