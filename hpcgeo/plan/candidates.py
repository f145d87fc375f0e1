"""Every way to run a model on a machine, with what it takes: strategies, groups, tensor degrees,
recompute and micro-batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from hpcgeo.errors import InputError
from hpcgeo.machines import Machine
from hpcgeo.options import Optim, Parallel, Train
from hpcgeo.plan.calibration import Calibration, calibration_of
from hpcgeo.plan.fit import GIB, RESERVED, Word
from hpcgeo.plan.memory import PredictedMemory, predict
from hpcgeo.plan.steps import PredictedStep, predict_step
from hpcgeo.stacks import Recompute, Stack
from hpcgeo.strategies import Backend, strategies, strategy
from hpcgeo.zoo import Forms

#: Micro-batches that are tried.
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: The largest that is tried of those that divide a global batch.
LARGEST = 512
RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
#: Groups of more than so many nodes share parameters as all ranks would.
WIDEST_GROUP_NODES = 8


@dataclass(frozen=True)
class Candidate:
    """One way, and what it takes.

    Attributes:
        images_per_s: of the whole job.
        mfu: model FLOPs over the peak.
        memory: of a rank, by cause.
        word: whether that fits the device.
    """

    parallel: Parallel
    train: Train
    world_size: int
    step: PredictedStep
    memory: PredictedMemory
    word: Word
    images_per_s: float
    mfu: float

    @property
    def layout(self) -> str:
        """The strategy with its group size, as in records."""
        size = self.parallel.group_size
        return f"{self.parallel.strategy}({size})" if size else self.parallel.strategy

    @property
    def interval(self) -> tuple[float, float]:
        """Images/s between which eight of ten measurements lie."""
        low, high = self.step.interval
        return (
            self.images_per_s * self.step.seconds / high,
            self.images_per_s * self.step.seconds / low,
        )

    @property
    def options(self) -> list[str]:
        """As options of `hpcgeo train`."""
        words = [f"parallel.strategy={self.parallel.strategy}"]
        for name in ("group_size", "tensor", "recompute"):
            value = getattr(self.parallel, name)
            if value != Parallel.model_fields[name].default:
                words.append(f"parallel.{name}={value}")
        words += [f"train.micro_batch={self.train.micro_batch}"]
        return words + [f"train.accumulate={self.train.accumulate}"] * (self.train.accumulate > 1)


@dataclass(frozen=True)
class PlanRequest:
    """What is to be run, and what is left open.

    Attributes:
        forms: of the objective, on one image.
        where: the machine.
        nodes: full ones.
        dtype: of the arithmetic.
        backend: whose strategies.
        micro_batch: images of a rank; None: the best that fits.
        global_batch: images of a step; None: whatever comes out.
        optim: whose state is held.
        figures: of the machine; None: its calibration.
        micro_batches, recomputes, tensors: what is tried; no tensors: all that divide.
    """

    forms: Forms
    where: Machine
    nodes: int
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    backend: Backend = "native"
    micro_batch: int | None = None
    global_batch: int | None = None
    optim: Optim = field(default_factory=Optim)
    figures: Calibration | None = None
    micro_batches: tuple[int, ...] = MICRO_BATCHES
    recomputes: tuple[Recompute, ...] = RECOMPUTES
    tensors: tuple[int, ...] = ()

    @property
    def world_size(self) -> int:
        """Ranks of all nodes."""
        return self.nodes * int(self.where.devices_per_node.value)


def candidates(asked: PlanRequest) -> list[Candidate]:
    """Return all ways whose tensors fit the device: first those whose allocator will too, the one
    whose slow end of the interval is fastest first.

    Raises:
        InputError: the machine has no device with a known peak, too few nodes, no way divides the
            ranks and batches that are asked for, or nothing fits.
    """
    device = asked.where.model
    if device is None or device.peak(asked.dtype) is None:
        raise InputError(
            f"machine {asked.where.name} names no device with a known {asked.dtype} peak: choose "
            f"another (hpcgeo list machines), or give a YAML file of your own"
        )
    if asked.where.nodes and asked.nodes > asked.where.nodes.value:
        raise InputError(
            f"nodes {asked.nodes}: {asked.where.name} has {asked.where.nodes.value:g}: take fewer"
        )
    asked.where.bin(asked.nodes)  # no job may have so many: said now
    asked = replace(asked, figures=asked.figures or calibration_of(asked.where))
    tried = list(_ways(asked))
    if not tried:
        each = asked.world_size * (asked.micro_batch or 1)
        raise InputError(
            f"global batch {asked.global_batch}: no micro-batch divides it over "
            f"{asked.world_size} ranks: take a multiple of {each:,}"
        )
    found = [one for way in tried if (one := _candidate(asked, *way))]
    if not found:
        least = min(
            predict(asked.forms, *way, asked.world_size, asked.optim).total for way in tried
        )
        raise InputError(
            f"nothing fits: at least {least / GIB:.3g} GiB a device of {device.memory:g}: take "
            f"more than {asked.nodes} nodes, or a smaller micro-batch"
        )
    return sorted(found, key=lambda one: (one.word != "fits", -one.interval[0]))


def best_of_each(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the first of every layout, of those that fit and of those that are tight."""
    kept: dict[tuple[str, int, Word], Candidate] = {}
    for one in found:
        kept.setdefault((one.layout, one.parallel.tensor, one.word), one)
    return list(kept.values())


