"""What the host waits for in a step: nothing, but where numbers are reported."""

import json
from pathlib import Path

import pytest

from tests.device.commands import GPNA, GPU, MAE, start

pytestmark = GPU

#: Of a mixture: ranks agree on the number of passes, whose data are then cut accordingly.
PASSES = {"read": 1}
STEPS = ("train.steps=8", "train.log_every=4")


@pytest.mark.parametrize(
    ("recipe", "options", "expected"),
    [
        pytest.param(MAE, (), {}, id="mae"),
        pytest.param(MAE, ("train.accumulate=2", "optim.clip=1.0"), {}, id="accumulate"),
        pytest.param(MAE, ("parallel.strategy=FULL_SHARD",), {}, id="fsdp"),
        pytest.param(MAE, ("data.workers=1",), {}, id="readers"),
        pytest.param(MAE, ("optim.name=SGD",), {"read": 1}, id="another-optimizer"),
        pytest.param(GPNA, (), PASSES, id="mixture"),
    ],
)
def test_steps_wait_where_they_are_reported(
    tmp_path: Path, recipe: tuple[str, ...], options: tuple[str, ...], expected: dict[str, int]
) -> None:
    words = (*recipe, *options, *STEPS, f"run.dir={tmp_path / 'run'}")
    done = start(*words, module="tests.device.waits")
    assert done.returncode == 0, done.stdout
    [steps] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[{")]
    print(f"\n{recipe[0]} {' '.join(options)}: {steps}", end="")
    assert [steps[i] for i in (2, 4, 5, 6)] == [expected] * 4  # the first ones fill caches
    assert all(sum(steps[i].values()) <= sum(expected.values()) + 3 for i in (3, 7))
