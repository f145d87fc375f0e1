"""Options declare themselves: described, listed, marked in one place, in docs/options.md."""

import os
from itertools import groupby
from pathlib import Path

import pytest

from hpcgeo.cli.options import options
from hpcgeo.config import RunConfig, load
from hpcgeo.options import OptionGroup
from hpcgeo.records import options as unlike
from hpcgeo.strategies import IDLE, strategies
from tests.processes import hpcgeo

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
HEAD = "# Options\n\nWritten by `make golden` from the declarations in the code; never edited.\n\n"


def test_every_option_is_described():
    assert [option.key for option in options() if len(option.description) < 10] == []


def test_the_page_is_current():
    """Regenerate with HPCGEO_GOLDEN=1, and read the difference."""
    caption, _, header, rule, *rows = hpcgeo("list", "options", "--markdown").stdout.splitlines()
    text = HEAD + caption + "\n"
    for section, group in groupby(rows, lambda row: row.split()[1].partition(".")[0]):
        text += "\n".join([f"\n## {section}\n", header, rule, *group, ""])
    if os.environ.get("HPCGEO_GOLDEN"):
        PAGE.write_text(text, "utf-8")
    assert text == PAGE.read_text("utf-8")


def keys(part: OptionGroup, prefix: str = "") -> set[str]:
    """Return the dotted keys of a resolved configuration; a task is called NAME."""
    found = set()
    for name, value in part:
        entries = value.values() if isinstance(value, dict) else []
        for one in entries:
            found |= keys(one, f"{prefix}{name}.NAME.")
        if isinstance(value, OptionGroup):
            found |= keys(value, f"{prefix}{name}.")
        elif not entries:
            found.add(prefix + name)
    return found


@pytest.mark.parametrize("recipe", ["mae_vit_tiny", "gpna_tiny"])
def test_every_option_of_a_run_is_listed(recipe):
    said = ["data.tasks={a: {reader: scenes, path: .}}"] if recipe == "gpna_tiny" else []
    assert keys(load(recipe, ["run.dir=x", *said])) <= {option.key for option in options()}


def test_marks_reach_who_asks():
    """What a record leaves out of a comparison is what is marked neutral, also by objectives."""
    listed = {option.key for option in options()}
    neutral = {option.key for option in options() if option.neutral}
    nested: dict[str, object] = {}
    for key in listed:
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = 1
    assert listed - unlike(nested).keys() == neutral
    assert {"seed", "train.steps", "launch.machine"} <= neutral
    assert set(IDLE) == {name for row in strategies().values() for name in row.takes}
    free = {option.key for option in options() if option.resume}
    assert {"run.dir", "parallel.strategy", "checkpoint.every", "train.steps"} <= free
    assert not free & {"seed", "optim.base_lr", "train.dtype"}


def test_sections_of_a_run():
    assert {option.key.partition(".")[0] for option in options()} == set(RunConfig.model_fields)
