"""DeepSpeed's ZeRO against one process, and its state against that of the native strategies.

`HPCGEO_ALL=1 pytest -s tests/parallel/test_deepspeed.py` prints the whole table of differences.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from hpcgeo.config import load as load_config
from hpcgeo.errors import InputError
from hpcgeo.objectives.mae.objective import forms
from hpcgeo.parallel.engines import engine_of
from hpcgeo.plan.memory import predict
from hpcgeo.strategies import strategy
from tests.distributed import ALL, Ranks, on_ranks
from tests.parallel.test_sameness import (
    STEPS,
    initial,
    low,
    named,
    parameters_differ,
    table,
    train_all,
)
from tests.parallel.training import BANDS, CHIP, MODEL, PATCHES, Answer, build, run, train, whole
from tests.processes import hpcgeo

pytestmark = pytest.mark.slow

needs_deepspeed = pytest.mark.skipif(
    not find_spec("deepspeed"), reason="needs pip install 'hpcgeo[deepspeed]'"
)

STAGES: list[dict[str, Any]] = [{"strategy": f"ZERO{stage}"} for stage in range(4)]
HPZ = {"strategy": "ZERO3_HPZ", "group_size": 2}
NATIVE, SHARDED = {"strategy": "DDP"}, {"strategy": "FULL_SHARD"}
#: Ranks, and the strategies of a run one after the other.
CHAIN: list[tuple[int, list[dict[str, Any]]]] = [
    (2, [STAGES[3], SHARDED, STAGES[1], NATIVE]),
    (4, [STAGES[2]]),
    (2, [SHARDED, STAGES[0], HPZ, STAGES[3] | {"offload": True}, SHARDED]),
]
LINK = 2 if ALL else 1  #: steps of each
LINKS = LINK * sum(len(strategies) for _, strategies in CHAIN)
SETTINGS: dict[int, list[tuple[dict[str, Any], int]]] = {
    2: table(STAGES)
    + [({"strategy": "ZERO3", "recompute": "selective"}, 1)]
    + [(options | {"offload": True}, 2) for options in STAGES[1:][: None if ALL else 1]],
    4: [(HPZ, 1), ({"strategy": "ZERO3", "recompute": 2}, 2)],
}


@pytest.fixture(scope="module")
def alone() -> dict[int, Answer]:
    """One process, by its number of steps; the longer one does not end as the shorter."""
    return {steps: on_ranks(train, 1, {"strategy": "DDP"}, steps)[0] for steps in (STEPS, LINKS)}


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[int, Ranks]]:
    """Groups of two ranks and of four, each of which imports DeepSpeed once."""
    with Ranks(2) as two, Ranks(4) as four:
        yield {2: two, 4: four}


@pytest.fixture(scope="module")
def answers(groups: dict[int, Ranks]) -> dict[tuple[int, str], Answer]:
    return {
        (ranks, named(setting)): answer
        for ranks, settings in SETTINGS.items()
        for setting, answer in zip(
            settings, groups[ranks](train_all, settings, timeout_s=3600)[0], strict=True
        )
    }


@needs_deepspeed
@pytest.mark.timeout(4000)
@pytest.mark.parametrize(
    ("ranks", "setting"),
    [(ranks, named(setting)) for ranks, settings in SETTINGS.items() for setting in settings],
)
def test_every_stage_trains_as_one_process(
    alone: dict[int, Answer], answers: dict[tuple[int, str], Answer], ranks: int, setting: str
) -> None:
    answer, expected = answers[ranks, setting], alone[STEPS]
    losses = max(abs(a - b) for a, b in zip(answer.losses, expected.losses, strict=True))
    parameters = parameters_differ(answer.parameters, expected.parameters)
    print(f"\n{ranks} ranks {setting}: loss {losses:.1e}, parameters {parameters:.1e}", end="")
    assert losses < 1e-6
    assert answer.norms == pytest.approx(expected.norms, rel=1e-4)
    assert parameters < 2e-5


@pytest.mark.long
@needs_deepspeed
def test_initial_weights_are_the_same_bits() -> None:
    settings = [*STAGES, {"strategy": "ZERO3_HPZ", "group_size": 3}]
    for same in on_ranks(initial, 3, settings, timeout_s=300):
        assert same == [True] * len(settings)


@pytest.mark.long
@needs_deepspeed
def test_bfloat16_follows_float32(alone: dict[int, Answer], groups: dict[int, Ranks]) -> None:
    """The arithmetic is bfloat16; weights, optimizer and sums of gradients are not."""
    reduced = [options | {"reduce_dtype": "bfloat16"} for options in STAGES[2:]]
    answers = groups[2](low, STAGES + reduced, timeout_s=300)[0]
    for answer in answers:
        assert answer.losses == pytest.approx(alone[STEPS].losses, abs=2e-2)
        assert answer.losses != pytest.approx(alone[STEPS].losses, abs=1e-6)
        assert all(value.dtype == np.float32 for value in answer.parameters.values())
    for safe, risky in zip(answers[2:4], answers[4:], strict=True):
        assert safe.losses[0] == risky.losses[0]  # the forward is the same
        assert safe.losses != risky.losses  # the sums are not


def legs(chain: list[dict[str, Any]], folder: str, first: int, steps: int) -> list[float]:
    """Train by one strategy after the other, each from the checkpoint of the one before."""
    losses = []
    for step, options in enumerate(chain):
        begin = first + step * steps
        engine, topology = build(options)
        if begin:
            state = engine.state()
            load(state, checkpoint_id=f"{folder}/{begin}")
            engine.load(state)
        losses += run(engine, topology, range(begin, begin + steps))[0]
        save(engine.state(), checkpoint_id=f"{folder}/{begin + steps}")
    return losses


@needs_deepspeed
def test_state_crosses_between_stages_backends_and_world_sizes(
    alone: dict[int, Answer], groups: dict[int, Ranks], tmp_path: Path
) -> None:
    """Parameters and moments: the losses are those of the run that nothing interrupted."""
    losses: list[float] = []
    for ranks, strategies in CHAIN:
        losses += groups[ranks](legs, strategies, str(tmp_path), len(losses), LINK)[0]
    assert losses == pytest.approx(alone[LINKS].losses, abs=1e-6)


def handed_over(folder: str, chain: list[dict[str, Any]]) -> list[tuple[bool, float]]:
    """Hand on bfloat16 training; return whether weights kept their bits, and each first loss."""
    found = []
    before: dict[str, Any] = {}
    for number, options in enumerate(chain):
        engine, topology = build(options, dtype="bfloat16")
        if number:
            state = engine.state()
            load(state, checkpoint_id=f"{folder}/{number}")
            engine.load(state)
        after = whole(engine.state())
        same = all(np.array_equal(value, after[name]) for name, value in before.items())
        found.append((same, run(engine, topology, [number])[0][0]))
        before = whole(engine.state())
        save(engine.state(), checkpoint_id=f"{folder}/{number + 1}")
    return found


@needs_deepspeed
@pytest.mark.long
def test_float32_weights_of_bfloat16_cross(
    alone: dict[int, Answer], groups: dict[int, Ranks], tmp_path: Path
) -> None:
    chain = [*STAGES[::-1], SHARDED, HPZ]
    found = groups[2](handed_over, str(tmp_path), chain, timeout_s=300)[0]
    assert all(same for same, _ in found)
    expected = alone[LINKS].losses[: len(chain)]
    assert [loss for _, loss in found] == pytest.approx(expected, abs=2e-2)


def looked_at(settings: list[dict[str, Any]]) -> list[tuple[list[float], Any]]:
    """Look at a reconstruction between steps."""
    found = []
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, BANDS, CHIP, CHIP, generator=generator)
    inputs = {"images": images, "noise": torch.rand(2, PATCHES, generator=generator)}
    for options in settings:
        engine, topology = build(options)
        losses = run(engine, topology, range(2))[0]
        _, picture = engine.evaluate("reconstruct", inputs)
        losses += run(engine, topology, range(2, 4))[0]
        found.append((losses, picture.numpy()))
    return found


@pytest.mark.long
@needs_deepspeed
def test_evaluation_between_steps_changes_nothing(
    alone: dict[int, Answer], groups: dict[int, Ranks]
) -> None:
    (_, expected), *found = groups[2](looked_at, [NATIVE, *STAGES, HPZ])[0]
    for losses, picture in found:
        assert losses == pytest.approx(alone[LINKS].losses[:4], abs=1e-6)
        np.testing.assert_allclose(picture, expected, atol=1e-5)


def poisoned(settings: list[tuple[dict[str, Any], str]]) -> list[tuple[float, list[float]]]:
    """Give one rank a sample that is not finite, between two good steps."""
    found = []
    for options, dtype in settings:
        engine, topology = build(options, dtype=dtype)
        losses = run(engine, topology, [0])[0]
        images = torch.randn(2, BANDS, CHIP, CHIP)
        if topology.rank == 1:
            images[0, 0, 0, 0] = torch.inf
        engine.forward_backward([{"images": images, "noise": torch.rand(2, PATCHES)}])
        norm = engine.step(1e-3).item()
        found.append((norm, losses + run(engine, topology, [1, 2])[0]))
    return found


@needs_deepspeed
def test_a_norm_that_is_not_finite_skips_the_step(
    alone: dict[int, Answer], groups: dict[int, Ranks]
) -> None:
    settings = [(options, "float32") for options in STAGES]
    settings += [(options, "bfloat16") for options in STAGES[1:3]]
    for answers in groups[2](poisoned, settings):
        for (_, dtype), (norm, losses) in zip(settings, answers, strict=True):
            assert not np.isfinite(norm)
            tolerance = 1e-6 if dtype == "float32" else 2e-2
            assert losses == pytest.approx(alone[LINKS].losses[:3], abs=tolerance)


def held(settings: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return the bytes of float32 weights and of moments of this rank."""
    found = []
    for options in settings:
        state = build(options)[0].state()
        moments = [value for key, value in state["optimizer"].items() if "exp_avg" in key]
        found.append(
            tuple(
                sum(segment.flat.numel() * segment.flat.element_size() for segment in segments)
                for segments in (state["model"].values(), moments)
            )
        )
    return found


