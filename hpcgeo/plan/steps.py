"""How long a step will take, estimated in closed form: arithmetic, and what the wires carry.

Arithmetic runs at the fraction of the peak that published training of ViTs reached on the device.
The wires run at the peak rate of the machine's links with a ring over the ranks of a group (Thakur
et al. 2005), as in `hpcgeo.strategies.Collective.volume`; rings over nodes leave a node through all
its cards. Collectives hide behind the arithmetic of their own direction, wholly or not at all: the
truth lies between. What is not in it: latency (many small messages), reading, the optimizer.
"""

from dataclasses import dataclass

from hpcgeo.machines import Machine
from hpcgeo.options import Parallel, Train
from hpcgeo.plan.memory import DTYPE_BYTES
from hpcgeo.strategies import Collective, Layout, strategy
from hpcgeo.zoo import Forms


@dataclass(frozen=True)
class PredictedStep:
    """Seconds of a step.

    Attributes:
        compute_s, wire_s: of its arithmetic and of its collectives, each alone.
        hidden_s: of the step where collectives hide as far as they can.
    """

    compute_s: float
    wire_s: float
    hidden_s: float

    @property
    def exposed_s(self) -> float:
        """Seconds of the step where no collective hides."""
        return self.compute_s + self.wire_s


def predict_step(
    forms: Forms, parallel: Parallel, train: Train, world_size: int, where: Machine
) -> PredictedStep | None:
    """Return what a step will take; None where no figure of the device, the links or the way is.

    Args:
        forms: of the objective, on one image.
        parallel, train: how it is run.
        world_size: all ranks.
        where: the machine; its nodes are full.

    Raises:
        InputError: strategy, group size and world do not fit.
    """
    chosen = strategy(parallel.strategy)
    layout = chosen.layout(world_size, dict(parallel))
    device = where.model
    if device is None or device.reached is None or chosen.backend != "native":
        return None
    peak = device.peak(train.dtype)
    if peak is None or layout.tp > 1 or parallel.offload:
        return None
    size_bytes = {
        "parameters": DTYPE_BYTES[train.dtype] * forms.parameters,
        "gradients": DTYPE_BYTES[parallel.reduce_dtype] * forms.parameters,
    }
    seconds = {"forward": 0.0, "backward": 0.0, "last": 0.0}  # of a micro-batch; of the last alone
    for collective in chosen.collectives:
        size = size_bytes[collective.of]
        if (collective.of, collective.when) == ("parameters", "forward") and not forms.replicated:
            size += DTYPE_BYTES[train.dtype] * forms.frozen_parameters
        sent = collective.volume(world_size, layout.dp_shard) * size
        rate = _bytes_per_s(collective, layout, where, device.per_package)
        if sent and rate is None:
            return None
        # Shards are reduced in every micro-batch, replicas in the last one of a step.
        when = "last" if collective.name == "all_reduce" else collective.when
        seconds[when] += sent / rate if rate else 0.0
    rate = device.reached.at(forms.parameters) * peak
    forward = (forms.forward_flops + forms.frozen_flops) * train.micro_batch / rate
    backward = forms.executed_flops(parallel.recompute) * train.micro_batch / rate - forward
    again = train.accumulate - 1
    return PredictedStep(
        compute_s=train.accumulate * (forward + backward),
        wire_s=train.accumulate * (seconds["forward"] + seconds["backward"]) + seconds["last"],
        hidden_s=train.accumulate * max(forward, seconds["forward"])
        + again * max(backward, seconds["backward"])
        + max(backward, seconds["backward"] + seconds["last"]),
    )


def _bytes_per_s(
    collective: Collective, layout: Layout, where: Machine, per_package: int
) -> float | None:
    """Return the rate at which a rank sends; groups fill a package, then a node."""
    per_node = int(where.devices_per_node.value)
    world = layout.data_parallel
    inside = layout.dp_shard if collective.over == "group" else world
    links = where.links
    if collective.over != "replicas" and inside <= per_package:
        link, rings = links.package, 1
    elif inside <= per_node:
        link, rings = links.node, 1
    else:  # every rank of a node is in a ring of its own replicas, or all are in one
        link = links.out
        rings = min(layout.dp_shard, per_node) if collective.over == "replicas" else 1
    return 1e9 * link.value / rings if link else None