def _ways(asked: PlanRequest) -> Iterator[tuple[Parallel, Train]]:
    stacks = [stack for stack, _ in asked.forms.stacks]
    for row in (one for one in strategies().values() if one.backend == asked.backend):
        for tensor in _tensors(asked, stacks) if "tensor" in row.takes else [1]:
            dp = asked.world_size // tensor
            for size in _groups(asked, dp, tensor) if "group_size" in row.takes else [None]:
                for recompute in asked.recomputes:
                    parallel = Parallel(
                        strategy=row.name, group_size=size, tensor=tensor, recompute=recompute
                    )
                    for micro, accumulate in _batches(asked, dp):
                        yield (
                            parallel,
                            Train(
                                steps=1,
                                micro_batch=micro,
                                accumulate=accumulate,
                                dtype=asked.dtype,
                            ),
                        )


def _tensors(asked: PlanRequest, stacks: Sequence[Stack]) -> list[int]:
    per_node = int(asked.where.devices_per_node.value)
    return [
        n
        for n in asked.tensors or range(1, per_node + 1)
        if per_node % n == 0
        and all(stack.heads % n == 0 and stack.hidden % n == 0 for stack in stacks)
    ]


def _groups(asked: PlanRequest, dp: int, tensor: int) -> list[int]:
    """Return sizes of groups that fill a node evenly, or several nodes."""
    per_node = max(1, int(asked.where.devices_per_node.value) // tensor)
    widest = min(dp // 2, WIDEST_GROUP_NODES * per_node)
    return [
        size
        for size in range(2, widest + 1)
        if dp % size == 0 and (per_node % size == 0 or size % per_node == 0)
    ]


def _batches(asked: PlanRequest, dp: int) -> Iterator[tuple[int, int]]:
    """Yield micro-batch and accumulation; of a global batch all that divide a rank's part."""
    if asked.global_batch is None:
        sizes = (asked.micro_batch,) if asked.micro_batch else asked.micro_batches
        yield from ((size, 1) for size in sizes)
    elif asked.global_batch % dp == 0:
        part = asked.global_batch // dp
        for size in (asked.micro_batch,) if asked.micro_batch else range(1, LARGEST + 1):
            if part % size == 0:
                yield size, part // size


def _candidate(asked: PlanRequest, parallel: Parallel, train: Train) -> Candidate | None:
    """Return a way; None where it does not fit."""
    device, world = asked.where.model, asked.world_size
    assert device is not None
    memory = predict(asked.forms, parallel, train, world, asked.optim)
    held = memory.total / GIB
    if held > device.memory:
        return None
    step = predict_step(asked.forms, parallel, train, world, asked.where, figures=asked.figures)
    peak = device.peak(train.dtype)
    assert step is not None and peak is not None
    dp = strategy(parallel.strategy).layout(world, dict(parallel)).data_parallel
    rate = dp * train.micro_batch * train.accumulate / step.seconds
    return Candidate(
        parallel,
        train,
        world,
        step,
        memory,
        "fits" if held * RESERVED <= device.memory else "tight",
        rate,
        asked.forms.model_flops * rate / (peak * world),
    )
