"""No room on the disk, no memory: one line, and a resume where it can be one."""

import re
import resource
import time
from pathlib import Path

import pytest

from tests.ranks import end, metrics, start, tell, train, wait_for_step

LONG = ["train.steps=4000", "optim.warmup_steps=0", "train.eval_every=null"]


def test_a_full_disk_during_metrics(small_disk: Path) -> None:
    run = small_disk / "run"
    ranks = start(run, 2, *LONG, "checkpoint.every=20")
    wait_for_step(ranks[0], run, 21)
    began = time.monotonic()
    with pytest.raises(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    said = end(ranks)
    tell("full disk", said[0], began, ranks[0].returncode)
    assert [rank.returncode for rank in ranks] == [1, 1]
    assert "is full (No space left on device); make room" in said[0]
    assert "lost the other ranks" in said[1]
    assert not any("Traceback" in text for text in said), said[0]
    (small_disk / "filler").unlink()
    code, again = train(run, 2, *LONG, "launch.time_limit=0.001")
    assert code == 0, again
    assert "from step 20 of" in again
    assert [row["step"] for row in metrics(run)] == list(range(1, 22))


def test_no_memory_on_one_rank(tmp_path: Path) -> None:
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        ranks = start(folder, 2, *LONG, "train.micro_batch=128")
        wait_for_step(ranks[0], folder, 2)
        began = time.monotonic()
        # Less than it holds: nothing more is mapped.
        resource.prlimit(ranks[1].pid, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
        said = end(ranks)
        assert ranks[0].returncode == 1 and "lost the other ranks" in said[0]
        if ranks[1].returncode == 1:
            assert re.search(r"; first failed rank 1 on \S+: .* step \d+: out of memory", said[0])
            break
        # It met the C library first, which finds no memory for a thread and ends the process.
        assert "cannot allocate memory" in said[1]
    tell("out of memory", said[1], began, ranks[1].returncode)
    assert "out of memory (" in said[1] and "smaller train.micro_batch" in said[1]
    assert not any("Traceback" in text for text in said), said
