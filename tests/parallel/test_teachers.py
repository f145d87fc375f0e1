"""Objectives with a teacher: one process = every strategy, whoever holds the teacher, and how.

`HPCGEO_ALL=1 pytest -s tests/parallel/test_teachers.py` prints the whole table of differences.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from torch import Tensor, nn

from hpcgeo.objectives.contrastive.network import MoCo
from hpcgeo.objectives.contrastive.objective import ContrastiveOptions
from hpcgeo.objectives.dino.network import DINO
from hpcgeo.objectives.dino.objective import DinoOptions
from hpcgeo.objectives.gfm.network import GFM
from hpcgeo.objectives.gfm.objective import GfmOptions
from hpcgeo.objectives.objective import Material
from hpcgeo.optimizers.layerwise import local
from hpcgeo.parallel.engine import Inputs
from hpcgeo.zoo import architecture
from tests.distributed import ALL, Ranks, on_ranks
from tests.parallel.training import BANDS, CHIP, MODEL, Answer, build, masked, run, whole

pytestmark = pytest.mark.slow

STEPS = 10 if ALL else 3
SWIN = architecture("swin_nano")
SMALL = {"hidden": 16, "features": 8, "momentum": 0.9}


def gfm(student: Any, teacher: Any, **told: Any) -> nn.Module:
    told = {"weights": Path("teacher")} | told if "momentum" not in told else told
    options = GfmOptions(mask_cell=8, teacher=told)  # type: ignore[arg-type]
    return GFM(Material(student, BANDS, (CHIP, CHIP)), teacher, options)


def dino(student: Any) -> nn.Module:
    options = DinoOptions(prototypes=32, local_views=2, local_size=CHIP // 2, **SMALL)  # type: ignore[arg-type]
    return DINO(Material(student, BANDS, (CHIP, CHIP)), options)


def moco(student: Any) -> nn.Module:
    return MoCo(Material(student, BANDS, (CHIP, CHIP)), ContrastiveOptions(**SMALL))  # type: ignore[arg-type]


def views(images: Tensor, noise: Tensor) -> Inputs:
    half = CHIP // 2
    large = images, images.flip(3) + noise[:, :1, None, None]
    return {"views": (*large, images[..., :half, :half], images[..., half:, half:])}


def two_views(images: Tensor, noise: Tensor) -> Inputs:
    return {"views": views(images, noise)["views"][:2]}


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor, Tensor], Inputs]]] = {
    "gfm": (partial(gfm, MODEL, MODEL, size=48), masked),
    "gfm replicated": (partial(gfm, MODEL, architecture("vit_nano"), replicate=True), masked),
    "gfm moving": (partial(gfm, MODEL, MODEL, momentum=0.9), masked),
    "gfm swin": (partial(gfm, SWIN, SWIN), masked),
    "dino": (partial(dino, MODEL), views),
    "contrastive": (partial(moco, MODEL), two_views),
}
DDP, FULL, TENSOR = (
    {"strategy": "DDP"},
    {"strategy": "FULL_SHARD"},
    {"strategy": "FULL_SHARD", "tensor": 2},
)
OTHERS: list[dict[str, Any]] = [
    {"strategy": "NO_SHARD"},
    {"strategy": "SHARD_GRAD_OP"},
    {"strategy": "HYBRID_SHARD", "group_size": 2},
    {"strategy": "FULL_SHARD", "recompute": "full"},
]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((case, options) for case in CASES for options in (FULL, *((DDP, *OTHERS) if ALL else ()))),
    *(() if ALL else (("gfm", DDP), ("dino", OTHERS[2]))),
    *((case, TENSOR) for case in ("gfm", "gfm replicated", "gfm moving") if ALL or case == "gfm"),
]


def named(setting: tuple[str, dict[str, Any]]) -> str:
    case, options = setting
    return " ".join([case, *(f"{k}={v}" for k, v in options.items())])


def train(case: str, options: dict[str, Any]) -> tuple[Answer, int]:
    """Train; return the answer, and the bytes of the teacher's parameters on this rank."""
    network, inputs = CASES[case]
    engine, topology = build(options, network=network)
    losses, norms = run(engine, topology, range(STEPS), inputs=inputs)
    teacher = engine.objective.teacher.parameters()
    size = sum(local(p).numel() * local(p).element_size() for p in teacher)
    held = engine.holdings()
    assert {id(p) for p in held["frozen"]}.isdisjoint(map(id, held["parameters"]))
    if not topology.strategy.name.startswith("ZERO"):
        assert sum(local(p).nbytes for p in held["frozen"]) == size
    return Answer(losses, norms, whole(engine.state())), size


