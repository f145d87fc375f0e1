"""`hpcgeo list`: every fact is in the table and in the JSON, and a login node needs no torch."""

import json
import subprocess
import sys

import pytest

from hpcgeo.cli.options import options
from hpcgeo.config import recipes
from hpcgeo.data.readers.benchmarks.facts import benchmarks
from hpcgeo.data.readers.table import READERS
from hpcgeo.evaluate.protocols.table import PROTOCOLS
from hpcgeo.kinds.table import kinds
from hpcgeo.machines import machines
from hpcgeo.objectives.table import objectives
from hpcgeo.optimizers.table import optimizers
from hpcgeo.sensors import sensors
from hpcgeo.strategies import strategies
from hpcgeo.tables import read
from hpcgeo.zoo import architectures, models
from tests.processes import hpcgeo

NAMES = {
    "models": lambda: [*architectures()],
    "machines": machines,
    "strategies": strategies,
    "optimizers": optimizers,
    "recipes": recipes,
    "sensors": sensors,
    "readers": lambda: [*READERS, *benchmarks()],
    "benchmarks": benchmarks,
    "objectives": objectives,
    "options": lambda: dict.fromkeys(option.key for option in options()),
    "kinds": kinds,
    "protocols": lambda: PROTOCOLS,
    "tasks": lambda: read("sustainbench")["tasks"],
}


def listed(*words: str) -> str:
    done = hpcgeo("list", *words)
    done.check_returncode()
    return done.stdout


@pytest.mark.parametrize("kind", NAMES)
def test_all_rows_are_in_table_and_json(kind):
    rows = json.loads(listed(kind, "--json"))
    names = list(NAMES[kind]())
    assert list(dict.fromkeys(next(iter(row.values())) for row in rows)) == names
    table = listed(kind)
    for name in names:
        assert f" {name} " in table
    assert "…" not in table


def test_models_are_exact():
    [base] = [row for row in json.loads(listed("models", "--json")) if row["model"] == "vit_base"]
    assert base["parameters"] == models()["vit_base"].parameters(3)
    assert base["forward_flops"] == models()["vit_base"].forward_flops(3, (224, 224))
    assert f"{base['parameters']:,}" in listed("models")


def test_every_recipe_says_what_it_is():
    for row in json.loads(listed("recipes", "--json")):
        assert len(row["description"]) > 20, row


def test_a_reader_says_its_layout():
    layouts = {row["reader"]: row["layout"] for row in json.loads(listed("readers", "--json"))}
    assert all(len(layout) > 20 for layout in layouts.values()), layouts
    assert "brick kiln" in layouts["brick_kilns"]


def test_an_unknown_kind_is_bad_input():
    done = hpcgeo("list", "modles")
    assert done.returncode == 2 and "sensors" in done.stderr


def test_no_torch_but_for_kinds_of_task_and_protocols():
    program = (
        "import sys, hpcgeo.cli.list as l; l.TABLES.pop('kinds'); "
        "l.TABLES.pop('protocols'); "
        "[rows() for _, rows in l.TABLES.values()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_rows_by_prefix():
    rows = json.loads(listed("options", "train.hang", "--json"))
    assert [row["key"] for row in rows] == ["train.hang_timeout_s"]
    done = hpcgeo("list", "options", "trian.")
    assert done.returncode == 2 and "no row begins so" in done.stderr
