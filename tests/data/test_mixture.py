"""Which task every position draws from."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcgeo.data.sampling.mixture import CYCLE, MixtureSampler
from hpcgeo.errors import InputError

NAMES = ["roads", "water", "crops", "wealth", "change"]


@st.composite
def mixtures(draw: st.DrawFn, *, ends: bool = True) -> tuple[MixtureSampler, dict, dict]:
    """Any mixture, with its sizes and epochs."""
    names = NAMES[: draw(st.integers(1, 5))]
    some = st.one_of(st.none(), st.integers(1, 4)) if ends else st.none()
    sizes = {name: draw(st.integers(1, 3000)) for name in names}
    epochs = {name: draw(some) for name in names}
    mixture = MixtureSampler(
        sizes,
        weights={name: draw(st.floats(0.1, 10)) for name in names},
        temperature=draw(st.sampled_from([0.5, 1, 3, math.inf])),
        epochs=epochs,
        seed=draw(st.integers(0, 2**32 - 1)),
    )
    return mixture, sizes, epochs


def drawn(mixture: MixtureSampler, first: int, last: int) -> list[tuple[int, int]]:
    task, index = mixture.draw(np.arange(first, last))
    return list(zip(task.tolist(), index.tolist(), strict=True))


@settings(max_examples=60)
@given(
    made=mixtures(),
    first=st.integers(0, 4000),
    cuts=st.lists(st.integers(0, 1500), max_size=6),
    attempt=st.integers(0, 1),
)
def test_any_split_draws_the_same(made, first, cuts, attempt):
    """Ranks, micro-batches and a resume are cuts of the positions."""
    mixture, sizes, _ = made
    attempt = min(attempt, len(sizes) - 1)
    size = 1500 if mixture.positions is None else min(1500, mixture.positions - first)
    positions = np.arange(first, first + max(size, 0))
    try:
        whole = np.stack(mixture.draw(positions, attempt))
    except InputError as error:
        assert attempt and "all of them failed" in str(error)  # the rest had ended
        return
    assert all(0 <= index < sizes[mixture.tasks[task]] for task, index in whole.T)
    bounds = [0, *sorted(cuts), len(positions)]
    parts = [np.stack(mixture.draw(positions[a:b], attempt)) for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    backwards = np.stack(mixture.draw(positions[::-1], attempt))
    assert np.array_equal(backwards[:, ::-1], whole)


@settings(max_examples=60)
@given(made=mixtures())
def test_every_sample_once_in_each_epoch_of_its_task_and_ends_are_kept(made):
    mixture, sizes, epochs = made
    count = min(40 * CYCLE, mixture.positions or math.inf)
    pairs = drawn(mixture, 0, count)
    for number, task in enumerate(mixture.tasks):
        own = [index for found, index in pairs if found == number]
        size = sizes[task]
        for start in range(0, len(own) - size + 1, size):
            assert sorted(own[start : start + size]) == list(range(size))
        rest = own[len(own) // size * size :]
        assert len(set(rest)) == len(rest)
        if epochs[task] is not None:
            over = len(own) - epochs[task] * size
            assert over < CYCLE
            if over >= 0:
                last = max(place for place, (found, _) in enumerate(pairs) if found == number)
                reached = [place for place, (found, _) in enumerate(pairs) if found == number][
                    epochs[task] * size - 1
                ]
                assert last // CYCLE == reached // CYCLE, "it ends with that cycle"
        if mixture.positions == count:
            assert len(own) >= epochs[task] * size


def drawn_before(mixture: MixtureSampler, position: int) -> np.ndarray:
    """Return how many samples of each task are drawn before a position, (K,)."""
    tasks = mixture.draw(np.arange(position))[0]
    return np.bincount(tasks, minlength=len(mixture.tasks))


@settings(max_examples=60)
@given(made=mixtures(ends=False))
def test_every_task_is_in_every_cycle(made):
    tasks = made[0].draw(np.arange(3 * CYCLE))[0].reshape(3, CYCLE)
    counts = [np.bincount(cycle, minlength=len(made[0].tasks)).tolist() for cycle in tasks]
    assert counts[0] == counts[1] == counts[2] and min(counts[0]) >= 1
    if len(made[0].tasks) > 1:
        assert not np.array_equal(tasks[0], tasks[1]), "dealt anew"


@pytest.mark.parametrize(
    ("weights", "temperature", "shares"),
    [
        ({}, 1, (0.8, 0.2)),
        ({}, math.inf, (0.5, 0.5)),
        ({}, 2, (2 / 3, 1 / 3)),
        ({"small": 4}, 1, (0.5, 0.5)),
        ({"large": 3.0}, math.inf, (0.75, 0.25)),
        ({}, 0.01, (511 / 512, 1 / 512)),  # no task is left out
    ],
)
def test_shares_are_as_asked(weights, temperature, shares):
    sizes = {"large": 4000, "small": 1000}
    mixture = MixtureSampler(sizes, weights=weights, temperature=temperature, epochs={}, seed=1)
    assert drawn_before(mixture, 100 * CYCLE) / (100 * CYCLE) == pytest.approx(
        shares, abs=0.5 / CYCLE
    )
    assert mixture.positions is None


def test_no_share_is_too_small():
    sizes = {"large": 10**9, "small": 17}
    mixture = MixtureSampler(sizes, weights={}, temperature=0.01, epochs={}, seed=1)
    assert drawn_before(mixture, CYCLE).tolist() == [CYCLE - 1, 1]


def test_an_ended_task_leaves_its_share_to_the_rest():
    mixture = MixtureSampler(
        {"a": 1000, "b": 1000, "c": 1000},
        weights={"a": 2.0},
        temperature=1,
        epochs={"a": 1, "b": 2},
        seed=0,
    )
    # a has 256 slots of a cycle: over after 4 cycles; then b and c have half each.
    for cycle, slots in [(0, [256, 128, 128]), (3, [256, 128, 128]), (4, [0, 256, 256])]:
        counts = np.bincount(mixture.draw(np.arange(CYCLE) + cycle * CYCLE)[0], minlength=3)
        assert counts.tolist() == slots
    # b drew 512 of its 2000 in 4 cycles, and needs 6 more.
    assert drawn_before(mixture, 10 * CYCLE).tolist() == [1024, 2048, 2048]
    assert set(mixture.draw(np.arange(10 * CYCLE, 12 * CYCLE))[0].tolist()) == {2}


def test_far_into_a_run_nothing_takes_longer():
    mixture = MixtureSampler(
        {"large": 10**9, "small": 17}, weights={}, temperature=5, epochs={"small": 10**6}, seed=2
    )
    task, index = mixture.draw(np.arange(10**12, 10**12 + 1000))
    assert set(task.tolist()) == {0} and len(set(index.tolist())) == 1000


def test_tasks_of_one_size_are_not_in_step():
    mixture = MixtureSampler({"a": 300, "b": 300}, weights={}, temperature=1, epochs={}, seed=3)
    pairs = drawn(mixture, 0, 600)
    one, other = ([index for task, index in pairs if task == number] for number in (0, 1))
    assert one[:200] != other[:200]
    again = MixtureSampler({"b": 300, "a": 300}, weights={}, temperature=1, epochs={}, seed=3)
    assert [index for task, index in drawn(again, 0, 600) if task == 1][:200] == one[:200]


def test_another_attempt_is_another_task_by_share():
    mixture = MixtureSampler(
        {"a": 600, "b": 300, "c": 100}, weights={}, temperature=1, epochs={}, seed=0
    )
    position = np.arange(20_000)
    tries = np.stack([mixture.draw(position, attempt)[0] for attempt in range(3)])
    assert (np.sort(tries, axis=0) == np.arange(3)[:, None]).all(), "each task once"
    first_failed = np.bincount(tries[1][tries[0] == 0], minlength=3)
    assert first_failed[1] / first_failed.sum() == pytest.approx(0.75, abs=0.02)
    index = mixture.draw(position, 1)[1]
    assert len(set(index[tries[1] == 1].tolist())) > 290, "from all of its samples"
    # Then all over again, with other samples: one damaged file of a task alone ends no run.
    task, index = mixture.draw(position, 3)
    assert (task == tries[0]).all() and (index != mixture.draw(position, 0)[1]).mean() > 0.9
    with pytest.raises(InputError, match="100 samples in a row, of 3 tasks, cannot be read"):
        mixture.draw(position, 100)


def make(**changes):
    asked = {"weights": {}, "temperature": 1.0, "epochs": {}, "seed": 0} | changes
    return MixtureSampler(asked.pop("sizes", {"a": 100, "b": 50}), **asked)


def test_a_run_longer_than_its_tasks_is_refused():
    mixture = make(epochs={"a": 2, "b": 1})
    assert mixture.positions == CYCLE
    make(epochs={"a": 2, "b": 1}, total=CYCLE)
    with pytest.raises(InputError, match=r"513 samples, but .* \(a, b\) are over after 512: fewer"):
        make(epochs={"a": 2, "b": 1}, total=CYCLE + 1)
    with pytest.raises(InputError, match="position 512: all tasks ended after 512"):
        mixture.draw(np.array([512]))
    make(epochs={"a": 2}, total=10**9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sizes": {}}, "0 tasks in a mixture: 1 to 512"),
        ({"sizes": {"a": 0}}, "task a: no samples"),
        ({"weights": {"a": 0.0}}, "task a: weight 0.0: above 0"),
        ({"weights": {"a": math.nan}}, "task a: weight nan: above 0"),
        ({"weights": {"d": 1.0}}, "no task 'd' in the mixture: a, b"),
        ({"epochs": {"d": 1}}, "no task 'd' in the mixture: a, b"),
        ({"epochs": {"b": 0}}, "task b: 0 epochs: at least 1"),
        ({"temperature": 0.0}, "temperature 0.0: above 0"),
        ({"temperature": math.nan}, "temperature nan: above 0"),
    ],
)
def test_what_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        make(**changes)
