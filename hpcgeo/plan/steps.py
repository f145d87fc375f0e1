"""How long a step will take: what each unit costs, and the timeline that follows from it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hpcgeo.machines import Machine
from hpcgeo.options import Parallel, Train
from hpcgeo.plan.calibration import Calibration, Factors, Pattern, calibration_of
from hpcgeo.plan.costs import STATE_TRAFFIC, Silicon, Wires, block_seconds, silicon
from hpcgeo.plan.memory import DTYPE_BYTES
from hpcgeo.plan.protocols import Protocol, protocol_of
from hpcgeo.plan.timeline import UnitTimes, run
from hpcgeo.strategies import Layout, Strategy, strategy
from hpcgeo.zoo import Forms

#: Collectives over the ranks that cut products, of a block's forward: before and after attention
#: and MLP, its tokens once (Korthikanti et al. 2022, arXiv 2205.05198).
TENSOR_PASSES = 4


#: By which the interval is wider where no step was measured: with tensor parallelism, in float32.
UNMEASURED = 1.2


@dataclass(frozen=True)
class PredictedStep:
    """Seconds of a step.

    Attributes:
        compute_s: arithmetic.
        exposed_s: collectives that nothing hides, and what hidden ones cost all the same.
        hidden_s: of collectives beside arithmetic.
        optimizer_s: the step of the optimizer, and casts of weights and gradients.
        clock_s: that its measurement adds.
        unaligned_s: of the arithmetic, what sizes that are not aligned are taken to cost.
        pattern: how ranks share and exchange.
        factors: between which eight of ten measured steps lie, over the predicted one.
    """

    compute_s: float
    exposed_s: float
    hidden_s: float
    optimizer_s: float
    clock_s: float
    unaligned_s: float
    pattern: Pattern
    factors: Factors

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.compute_s + self.exposed_s + self.optimizer_s + self.clock_s

    @property
    def interval(self) -> tuple[float, float]:
        """Seconds between which eight of ten measured steps lie.

        What sizes that are not aligned cost was not measured here: from nothing to twice as much.
        """
        low, high = self.factors
        lost = self.unaligned_s
        return (self.seconds - lost) * low, (self.seconds + lost) * high


def predict_step(
    forms: Forms,
    parallel: Parallel,
    train: Train,
    world_size: int,
    where: Machine,
    *,
    by: Protocol | None = None,
    figures: Calibration | None = None,
) -> PredictedStep | None:
    """Return what a step will take; None where the peak of the device is not known.

    Args:
        forms: of the objective, on one image.
        parallel, train: how it is run.
        world_size: all ranks.
        where: the machine; its nodes are full.
        by: the protocol; by default that of the strategy.
        figures: of the machine; by default its calibration.

    Raises:
        InputError: strategy, group size and world do not fit.
    """
    chosen = strategy(parallel.strategy)
    layout, by = chosen.layout(world_size, dict(parallel)), by or protocol_of(chosen)
    device = where.model
    if device is None or parallel.offload or (peak := device.peak(train.dtype)) is None:
        return None
    figures = figures or calibration_of(where)
    on = silicon(device, peak, figures, by.scores, DTYPE_BYTES[train.dtype])
    ways = _Ways(chosen, layout, Wires.of(where, device, figures), by, parallel, train)
    units = list(_units(forms, on, ways, parallel, train))
    courses = [
        run(units, in_flight=by.in_flight, prefetch=by.prefetch, last=last)
        for last in (True, ways.every_time)[: train.accumulate]
    ]
    counts = (1, train.accumulate - 1)[: train.accumulate]
    hidden = sum(many * course.hidden for course, many in zip(courses, counts, strict=True))
    exposed = sum(many * course.exposed for course, many in zip(courses, counts, strict=True))
    share = figures.hidden_beside if ways.beside else figures.hidden_alone
    nodes = math.ceil(world_size / ways.wires.per_node)
    low, high = figures.interval[ways.pattern].factors(nodes)
    measured = layout.tp == 1 and train.dtype == "bfloat16"
    wider = 1.0 if measured else UNMEASURED
    return PredictedStep(
        compute_s=train.accumulate * courses[0].compute,
        exposed_s=exposed + share * hidden + ways.late(forms.parameters),
        hidden_s=hidden,
        optimizer_s=STATE_TRAFFIC * forms.parameters / layout.tp / layout.dp_shard / on.stream,
        clock_s=by.clock_s,
        unaligned_s=train.accumulate * _unaligned(forms, on, parallel, train, layout.tp),
        pattern=ways.pattern,
        factors=(low / wider, high * wider),
    )


@dataclass(frozen=True)
class _Ways:
    """The collectives of a unit: which there are, over which ranks, and how long they take."""

    chosen: Strategy
    layout: Layout
    wires: Wires
    by: Protocol
    parallel: Parallel
    train: Train

    @property
    def pattern(self) -> Pattern:
        """How ranks share and exchange."""
        shards, replicas = self.layout.dp_shard, self.layout.dp_replicate
        if replicas == 1 or self.chosen.optimizer == "world":
            return "world"
        return "parts" if 1 < shards < self._slots else "nodes"

    @property
    def every_time(self) -> bool:
        """Whether gradients are reduced in every micro-batch: where no rank could keep them whole
        (deepspeed, stage_1_and_2.py, `partition_gradients`)."""
        return self.chosen.gradients == "world"

    @property
    def beside(self) -> bool:
        """Whether replicas exchange, over a communicator of their own."""
        return any(one.name == "all_reduce" for one in self.chosen.collectives)

    def times(self, parameters: float) -> dict[str, float]:
        """Return seconds by field of `UnitTimes`, of a unit that so many parameters are in."""
        found = {"gather": 0.0, "again": 0.0, "scatter": 0.0, "reduce": 0.0}
        low = DTYPE_BYTES[self.train.dtype] * parameters
        gradients = DTYPE_BYTES[self.parallel.reduce_dtype] * parameters
        for one in self.chosen.collectives:
            if one.name == "all_gather" and not self._late:
                found["gather" if one.when == "forward" else "again"] = self._ring(low, one.over)
            elif one.name == "reduce_scatter":
                found["scatter"] = self._ring(gradients, one.over)
            elif one.name == "all_reduce" and not self._silent:
                found["reduce"] = self._tree(gradients)
        return found

    def late(self, parameters: float) -> float:
        """Return seconds of gathering all parameters after the step, where the engine does."""
        if not self._late:
            return 0.0
        return self._ring(DTYPE_BYTES[self.train.dtype] * parameters, "world")

    def tensor(self, numbers: float) -> float:
        """Return seconds of one collective of so many numbers over the ranks that cut products."""
        tp, per_node = self.layout.tp, self.wires.per_node
        size = DTYPE_BYTES[self.train.dtype] * numbers
        return self.wires.ring(size, tp, min(tp, per_node), max(1, per_node // tp))

    @property
    def _late(self) -> bool:
        return (
            self.by.late_gather
            and self.chosen.parameters == "none"
            and self.chosen.optimizer != "none"
        )

    @property
    def _silent(self) -> bool:
        return self.by.silent and self.parallel.group_size == 1

    @property
    def _slots(self) -> int:
        """Data-parallel ranks of a node."""
        return max(1, self.wires.per_node // self.layout.tp)

    def _ring(self, size: float, over: str) -> float:
        group = self.parallel.group_size or self.layout.dp_shard
        shards = self.layout.data_parallel if over == "world" else group
        tp, inside = self.layout.tp, min(shards, self._slots)
        return self.wires.ring(size / tp, shards, inside, tp, strided=tp > 1)

    def _tree(self, size: float) -> float:
        shards = self.layout.dp_shard if "group_size" in self.chosen.takes else 1
        ranks = self.layout.data_parallel // shards
        inside = min(ranks, max(1, self._slots // shards))
        rings = self.layout.tp * min(shards, self._slots)
        return self.wires.tree(size / shards / self.layout.tp, ranks, inside, rings)


def _units(
    forms: Forms, on: Silicon, ways: _Ways, parallel: Parallel, train: Train
) -> Iterator[UnitTimes]:
    """Yield what is not trained, what is outside of blocks, and every block."""
    batch, tp = train.micro_batch, ways.layout.tp
    if forms.frozen_flops:
        seconds = forms.frozen_flops * batch / tp / on.products
        whole = forms.frozen_parameters if not forms.replicated else 0
        yield UnitTimes(seconds, 0.0, gather=ways.times(whole)["gather"])
    edge = forms.edge_flops * batch / on.products
    times = ways.times(forms.root_parameters) | {"again": 0.0}
    yield UnitTimes(edge, 2 * edge - forms.input_flops * batch / on.products, **times)
    for stack, tokens in forms.stacks:
        block = block_seconds(on, stack, tokens, batch, tp)
        again = block.again(parallel.recompute, stack.depth)
        passed = TENSOR_PASSES * ways.tensor(batch * tokens * stack.width)
        more = again / block.forward
        one = UnitTimes(
            block.forward + passed,
            block.backward + again + (1 + more) * passed,
            **ways.times(stack.parameters / stack.depth),
        )
        yield from [one] * stack.depth


def _unaligned(forms: Forms, on: Silicon, parallel: Parallel, train: Train, tensor: int) -> float:
    """Return seconds of a micro-batch that sizes which are not aligned are taken to cost."""
    lost = 0.0
    for stack, tokens in forms.stacks:
        block = block_seconds(on, stack, tokens, train.micro_batch, tensor)
        again = block.again(parallel.recompute, stack.depth) / block.forward
        lost += stack.depth * (block.unaligned_backward + (1 + again) * block.unaligned_forward)
    return lost
