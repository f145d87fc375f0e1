"""The order of samples over a whole run, split, stopped and resumed at random."""

from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hpcgeo.data.loader import ImageBatch, ImageBatches, Loader

Sample = tuple[int, int]  # its position in the run, its index in the data set


@dataclass(frozen=True)
class Numbers:
    """A data set whose samples are their own index."""

    size: int
    kind: Literal["synthetic"] = "synthetic"
    bands = ("number",)
    sensor = None
    shape = (1, 1, 1)
    nodata = np.array([np.nan])
    mean = std = np.ones((1, 1))
    fingerprint = "numbers"

    def __len__(self) -> int:
        return self.size

    def read(self, indices):
        assert ((indices >= 0) & (indices < self.size)).all()
        return indices.reshape(-1, 1, 1, 1), np.ones((len(indices), 2), dtype=np.int64)

    def layout_of(self, indices):
        return np.zeros(len(indices), dtype=np.int64)


def same(batch: ImageBatch) -> ImageBatch:
    return batch


@dataclass(frozen=True)
class Split:
    """One way to do a global batch."""

    world: int
    accumulate: int
    micro_batch: int
    workers: int = 0

    @property
    def global_batch(self) -> int:
        return self.world * self.accumulate * self.micro_batch


@dataclass(frozen=True)
class Part:
    """A start of the run: so many steps in one split, of which the last left no checkpoint."""

    split: Split
    steps: int
    lost: int


@st.composite
def splits(draw: st.DrawFn, global_batch: int) -> Split:
    """Any way to do a global batch of that size."""
    world = draw(st.sampled_from(divisors(global_batch)))
    accumulate = draw(st.sampled_from(divisors(global_batch // world)))
    micro_batch = global_batch // world // accumulate
    return Split(world, accumulate, micro_batch)


@st.composite
def parts(draw: st.DrawFn, global_batch: int) -> list[Part]:
    """A run that is started several times, every time split in another way."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        steps = draw(st.integers(0, 6))
        split = draw(splits(global_batch))
        found.append(Part(split, steps, draw(st.integers(0, steps))))
    return found


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def samples_of(
    dataset: Numbers, seed: int, split: Split, first_step: int, steps: int
) -> list[list[Sample]]:
    """Return the samples of all ranks, step by step, in the order of the run."""
    ranks = []
    for rank in range(split.world):
        loader = Loader(
            ImageBatches(dataset, seed, split.micro_batch, rank, split.world, same),
            accumulate=split.accumulate,
            workers=split.workers,
            first_step=first_step,
        )
        ranks.append(list(islice(loader, steps * split.accumulate)))
    found = []
    for step in range(steps):
        batches = [
            ranks[rank][step * split.accumulate + number]
            for number in range(split.accumulate)
            for rank in range(split.world)
        ]
        for batch in batches:
            assert batch.pixels.flatten().tolist() == batch.index.tolist()
        found.append(
            [
                pair
                for b in batches
                for pair in zip(b.position.tolist(), b.index.tolist(), strict=True)
            ]
        )
    return found


def run(dataset: Numbers, seed: int, parts: list[Part]) -> list[list[Sample]]:
    """Return the samples behind the final weights: of steps done anew, those of the last time."""
    done: list[list[Sample]] = []
    for part in parts:
        done += samples_of(dataset, seed, part.split, len(done), part.steps)
        del done[len(done) - part.lost :]
    return done


def check(size: int, seed: int, global_batch: int, parts: list[Part]) -> None:
    dataset = Numbers(size)
    done = run(dataset, seed, parts)
    assert done == samples_of(dataset, seed, Split(1, 1, global_batch), 0, len(done))
    sequence = [sample for step in done for sample in step]
    assert [position for position, _ in sequence] == list(range(len(done) * global_batch))
    for epoch in range(len(sequence) // size):
        whole = [index for _, index in sequence[epoch * size : (epoch + 1) * size]]
        assert sorted(whole) == list(range(size)), "every sample once an epoch"
    rest = [index for _, index in sequence[len(sequence) // size * size :]]
    assert len(set(rest)) == len(rest), "none twice in the epoch that is under way"


SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 200)


@settings(max_examples=150)
@given(data=st.data(), size=SIZES, seed=SEEDS, global_batch=st.integers(1, 48))
def test_a_run_in_parts_is_the_run_of_one_process(data, size, seed, global_batch) -> None:
    """Whatever the ranks, accumulation, interruptions and lost steps: none skipped or doubled."""
    check(size, seed, global_batch, data.draw(parts(global_batch)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # it counts cores
@settings(max_examples=2, derandomize=True, phases=[Phase.generate])
@given(size=SIZES, seed=SEEDS, workers=st.permutations([0, 1, 2]), lost=st.integers(0, 2))
def test_the_same_with_reader_processes(size, seed, workers, lost) -> None:
    one, two, three = workers
    check(
        size,
        seed,
        4,
        [
            Part(Split(1, 2, 2, one), 3, lost),
            Part(Split(2, 2, 1, two), 2, 0),
            Part(Split(1, 1, 4, three), 3, 0),
        ],
    )


@pytest.mark.long
@settings(max_examples=100)
@given(
    data=st.data(),
    size=SIZES,
    seed=SEEDS,
    global_batch=st.integers(1, 1024),
    step=st.integers(0, 10**9),
)
def test_far_into_a_run_the_split_still_changes_nothing(
    data, size, seed, global_batch, step
) -> None:
    one, other = (data.draw(splits(global_batch)) for _ in range(2))
    dataset = Numbers(size)
    assert samples_of(dataset, seed, one, step, 1) == samples_of(dataset, seed, other, step, 1)
