"""The map of a machine: its cells, and what it says in words and letters."""

import re

import pytest
from typer.testing import CliRunner

from hpcgeo.cli.plan import app
from hpcgeo.errors import InputError
from hpcgeo.machines import machine
from hpcgeo.plan.sizes import PlanCell, cells
from hpcgeo_analysis.plan_map import draw, title


@pytest.fixture(scope="module")
def found() -> list[PlanCell]:
    return list(cells(machine("frontier"), ((768, 12), (10240, 80)), (1, 64)))


def test_cells(found: list[PlanCell]) -> None:
    """A tenth of a billion parameters shares little on 64 nodes; 100 billion do not fit one."""
    assert [(cell.nodes, round(cell.parameters / 1e9, 1)) for cell in found] == [
        *((1, 0.1), (64, 0.1), (1, 100.7), (64, 100.7))
    ]
    few, many, wall, large = found
    assert wall.best is None and wall.cost is None and wall.lost is None
    assert few.best and many.best and large.best
    assert many.lost is not None and many.lost > 0.5, "512 ranks share what each could hold"
    assert few.cost and many.cost and few.cost.node_hours < many.cost.node_hours
    assert large.cost and large.cost.kwh


def test_the_drawing_names_every_layout_and_the_wall(found: list[PlanCell]) -> None:
    drawn = draw(found, "Frontier")
    assert drawn.startswith("<svg") and title(found).replace("%", "%") in drawn
    for cell in found:
        if cell.best:
            assert f">{cell.best.layout}</text>" in drawn
            assert f"{cell.best.images_per_s:,.0f} images/s" in drawn
    assert drawn.count(">\N{MULTIPLICATION SIGN}</text>") == 1
    assert not re.search(r"nan|None", drawn)


def test_a_map_needs_a_machine_whose_device_is_known() -> None:
    for words, rule in (([], "needs --machine"), (["--machine", "local"], "no device")):
        wrong = CliRunner().invoke(app, ["--map", "map.svg", *words]).exception
        assert isinstance(wrong, InputError) and rule in str(wrong)
