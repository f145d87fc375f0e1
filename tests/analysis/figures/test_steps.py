"""Where a step goes: measured lengths, traced shares, and what switching something off saves."""

import pytest

from hpcgeo_analysis.figures import steps
from hpcgeo_analysis.points import points
from tests.analysis.conftest import activity
from tests.analysis.figures.drawn import check, of_line, read, texts, tips, widths


def test_a_bar_is_as_long_as_the_measured_step(whole, study):
    """The trace of the first took 1.86 times its step: its bar is not longer for that."""
    slowed = whole("DDP", 4, 0.101, activity=activity(0.187, 0.0187))
    figure = steps.figure(study([slowed, whole("FULL_SHARD", 4, 0.202)]))
    check(figure)
    found = read(figure.panels[0])
    ddp, full = (sum(widths(of_line(found, name)[0])) for name in ("DDP", "FULL_SHARD"))
    assert ddp / full == pytest.approx(0.5, abs=0.003)
    assert {"101 ms", "202 ms", "traced 1.85 x"} <= set(texts(found))
    (row,) = of_line(found, "DDP")
    # 10 % of the trace is exposed, so 10 % of the measured step
    assert tips(row) == [
        "compute: 85 %, 85.9 ms",
        "exposed communication: 10 %, 10.1 ms",
        "idle: 5.0 %, 5.05 ms",
    ]


def test_no_sentence_rests_on_a_trace_that_slowed_the_step(whole, study):
    slowed = whole("DDP", 4, 0.1, activity=activity(0.12, 0.09))
    fine = whole("FULL_SHARD", 4, 0.1, activity=activity(0.1, 0.03))
    figure = steps.figure(study([slowed, fine]))
    assert figure.title == "Communication holds up FULL_SHARD of vit_tiny on 4 devices"
    assert figure.sentences[0] == (
        "Exposed communication takes up to 30 % of a step: FULL_SHARD of vit_tiny on 4 devices."
    )
    alone = steps.figure(study([slowed]))
    assert alone.title == "Where a step goes" and not alone.sentences


def test_without_a_trace_the_phases_speak(make, study):
    from tests.analysis.conftest import phases

    figure = steps.figure(study([make(devices=2, phases=phases(0.1))]))
    check(figure)
    assert [name for name, _ in figure.legend][:2] == ["forward", "backward, with its collectives"]
    assert figure.caption.endswith("divided by phase.")
    assert tips(read(figure.panels[0]))[0] == "forward: 30 %, 30.0 ms"


def test_nothing_divided_says_how(make, study):
    figure = steps.figure(study([make()]))
    assert not figure.panels and "hpcgeo-profile run" in figure.missing


def test_seconds_where_steps_are_long_and_only_the_ends_of_many_sizes(whole, study):
    records = [whole("DDP", n, 2.0) for n in (1, 2, 4, 8)]
    records += [whole(f"S{k}", n, 3.0) for k in range(5) for n in (1, 2, 4, 8)]
    figure = steps.figure(study(records))
    check(figure)
    found = texts(read(figure.panels[0]))
    assert "s of a step" in found and "micro-batch 8; 12 more in the table" in found
    assert "DDP, 8 devices" in found and "DDP, 2 devices" not in found


def test_parts_of_repeats_are_those_of_one_run(whole, study):
    """Medians of each part would sum to no step."""
    records = []
    for step_s, exposed in ((0.1, 0.05), (0.3, 0.01), (0.2, 0.09)):
        records.append(whole("DDP", 1, step_s, activity=activity(step_s, exposed)))
    (point,) = points(records)
    assert point.typical("activity") == vars(records[2].activity)
    assert "exposed communication: 45 %, 90.0 ms" in tips(
        read(steps.figure(study(records)).panels[0])
    )


def test_what_communication_and_reading_cost(make, whole, study):
    records = [
        whole("DDP", 4, 0.2),
        whole("DDP", 4, 0.15, communication="off"),
        whole("DDP", 4, 0.25, data="shards"),
        whole("DDP", 4, 0.2, data="cached"),
    ]
    assert steps.figure(study(records)).sentences[-2:] == (
        "Without communication a step is up to 25 % shorter: DDP of vit_tiny on 4 devices.",
        "Without reading a step is up to 20 % shorter: DDP of vit_tiny on 4 devices.",
    )


@pytest.mark.parametrize(
    "bare",
    [{"step_s": 0.0995}, {"step_s": 0.2}, {"step_s": 0.05, "spread": 0.4}],
    ids=["within the spread", "longer", "noisy"],
)
def test_what_saves_nothing_is_not_said(whole, study, bare):
    records = [whole("DDP", 1, 0.1), whole("DDP", 1, communication="off", **bare)]
    assert not [s for s in steps.figure(study(records)).sentences if "Without" in s]


def test_pairs_need_not_share_versions(make):
    found = points([make(), make(communication="off", versions={"torch": "2.14.0"})])
    assert len(steps.pairs(found, "communication", "on", "off")) == 1


@pytest.mark.parametrize("other", [{"dtype": "bfloat16"}, {"micro_batch": 16}, {"devices": 2}])
def test_a_pair_differs_in_one_thing_alone(make, other):
    found = points([make(), make(communication="off", **other)])
    assert steps.pairs(found, "communication", "on", "off") == []