def all_of(settings: list[tuple[str, dict[str, Any]]]) -> list[tuple[Answer, int]]:
    found = [train(*setting) for setting in settings]
    return found if dist.get_rank() == 0 else []


@pytest.fixture(scope="module")
def alone() -> dict[str, tuple[Answer, int]]:
    settings = [(case, DDP) for case in CASES]
    return dict(zip(CASES, on_ranks(all_of, 1, settings, timeout_s=600)[0], strict=True))


@pytest.fixture(scope="module")
def four() -> Iterator[Ranks]:
    with Ranks(4) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def answers(four: Ranks) -> dict[str, tuple[Answer, int]]:
    found = four(all_of, SETTINGS, timeout_s=3600)[0]
    return dict(zip(map(named, SETTINGS), found, strict=True))


@pytest.mark.timeout(4000)
@pytest.mark.parametrize("setting", SETTINGS, ids=named)
def test_every_strategy_trains_as_one_process(
    alone: dict[str, tuple[Answer, int]],
    answers: dict[str, tuple[Answer, int]],
    setting: tuple[str, dict[str, Any]],
) -> None:
    """A teacher that is sharded is a quarter of one that is whole, and is counted apart."""
    case, options = setting
    (answer, size), (one, all_bytes) = answers[named(setting)], alone[case]
    losses = max(abs(a - b) for a, b in zip(answer.losses, one.losses, strict=True))
    print(f"\n{named(setting)}: loss {losses:.1e}, teacher {size} of {all_bytes} bytes", end="")
    assert losses < 1e-6
    assert answer.norms == pytest.approx(one.norms, rel=1e-4)
    for name, value in answer.parameters.items():
        if name.startswith("teacher."):
            assert np.abs(value - one.parameters[name]).max() < 1e-5, name
    shards = {"FULL_SHARD": 4, "SHARD_GRAD_OP": 4, "HYBRID_SHARD": 2}.get(options["strategy"], 1)
    if "replicated" in case or "tensor" in options:
        return
    assert size == pytest.approx(all_bytes / shards, rel=0.01)  # uneven rows


def test_a_replicated_teacher_is_whole_on_every_rank(
    alone: dict[str, tuple[Answer, int]], answers: dict[str, tuple[Answer, int]]
) -> None:
    assert answers["gfm replicated strategy=FULL_SHARD"][1] == alone["gfm replicated"][1]


def test_a_frozen_teacher_stays_as_it_is_and_a_moving_one_follows(
    alone: dict[str, tuple[Answer, int]],
) -> None:
    for case, moves in (("gfm", False), ("gfm moving", True), ("dino", True)):
        before = on_ranks(beginning, 1, case)[0]
        after = alone[case][0].parameters
        moved = any((before[name] != after[name]).any() for name in before)
        assert moved == moves, case


def beginning(case: str) -> dict[str, Any]:
    parameters = whole(build(DDP, network=CASES[case][0])[0].state())
    return {name: value for name, value in parameters.items() if name.startswith("teacher.")}


@pytest.mark.parametrize("case", ["gfm"])
def test_under_zero(alone: dict[str, tuple[Answer, int]], case: str) -> None:
    pytest.importorskip("deepspeed")
    settings = [(case, {"strategy": f"ZERO{stage}"}) for stage in ((0, 1, 2, 3) if ALL else (1, 3))]
    for (_, options), (answer, _) in zip(
        settings, on_ranks(all_of, 2, settings, timeout_s=600)[0], strict=True
    ):
        losses = [abs(a - b) for a, b in zip(answer.losses, alone[case][0].losses, strict=True)]
        assert max(losses) < 1e-5, options


def test_a_moving_average_under_zero_is_refused() -> None:
    pytest.importorskip("deepspeed")
    with pytest.raises(AssertionError, match="needs DDP or a strategy of FSDP2"):
        on_ranks(all_of, 1, [("dino", {"strategy": "ZERO1"})])
