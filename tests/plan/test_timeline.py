"""The timeline of a step: by hand, and what must hold of any."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.plan.timeline import Course, UnitTimes, run


def passed(units: list[UnitTimes], **options: Any) -> Course:
    return run(units, **{"in_flight": 2, "prefetch": "before"} | options)


def test_alone_units_follow_one_another() -> None:
    course = passed([UnitTimes(1.0, 2.0)] * 3)
    assert (course.end, course.compute, course.exposed, course.hidden) == (9, 9, 0, 0)


def test_gathering_hides_behind_the_unit_before() -> None:
    """0-1 gather, 1-5 compute while 1-2 gathers the next; backward gathers the first again."""
    course = passed([UnitTimes(4.0, 8.0, gather=1.0, again=1.0)] * 2)
    assert (course.end, course.busy) == (25, 3)
    assert (course.exposed, course.hidden) == (1, 2)


def test_slow_gathering_sets_the_pace() -> None:
    """Forward ends when the third unit is there and computed: 3 x 10 + 1."""
    course = passed([UnitTimes(1.0, 2.0, gather=10.0)] * 3)
    assert course.end == 31 + 6


def test_two_gathers_in_flight_at_most() -> None:
    """The third unit is gathered when the first has computed, at 11, not at 2."""
    units = [UnitTimes(10.0, 0.0, gather=1.0), UnitTimes(1.0, 0.0, gather=1.0)]
    units.append(UnitTimes(1.0, 0.0, gather=5.0))
    assert passed(units).end == 11 + 5 + 1
    assert passed(units, in_flight=3).end == 13


def test_gradients_go_out_behind_the_next_backward() -> None:
    """The last scatter has nothing to hide behind; replicas reduce after it, in the last pass."""
    units = [UnitTimes(1.0, 4.0, scatter=2.0, reduce=3.0)] * 2
    assert passed(units).end == 2 + 8 + 2 + 3
    assert passed(units, last=False).end == 2 + 8 + 2


def test_the_order_of_backward() -> None:
    """Before hides both, after the scatter alone, none neither (units of 1 gather, 1 scatter)."""
    units = [UnitTimes(4.0, 8.0, gather=1.0, again=1.0, scatter=1.0)] * 4
    before, after, none = (
        passed(units, prefetch=prefetch).end for prefetch in ("before", "after", "none")
    )
    assert before == 1 + 16 + 32 + 1
    assert after == before + 3  # three units are gathered again
    assert none == before + 6


SECONDS = st.floats(0, 10, allow_nan=False)
UNITS = st.lists(st.builds(UnitTimes, *[SECONDS] * 6), min_size=1, max_size=8)


@given(UNITS, st.sampled_from(["before", "after", "none"]))
def test_no_step_is_shorter_than_its_streams_or_longer_than_all_of_it(
    units: list[UnitTimes], prefetch: str
) -> None:
    course = passed(units, prefetch=prefetch)
    gathered = sum(unit.gather + unit.scatter for unit in units)
    assert course.end >= max(course.compute, gathered) - 1e-9
    assert course.end <= course.compute + course.busy + 1e-9


@given(UNITS)
def test_gathering_earlier_never_takes_longer(units: list[UnitTimes]) -> None:
    """Where nothing is scattered: a scatter behind an early gather waits for it."""
    quiet = [unit._replace(scatter=0.0) for unit in units]
    ends = [passed(quiet, prefetch=one).end for one in ("before", "after")]
    assert ends[0] <= ends[1] + 1e-9
