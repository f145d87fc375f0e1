"""What a run keeps of its samples is what its data sets say, and comes back as it was."""

import pytest

from hpcgeo.data.labelled import open_tasks
from hpcgeo.errors import InputError
from hpcgeo.options import Task
from hpcgeo.workloads.preparation import (
    NAME,
    Preparation,
    keep_preparation,
    kept_preparation,
    preparation_of,
)

KINDS = ("tiles", "pairs", "scenes", "series", "table")


@pytest.fixture(scope="module")
def preparation() -> tuple[dict, Preparation]:
    sets = {name: open_tasks("generated", name, split="train", patch=4) for name in KINDS}
    tasks = {name: Task(reader="generated", path=name, patch=4) for name in KINDS}
    return sets, preparation_of(sets, tasks)


def test_it_says_what_the_data_sets_say(preparation):
    sets, found = preparation
    for name, part in sets.items():
        task = found.tasks[name]
        assert (task.target, task.channels) == (part.target, part.channels)
        moments = {band.channel: (band.mean, band.std) for band in task.bands}
        assert moments == {channel: pytest.approx(m) for channel, m in part.moments.items()}
    tiles, pairs, table = (found.tasks[name] for name in ("tiles", "pairs", "table"))
    assert (tiles.chip, tiles.dates, tiles.patch) == ((32, 32), 1, 4)
    assert tiles.gsd_m == (0.3, 0.3) and tiles.timed and tiles.placed
    assert pairs.dates == 2 and table.chip is None


def test_it_comes_back_as_it_was(preparation, tmp_path):
    _, found = preparation
    assert kept_preparation(tmp_path) is None
    keep_preparation(found, tmp_path)
    assert kept_preparation(tmp_path) == found
    (tmp_path / NAME).write_text("{}")
    with pytest.raises(InputError, match="not as it was written"):
        kept_preparation(tmp_path)
