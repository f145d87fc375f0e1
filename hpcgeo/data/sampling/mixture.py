"""Which task, and which of its samples, each position of a run draws: a function of the seed alone.

Positions come in cycles of `CYCLE`. In a cycle every task has a fixed number of slots, dealt anew
in every cycle, so how many samples of a task come before a position is known in closed form, and
any rank draws any position. Each task goes through its own data in epochs of its own.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpcgeo.data.sampling.order import Float, Int, shuffled, uniform
from hpcgeo.errors import InputError

CYCLE = 512
#: How often a position is drawn again before the run gives up.
ATTEMPTS = 100


@dataclass(frozen=True)
class _Phase:
    """Cycles from `first` on in which the same tasks go on.

    `weight` (K,) adds up to 1, `slots` (K,) to `CYCLE`; `before` (K,) samples were drawn earlier.
    """

    first: int
    weight: Float
    slots: Int
    before: Int


class MixtureSampler:
    """Draws from several tasks by their sampling weights.

    The sampling weight of a task is proportional to weight x size^(1 / temperature): at temperature
    1 every sample is seen equally often, at infinity every task is. A task has at least one slot in
    a cycle, however small its weight. A task whose epochs are over ends with the cycle in which
    they are; from the next one on the others have its slots.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        weights: Mapping[str, float],
        temperature: float,
        epochs: Mapping[str, int | None],
        seed: int,
        total: int | None = None,
    ) -> None:
        """Plan the run.

        Args:
            sizes: samples of each task.
            weights: of each task; 1 for one that is not named.
            temperature: above 0; ``math.inf`` for equal weights.
            epochs: of each task over its data; None, or not named: without end.
            seed: of the run.
            total: positions of the run, if known.

        Raises:
            InputError: no task, an empty one, a number out of range, or `total` is more than the
                tasks' epochs give.
        """
        self.tasks = tuple(sizes)
        self._check(sizes, weights, temperature, epochs)
        self._sizes = np.array([sizes[task] for task in self.tasks], dtype=np.int64)
        self._seed = seed
        self._seeds = [_seed(seed, task) for task in self.tasks]
        log_share = np.log(self._sizes) / temperature  # size^(1 / 0.01) is no number
        log_share += np.log([weights.get(task, 1.0) for task in self.tasks])
        ends = [epochs.get(task) for task in self.tasks]
        self._phases, self.positions = _phases(
            np.exp(np.maximum(log_share - log_share.max(), -600)),  # small, never none
            np.array(
                [math.inf if e is None else e * n for e, n in zip(ends, self._sizes, strict=True)]
            ),
        )
        self._firsts = np.array([phase.first for phase in self._phases])
        if self.positions is not None and total is not None and total > self.positions:
            raise InputError(
                f"steps x global batch = {total} samples, but the epochs of all tasks "
                f"({', '.join(self.tasks)}) are over after {self.positions}: fewer steps, more "
                "epochs, or one task without end"
            )

    @property
    def sampling_weights(self) -> dict[str, float]:
        """Return the fraction of samples of each task, as long as all go on."""
        return dict(zip(self.tasks, (self._phases[0].slots / CYCLE).tolist(), strict=True))

    def draw(self, position: Int, attempt: int = 0) -> tuple[Int, Int]:
        """Return the task, as a number in `tasks`, and the sample in it at each position.

        A position whose sample cannot be read is drawn again with the next `attempt`: any sample at
        random, of one task after the other, and then all over. That depends on the position alone,
        so the run stays the same on any number of ranks. The failed task's own order goes on
        unchanged.

        Args:
            position: global positions, (B,).
            attempt: how often these positions have failed.

        Returns:
            Two of (B,) int64.

        Raises:
            InputError: all tasks have ended, or `ATTEMPTS` draws have failed.
        """
        if self.positions is not None and len(position) and position.max() >= self.positions:
            raise InputError(
                f"position {position.max()}: all tasks ended after {self.positions} samples"
            )
        task, index = np.empty((2, len(position)), dtype=np.int64)
        cycle = position // CYCLE
        for number in np.unique(cycle):
            here = cycle == number
            drawn = self._cycle(int(number), position[here] - number * CYCLE)
            if attempt:
                drawn = self._again(self._phase(int(number)), position[here], drawn[0], attempt)
            task[here], index[here] = drawn
        return task, index

    def _cycle(self, cycle: int, slot: Int) -> tuple[Int, Int]:
        """Return task and sample of slots (B,) of a cycle."""
        phase = self._phase(cycle)
        dealt = self._dealt(phase, cycle)  # (CYCLE,)
        rank = np.empty_like(dealt)  # of a slot among those of its task
        rank[np.argsort(dealt, kind="stable")] = np.concatenate([np.arange(n) for n in phase.slots])
        task = dealt[slot]
        drawn = self._before(phase, cycle)[task] + rank[slot]
        index = np.empty_like(task)
        for number in np.unique(task):
            here = task == number
            index[here] = shuffled(drawn[here], int(self._sizes[number]), self._seeds[number])
        return task, index

    def _again(self, phase: _Phase, position: Int, tried: Int, attempt: int) -> tuple[Int, Int]:
        """Return task and sample of a further attempt: tasks in an order drawn by their weights,
        over and over."""
        going = int((phase.weight > 0).sum())
        if attempt >= ATTEMPTS:
            raise InputError(
                f"{ATTEMPTS} samples in a row, of {going} tasks, cannot be read: see the warnings"
            )
        chance = uniform(self._seed, position, "attempt", len(self.tasks))  # (B, K)
        where = uniform(self._seed, position, f"sample {attempt // going}", len(self.tasks))
        # The first of exponential times with these rates is a draw by weight, and so are the next.
        with np.errstate(divide="ignore"):
            time = -np.log1p(-chance) / phase.weight
        np.put_along_axis(time, tried[:, None], -1.0, axis=1)
        task = np.argsort(time, axis=1, kind="stable")[:, attempt % going]
        chosen = np.take_along_axis(where, task[:, None], axis=1)[:, 0]
        return task, (chosen * self._sizes[task]).astype(np.int64)

    def _phase(self, cycle: int) -> _Phase:
        return self._phases[int(np.searchsorted(self._firsts, cycle, side="right")) - 1]

    def _before(self, phase: _Phase, cycle: int) -> Int:
        return phase.before + (cycle - phase.first) * phase.slots

    def _dealt(self, phase: _Phase, cycle: int) -> Int:
        """Return the task of every slot of a cycle, (CYCLE,)."""
        slots = np.arange(cycle * CYCLE, (cycle + 1) * CYCLE)
        return np.repeat(np.arange(len(self.tasks)), phase.slots)[
            shuffled(slots, CYCLE, self._seed)
        ]

    def _check(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, float],
        temperature: float,
        epochs: Mapping[str, int | None],
    ) -> None:
        if not 0 < len(sizes) <= CYCLE:
            raise InputError(f"{len(sizes)} tasks in a mixture: 1 to {CYCLE}")
        for task in [*weights, *epochs]:
            if task not in sizes:
                raise InputError(f"no task {task!r} in the mixture: {', '.join(sizes)}")
        for task, size in sizes.items():
            if size < 1:
                raise InputError(f"task {task}: no samples; leave it out of the mixture")
        for task, weight in weights.items():
            if not 0 < weight < math.inf:
                raise InputError(f"task {task}: weight {weight}: above 0; or leave the task out")
        for task, number in epochs.items():
            if number is not None and number < 1:
                raise InputError(f"task {task}: {number} epochs: at least 1, or none for no end")
        if not temperature > 0:
            raise InputError(f"temperature {temperature}: above 0; inf for equal weights")