@needs_deepspeed
def test_ranks_hold_what_is_predicted(groups: dict[int, Ranks]) -> None:
    answers = groups[2](held, STAGES)
    for options, *ranks in zip(STAGES, *answers, strict=True):
        config = load_config("mae_vit_tiny", [f"parallel.strategy={options['strategy']}"])
        closed = forms(MODEL, BANDS, config.data.chip, 0.75)
        predicted = predict(closed, config.parallel, config.train, world_size=2)
        weights, moments = (sum(column) / 2 for column in zip(*ranks, strict=True))
        assert moments == pytest.approx(predicted.optimizer, rel=1e-3)
        assert weights == pytest.approx(predicted.optimizer / 2, rel=1e-3)


def gathered(options: dict[str, Any]) -> tuple[int, list[int]]:
    """Return a bound of what may be gathered, and what is after forward and backward of units."""
    engine, topology = build(options)
    run(engine, topology, range(2))  # DeepSpeed learns the order of modules in the first step
    objective = engine.objective  # type: ignore[attr-defined]
    units = [unit for stack in objective.stacks() for unit in stack]
    sizes = [sum(parameter.ds_numel for parameter in unit.parameters()) for unit in units]
    whole = sum(parameter.ds_numel for parameter in objective.parameters())
    live: list[int] = []

    def look(*_: Any) -> None:
        live.append(sum(parameter.numel() for parameter in objective.parameters()))

    for unit in units:
        unit.register_forward_hook(look)
        unit.register_full_backward_hook(look)
    run(engine, topology, [2])
    look()
    return 3 * max(sizes) + whole - sum(sizes), live


