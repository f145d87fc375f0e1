"""Whether a run fits the memory of its devices: the answer, the figures behind it, a way out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hpcgeo.errors import InputError
from hpcgeo.optimizers.table import optimizer
from hpcgeo.options import Optim, Parallel, Train
from hpcgeo.plan.memory import PredictedPeak, predict
from hpcgeo.strategies import strategy
from hpcgeo.zoo import Forms

GIB = 2**30

#: The allocator reserved up to so many times what was allocated (arXiv 2404.11706, memory figures).
RESERVED = 1.57

#: Beyond so much of the device an allocator is at its end (arXiv 2404.11706: 3B on one GCD ran).
TIGHT = 0.97

Word = Literal["fits", "tight", "does not fit", "not known"]


@dataclass(frozen=True)
class Fit:
    """A verdict.

    Attributes:
        word: the answer. Tight: what is allocated fits, what the allocator may reserve does not.
        why: its figures, and where it is not "fits" a way out.
    """

    word: Word
    why: str

    def __str__(self) -> str:
        return f"{self.word}: {self.why}"


def fit(
    forms: Forms, parallel: Parallel, train: Train, world_size: int, optim: Optim, memory: float
) -> Fit:
    """Return whether what a rank holds, in closed form, fits a device of `memory` GiB.

    Raises:
        InputError: strategy, group size and world do not fit.
    """
    held = predict(forms, parallel, train, world_size, optim).total / GIB
    figures = f"{held:.3g} GiB allocated, up to {RESERVED * held:.3g} reserved, of {memory:g} GiB"
    if held * RESERVED <= memory:
        return Fit("fits", figures)
    word: Word = "does not fit" if held > memory else "tight"
    return Fit(word, f"{figures}; {_smaller(forms, parallel, train, world_size, optim, memory)}")


def verdict(held: PredictedPeak, memory: float) -> Word:
    """Return whether a peak fits a device of `memory` GiB."""
    if held.allocated > memory * GIB:
        return "does not fit"
    return "tight" if held.reserved > TIGHT * memory * GIB else "fits"


def fit_of_states(
    parameters: int,
    parallel: Parallel,
    world_size: int,
    optim: Optim,
    memory: float,
    frozen: int = 0,
) -> Fit:
    """Return whether parameters, gradients and optimizer alone fit: no activations are known.

    Args:
        parameters: all.
        parallel, world_size, optim: how they are trained.
        memory: of a device, GiB.
        frozen: those of them that are not trained.
    """
    held = states_bytes(parameters, parallel, world_size, optim, frozen) / GIB
    figures = f"{held:.3g} GiB for parameters, gradients and optimizer, of {memory:g} GiB"
    if held > memory:
        return Fit("does not fit", f"{figures}; take a strategy that shards more, or more ranks")
    return Fit("not known", f"{figures}; activations have no closed form")


def states_bytes(
    parameters: int, parallel: Parallel, world_size: int, optim: Optim, frozen: int = 0
) -> float:
    """Return the bytes that parameters, gradients (float32) and optimizer take of a device.

    Those that are `frozen` have neither gradient nor optimizer state.
    """
    layout = strategy(parallel.strategy).layout(world_size, dict(parallel))
    if parallel.offload:  # they lie on the host
        return 0.0
    trained = parameters - frozen
    whole = 4 * parameters + (4 + optimizer(optim.name).state_bytes(optim)[1]) * trained
    return whole / layout.dp_shard / layout.tp


def _smaller(
    forms: Forms, parallel: Parallel, train: Train, world_size: int, optim: Optim, memory: float
) -> str:
    """Return options under which the same global batch fits; the first that does."""
    for words, parts in _ways(parallel, train):
        try:
            other = predict(forms, *parts, world_size, optim).total / GIB
        except InputError:
            continue
        if other * RESERVED <= memory:
            return f"{words} takes {other:.3g} GiB"
    return "take more ranks, or parallel.tensor"


def _ways(parallel: Parallel, train: Train) -> Iterator[tuple[str, tuple[Parallel, Train]]]:
    product = train.micro_batch * train.accumulate
    sharded = parallel.model_copy(update={"strategy": "FULL_SHARD", "group_size": None})
    smaller = [size for size in (64, 32, 16, 8, 4, 2, 1) if product % size == 0]
    other = "parallel.strategy=FULL_SHARD " + "parallel.group_size=null " * bool(
        parallel.group_size
    )
    for more, spread in (("", parallel), (other, sharded)):
        for size in (size for size in smaller if size < train.micro_batch or more):
            words = f"{more}train.micro_batch={size} train.accumulate={product // size}"
            sizes = {"micro_batch": size, "accumulate": product // size}
            yield words, (spread, train.model_copy(update=sizes))
        full = spread.model_copy(update={"recompute": "full"})
        yield f"{more}parallel.recompute=full", (full, train)
