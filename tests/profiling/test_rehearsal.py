"""A step of the real engine without values: its collectives and its memory against closed forms."""

import json
import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hpcgeo.config import RunConfig, load
from hpcgeo.errors import InputError
from hpcgeo.plan.memory import predict
from hpcgeo.strategies import strategy
from hpcgeo.workloads.choice import workload_of
from tests.processes import hpcgeo

WORLD = 64


def planned(*options: str) -> RunConfig:
    return load("mae_vit_tiny", ["data.path=synthetic", "train.micro_batch=4", *options])


def rehearsed(options: list[str]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Rehearse in a process of its own: a process group is one of a process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_rehearse, (options,))


def _rehearse(options: list[str]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    from hpcgeo.profiling.rehearsal import rehearse

    done = rehearse(planned(*options), WORLD)
    return [tuple(call) for call in done.calls], done.memory.model_dump()


def expected(run: RunConfig) -> Counter[tuple[str, int]]:
    """Return bytes by collective and ranks, of all units together, as a plan counts them.

    The last unit of forward is not gathered again; float32 gradients, as the recipe reduces them.
    """
    forms = workload_of(run).forms
    assert forms
    chosen = strategy(run.parallel.strategy)
    layout = chosen.layout(WORLD, dict(run.parallel))
    found: Counter[tuple[str, int]] = Counter()
    for one in chosen.collectives:
        ranks = {
            "world": layout.data_parallel,
            "group": layout.dp_shard,
            "replicas": layout.dp_replicate,
        }[one.over]
        size = 4 * forms.parameters / (layout.dp_shard if one.over == "replicas" else 1)
        if one.name == "all_gather" and one.when == "backward":
            size -= 4 * forms.root_parameters  # the root is kept
        found[one.name, ranks] += round(size)
    return found


@pytest.mark.parametrize(
    "options",
    [
        ["parallel.strategy=HYBRID_SHARD", "parallel.group_size=8"],
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                ["parallel.strategy=NO_SHARD"],
                ["parallel.strategy=SHARD_GRAD_OP"],
                ["parallel.strategy=FULL_SHARD"],
                ["parallel.strategy=HYBRID_SHARD_ZERO2", "parallel.group_size=8"],
            )
        ),
    ],
    ids=str,
)
def test_collectives_and_memory_are_those_of_the_plan(options: list[str]) -> None:
    """Bytes of every collective over its ranks to 3 %: shards are padded to whole rows."""
    run = planned(*options)
    calls, memory = rehearsed(options)
    seen: Counter[tuple[str, int]] = Counter()
    for collective, ranks, size in calls:
        seen[collective, ranks] += size
    wanted = expected(run)
    assert set(seen) == set(wanted)
    for kind, size in wanted.items():
        assert seen[kind] == pytest.approx(size, rel=0.03), kind
    forms = workload_of(run).forms
    assert forms
    form = predict(forms, run.parallel, run.train, WORLD, run.optim)
    assert memory["parameters_bytes"] == pytest.approx(form.parameters, rel=0.05)
    assert memory["optimizer_bytes"] == pytest.approx(form.optimizer, rel=0.05)


@pytest.mark.slow
def test_the_order_of_a_step() -> None:
    """FULL_SHARD: gathers of forward, then a unit gathered before the gradients of the last."""
    calls, _ = rehearsed(["parallel.strategy=FULL_SHARD"])
    kinds = [call[0] for call in calls]
    first = kinds.index("reduce_scatter")
    assert set(kinds[:first]) == {"all_gather"} and first > 4 + 2
    assert kinds[-1] == "reduce_scatter"


def test_what_exchanges_out_of_sight_is_refused() -> None:
    from hpcgeo.profiling.rehearsal import rehearse

    for name in ("DDP", "ZERO3"):
        with pytest.raises(InputError, match=f"{name} cannot be rehearsed"):
            rehearse(planned(f"parallel.strategy={name}"), WORLD)


def test_the_command_writes_every_collective(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    words = ["train", "mae_vit_tiny", "parallel.strategy=FULL_SHARD", "--dry", "--ranks", "128"]
    done = hpcgeo(*words, "--collectives", str(file))
    assert done.returncode == 0, done.stderr
    assert "rehearsed     " in done.stdout and "x all_gather     over   128 ranks" in done.stdout
    calls = [json.loads(line) for line in file.read_text().splitlines()]
    assert {call["ranks"] for call in calls} == {128}
    wrong = hpcgeo("train", "mae_vit_tiny", "--collectives", str(file))
    assert wrong.returncode == 2 and "no effect without --dry" in wrong.stderr
