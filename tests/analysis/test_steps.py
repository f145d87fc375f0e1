"""Where the time of a step goes, and what switching something off saves."""

import pytest

from hpcgeo_analysis import steps
from hpcgeo_analysis.points import points
from hpcgeo_analysis.report import render


def decomposition(records):
    return steps.decomposition(points(records))


def test_exposed_communication_is_named(whole):
    text = render([whole("DDP", 1, 0.1), whole("DDP", 4, 0.1)])["report.md"].decode()
    # 3 x 10 ms of 100 ms
    assert (
        "- Exposed communication takes up to 30 % of a step: DDP on 4 devices; least is 0 %, DDP "
        "on 1." in text
    )
    assert "| DDP | 4 | 100 ms | 65.0 ms (65 %) | 30.0 ms (30 %) |" in text


def test_shares_are_of_the_step(whole):
    figure = render([whole("DDP", 2, 0.1), whole("A", 2, 0.1)])["report.md"].decode()
    assert "percent of a step. DDP · 2: compute 85, exposed communication 10, idle 5" in figure


def test_without_a_trace_the_bookkeeping_speaks(make):
    records = [make(devices=1, comm_s=0.0), make(devices=2, comm_s=0.03, data_wait_s=0.001)]
    text = render(records)["report.md"].decode()
    assert (
        "- Collectives run during up to 30 % of a step: DDP on 2 devices (least anywhere: 0 %)."
        in text
    )
    assert "Waiting for data" not in text


def test_what_communication_and_reading_cost(make):
    records = [
        make(devices=4, step_s=0.2),
        make(devices=4, step_s=0.15, communication="off"),
        make(devices=4, step_s=0.25, data="shards"),
        make(devices=4, step_s=0.2, data="held"),
    ]
    block = decomposition(records)
    assert block.sentences == [
        "Communication that hurts is up to 25 % of a step (vit_tiny, DDP on 4 devices), by the "
        "step with communication off in 1 pair.",
        "Reading is up to 20 % of a step (vit_tiny, DDP on 4 devices), by the step with data "
        "held in 1 pair.",
    ]
    assert [row[7].text for row in block.tables[0].rows] == ["50.0 ms", "50.0 ms"]


def test_a_difference_within_the_spread_is_not_claimed(make):
    block = decomposition([make(step_s=0.1), make(step_s=0.0995, communication="off")])
    assert block.sentences == [
        "A step with communication off is not shorter beyond the spread in 1 pair: no "
        "communication that hurts is claimed."
    ]


@pytest.mark.parametrize("other", [{"dtype": "bfloat16"}, {"micro_batch": 16}, {"devices": 2}])
def test_a_pair_differs_in_one_thing_alone(make, other):
    assert decomposition([make(), make(communication="off", **other)]).empty