@needs_deepspeed
def test_a_unit_is_whole_only_around_its_use(groups: dict[int, Ranks]) -> None:
    for bound, live in groups[2](gathered, {"strategy": "ZERO3"}):
        assert max(live) <= bound
        assert live[-1] == 0


@needs_deepspeed
@pytest.mark.long
def test_one_process_needs_no_launcher_and_goes_on_as_native(tmp_path: Path) -> None:
    options = [
        f"run.dir={tmp_path / 'run'}",
        "data.chip=32",
        "train.steps=3",
        "optim.warmup_steps=1",
    ]
    for name, limit in (("ZERO3", 0.01), ("FULL_SHARD", 0.01), ("ZERO1", None)):
        end = [f"parallel.strategy={name}", *([f"launch.time_limit={limit}"] if limit else [])]
        process = hpcgeo("train", "mae_vit_tiny", *options, *end)
        assert process.returncode == 0, process.stderr
        assert not any(word in process.stdout + process.stderr for word in ("eepSpeed", "arning"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.delitem(sys.modules, "hpcgeo.parallel.deepspeed", raising=False)
    with pytest.raises(InputError, match=r"pip install 'hpcgeo\[deepspeed\]'"):
        engine_of(strategy("ZERO2"))


def compiled(options: dict[str, Any]) -> list[list[float]]:
    return [run(*build(options | {"compile": compile}), range(2))[0] for compile in (False, True)]


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++ on a CPU")
@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "recompute"),
    [(name, recompute) for name in ("ZERO2", "ZERO3") for recompute in ("none", "full")],
)
def test_compiled_units_compute_the_same(
    groups: dict[int, Ranks], name: str, recompute: str
) -> None:
    options = {"strategy": name, "recompute": recompute}
    eager, quick = groups[2](compiled, options, timeout_s=280)[0]
    assert quick == pytest.approx(eager, abs=1e-6)
