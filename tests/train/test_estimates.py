"""What the dry run says a run will take, and of what it warns."""

import pytest

from hpcgeo.config import load
from hpcgeo.train.dry_run import dry_run


def summary(*options: str, machine: str = "frontier") -> str:
    return str(dry_run(load("mae_vit_15b", [f"launch.machine={machine}", *options]), 64))


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        (
            ["train.micro_batch=32", "train.accumulate=1"],
            "verdict       tight: 46.9 GiB allocated, up to 73.6 reserved, of 64 GiB",
        ),
        (["train.micro_batch=128", "train.accumulate=1"], "verdict       does not fit: 95.4 GiB"),
        (
            ["train.micro_batch=8", "train.accumulate=4"],
            "bound by communication: take a larger train.micro_batch",
        ),
        (["model.name=vit_15b_gated"], "head 105, hidden 13545: no multiple of 8"),
    ],
)
def test_warnings(options: list[str], warning: str) -> None:
    assert warning in summary(*options)


def test_the_recipe_is_neither_tight_nor_bound_by_communication() -> None:
    said = summary()
    assert said.startswith("verdict       fits: ") and "bound by" not in said


def test_what_is_not_known_is_not_said() -> None:
    assert "no measurement of cuda-node" in summary(machine="cuda-node")
    offloaded = summary("parallel.strategy=FULL_SHARD", "parallel.offload=true")
    assert "step time     not estimated" in offloaded and "time          not known" in offloaded
    said = summary(machine="local")
    assert "step time" not in said and "warning" not in said
    assert said.startswith("verdict       not known: local names no device")
    assert "time          not known: `hpcgeo-profile run` measures a step" in said
    assert "checkpoint    176 GB" in said
    assert "checkpoint    " not in summary("checkpoint.every=0")


def test_an_average_of_the_weights_is_in_the_checkpoint() -> None:
    assert "checkpoint    235 GB; 1 are kept" in summary("optim.ema=0.999", "checkpoint.keep=1")
