"""Where the time of a step goes, and what switching something off saves."""

import pytest

from hpcgeo.measured import Spread
from hpcgeo_analysis.points import points
from hpcgeo_analysis.report import render
from hpcgeo_analysis.sections import steps


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
        make(devices=4, step_s=0.2, data="cached"),
    ]
    block = decomposition(records)
    assert block.sentences == [
        "Communication that hurts is up to 25 % of a step (vit_tiny, DDP on 4 devices), by the "
        "step with communication off in 1 pair.",
        "Reading is up to 20 % of a step (vit_tiny, DDP on 4 devices), by the step with data "
        "cached in 1 pair.",
    ]
    assert [row[7].text for row in block.tables[0].rows] == ["50.0 ms", "50.0 ms"]


def test_a_difference_within_the_spread_is_not_claimed(make):
    block = decomposition([make(step_s=0.1), make(step_s=0.0995, communication="off")])
    assert block.sentences == [
        "A step with communication off is not shorter beyond the spread in 1 pair: no "
        "communication that hurts is claimed."
    ]


def test_parts_of_repeats_are_those_of_one_run(whole):
    """Medians of each part would sum to no step."""

    records = []
    for step_s, exposed in ((0.1, 0.05), (0.3, 0.01), (0.2, 0.09)):
        traced = whole("DDP", 1, step_s).activity
        parts = {"compute_s": traced.compute_s - exposed, "exposed_comm_s": exposed}
        records.append(whole("DDP", 1, step_s, activity=traced.model_copy(update=parts)))
    (point,) = points(records)
    for part in ("activity", "phases"):
        assert point.typical(part) == vars(getattr(records[2], part))
    written = render(records)["report.md"].decode()
    assert "| 200 ms | 100 ms (50 %) | 90.0 ms (45 %) |" in written
    assert "| 200 ms | 200 ms | 2.00 ms | 2.00 ms | 60.0 ms | 120 ms |" in written


def test_one_step_is_no_spread(make):
    def run(step_s):
        return make().model_copy(update={"step_s": Spread.of([step_s])})

    (point,) = points([run(0.1)])
    assert point.step_s == 0.1 and point.range is None and point.step_range is None
    (point,) = points([run(0.1), run(0.2)])
    assert point.step_range == (0.1, 0.2)


def test_both_points_of_a_pair_bear_their_marks(make):
    pair = [make(spread=0.3, stable=False), make(step_s=0.01, spread=0.3, communication="off")]
    block = decomposition(pair)
    assert "(vit_tiny, DDP on 1 device (noisy, still getting faster))" in block.sentences[0]
    assert block.tables[0].rows[0][-1].text == "beyond the spread, noisy and still getting faster"


def test_a_step_that_grows_without_communication_is_told_apart(make):
    block = decomposition([make(step_s=0.1), make(step_s=0.2, communication="off")])
    assert block.tables[0].rows[0][-1].text == "beyond the spread"


@pytest.mark.parametrize("other", [{"dtype": "bfloat16"}, {"micro_batch": 16}, {"devices": 2}])
def test_a_pair_differs_in_one_thing_alone(make, other):
    assert decomposition([make(), make(communication="off", **other)]).empty
