"""Two jobs on one run folder where the file system keeps locks to one host."""

from pathlib import Path

import pytest

from tests.ranks import start, train, wait_for_step

LONG = ["train.steps=4000", "optim.warmup_steps=0"]


@pytest.mark.long
def test_a_lock_of_another_host_that_is_touched_holds(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (holder,) = start(folder, 1, *LONG)
    wait_for_step(holder, folder, 5)
    # As another host sees it: the file is there and touched, its lock is not.
    lock = folder / "lock"
    text = lock.read_text()
    assert text.startswith(f"process {holder.pid} on ")
    lock.unlink()
    lock.write_text(f"process {holder.pid} on elsewhere\n")
    code, said = train(folder, 1, *LONG)
    assert code == 2
    assert f"in use by process {holder.pid} on elsewhere, which still touches its lock" in said
    holder.kill()
    holder.communicate()
    code, said = train(folder, 1, *LONG, "launch.time_limit=0.001")
    assert code == 0 and "from step " in said, said
