"""What encoders gained over a baseline and what it cost: by hand, and where it is not known."""

from pathlib import Path

import pytest

from hpcgeo.errors import InputError
from hpcgeo.machines import grid
from hpcgeo.scores import Pretraining, read
from hpcgeo_analysis import report
from hpcgeo_analysis.scores.board import board
from hpcgeo_analysis.scores.gains import energy, gains

SCORES = Path(__file__).parent / "golden" / "scores.jsonl"
TOOK = Pretraining(
    **{"objective": "gfm", "data": "d", "steps": 10, "samples": 640, "flops": 2e15, "kwh": None},
    **{"node_hours": 3.0, "nodes": 2, "device": "NVIDIA H100 80GB HBM3", "devices": 8},
)


def scores(*rows):
    """Return scores of encoders by task: name, what it took, and values with a sign."""
    first = next(score for score in read(SCORES) if score.whose == "encoder")
    return [
        first.model_copy(
            update={"encoder": {"encoder": name}, "fingerprint": name, "pretraining": took}
            | {"task": task, "value": value, "low": None, "high": None}
            | {"better": "lower" if task == "wealth" else "higher"}
        )
        for name, took, values in rows
        for task, value in values.items()
    ]


def cells(table):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_by_hand():
    both = scores(
        ("old", None, {"scenes": 0.5, "wealth": 20.0}),
        ("new", TOOK, {"scenes": 0.6, "wealth": 19.0, "crops": 0.1}),
    )
    table = gains(board(both), "old", grid("100"))
    assert table.head[-2:] == ["kg CO2", "ARP"]
    assert cells(table) == {
        "old": ["not known"] * 6 + ["+0.0%"],
        "new": ["gfm", "640", "2.00 P", "3", "at most 8.40", "at most 0.840", "+12.5%"],
    }  # 8 x 0.7 kW x 3 h / 2; (0.1 / 0.5 + 1 / 20) / 2
    first, second, third = table.notes
    assert "over scenes and wealth; left out, as not all have it: 1 column. Baseline: old." in first
    assert "no counter was read" in second and third == "CO2: 100 g/kWh (given; given)."


def test_what_counters_said_is_no_bound():
    table = gains(board(scores(("new", TOOK.model_copy(update={"kwh": 2.5}), {"scenes": 0.5}))))
    assert cells(table)["new"][4] == "2.50"
    assert table.head[-1] == "kWh" and table.notes == [
        "No ARP, the average relative performance: name with --baseline the row it is against."
    ]


@pytest.mark.parametrize("changed", [{"device": "an abacus"}, {"devices": None}])
def test_power_that_is_not_known(changed):
    assert energy(TOOK.model_copy(update=changed)) is None


def test_the_only_random_weights_are_the_baseline():
    some = [s for s in read(SCORES) if s.task == "landuse" and s.whose != "samples"]
    random = next(s for s in some if s.whose == "random")
    table = gains(board([s for s in some if s.whose == "encoder"] + [random]))
    assert f"Baseline: random weights of {random.encoder['model']}." in table.notes[0]


def test_without_either_there_is_no_table():
    assert gains(board(scores(("old", None, {"scenes": 0.5})))) is None


def test_refused(tmp_path):
    apart = scores(("old", None, {"scenes": 0.5}), ("new", None, {"crops": 0.5}))
    with pytest.raises(InputError, match="no column has a score above zero of it and of every"):
        gains(board(apart), "old")
    with pytest.raises(InputError, match=r"unknown row of scores 'dino'.*old"):
        gains(board(apart), "dino")
    with pytest.raises(InputError, match="--baseline and --grid: of scores, and none are given"):
        report.make([Path("profiles/records")], tmp_path / "out", baseline="old")