def _phases(weight: Float, limits: Float) -> tuple[list[_Phase], int | None]:
    """Return the phases of a run, and its positions if all tasks end.

    Args:
        weight: of each task, (K,).
        limits: samples of each task, (K,); infinite for one without end.
    """
    found: list[_Phase] = []
    first, before = 0, np.zeros(len(weight), dtype=np.int64)
    while (before < limits).any():
        now = np.where(before < limits, weight, 0.0)
        now /= now.sum()
        slots = _slots(now)
        found.append(_Phase(first, now, slots, before))
        with np.errstate(divide="ignore", invalid="ignore"):
            cycles = np.where(slots > 0, np.ceil((limits - before) / slots), np.inf).min()
        if cycles == math.inf:
            return found, None
        first, before = first + int(cycles), before + int(cycles) * slots
    return found, first * CYCLE


def _slots(weight: Float) -> Int:
    """Return the slots of each task by largest remainder, at least one where it has a weight."""
    quota = weight * CYCLE
    slots = np.maximum(np.floor(quota), weight > 0).astype(np.int64)
    while (left := CYCLE - slots.sum()) != 0:
        if left > 0:
            slots[np.argmax(quota - slots)] += 1
        else:
            slots[np.argmin(np.where(slots > 1, quota - slots, np.inf))] -= 1
    return slots


def _seed(seed: int, task: str) -> int:
    """Return the seed of a task's own order: two tasks of one size are not in step."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task}".encode()).digest()[:8], "little")
