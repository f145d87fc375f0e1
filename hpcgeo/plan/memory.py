"""What a rank will hold, in closed form: parameters, gradients, optimizer, gathered units, more.

Letters: P parameters (with tensor parallelism those a rank computes with), k ranks that hold one
copy. The form follows the engine: float32 weights, gradients and optimizer state in shards of
P / k; gathered (FSDP2) or cast (DDP) copies in the dtype of the arithmetic beside them. ZeRO 1 and
2 keep a whole copy in that dtype, ZeRO 3 a shard of it.
"""

from dataclasses import dataclass

from hpcgeo.optimizers.table import optimizer
from hpcgeo.options import Optim, Parallel, Train
from hpcgeo.plan.protocols import Protocol
from hpcgeo.strategies import strategy
from hpcgeo.zoo import Forms

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class PredictedMemory:
    """Bytes of one rank by cause."""

    parameters: float
    frozen: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    batch: float

    @property
    def total(self) -> float:
        """Bytes of all causes; the allocator's slack and the libraries come on top."""
        return sum(vars(self).values())


def checkpoint_bytes(parameters: int, root_parameters: int, optim: Optim) -> int:
    """Return the bytes of a checkpoint: weights in float32 and the state of the optimizer.

    Args:
        parameters: all.
        root_parameters: those outside of blocks.
        optim: whose row of `hpcgeo.optimizers.table` says the bytes of its state.
    """
    in_block, other = optimizer(optim.name).state_bytes(optim)
    blocks = parameters - root_parameters
    return (4 + in_block) * blocks + (4 + other) * root_parameters


def predict(
    forms: Forms, parallel: Parallel, train: Train, world_size: int, optim: Optim | None = None
) -> PredictedMemory:
    """Return what one of `world_size` ranks will hold at most, of each cause.

    Under accumulation all but gathered units meet when the last forward ends. Without it gradients
    grow while activations go, and the sum is an upper bound. Of the batch its views are counted,
    not what making them takes before forward.

    Args:
        forms: of the objective, on one image.
        parallel, train: how it is run.
        world_size: all ranks.
        optim: whose row of `hpcgeo.optimizers.table` says the bytes of its state.

    Raises:
        InputError: strategy, group size and world do not fit.
    """
    chosen = strategy(parallel.strategy)
    layout = chosen.layout(world_size, dict(parallel))
    stacks = [stack for stack, _ in forms.stacks]
    P = forms.root_parameters + sum(stack.cut_parameters(layout.tp) for stack in stacks)
    low = DTYPE_BYTES[train.dtype]
    activations = train.micro_batch * forms.activation_bytes(
        low, recompute=parallel.recompute, tensor=layout.tp
    )
    batch = train.micro_batch * float(forms.view_bytes)
    cut = forms.frozen_parameters / layout.tp if not forms.replicated else 0.0
    whole = forms.frozen_parameters if forms.replicated else 0
    units = [stack.cut_parameters(layout.tp) / stack.depth for stack in stacks]
    if chosen.name in ("DDP", "ZERO0"):
        gathered = 0.0 if low == 4 else low * P
    elif chosen.reshard_after_forward:
        gathered = low * (2 * max(units) + forms.root_parameters)
    else:
        gathered = low * (P + cut)
    if parallel.offload:
        return PredictedMemory(0, 0, 0, 0, gathered, activations, batch)
    k = layout.dp_shard
    optim, root = optim or Optim(), forms.root_parameters
    in_block, other = optimizer(optim.name).state_bytes(optim)
    # hpZ: a second copy in every group, in the dtype of the arithmetic (arXiv 2306.10209).
    twice = "group_size" in chosen.takes and chosen.parameters == "world"
    second = low * P / (parallel.group_size or k) if twice else 0.0
    # ZeRO 3 steps on other float32 weights than those it gathers, FSDP2 on the same.
    apart = low if chosen.backend == "deepspeed" and chosen.parameters == "world" else 0
    # Micro-batches that DDP does not reduce are summed beside the buckets that it will reduce.
    sums = 8 if chosen.name == "DDP" and train.accumulate > 1 else 4
    return PredictedMemory(
        parameters=(4 + apart) * P / k + second,
        frozen=4 * (cut / k + whole),
        gradients=sums * P / (1 if chosen.gradients == "none" else k),
        optimizer=(in_block * (P - root) + other * root) / k,
        gathered=gathered,
        activations=activations,
        batch=batch,
    )


@dataclass(frozen=True)
class PredictedPeak:
    """Bytes of one rank at the peak: of tensors, with those the allocator still holds, and taken
    from the device as long as there is room."""

    allocated: float
    active: float
    reserved: float


def peak(
    forms: Forms,
    parallel: Parallel,
    train: Train,
    world_size: int,
    by: Protocol,
    optim: Optim | None = None,
) -> PredictedPeak:
    """Return what a rank holds at the peak under a protocol whose peak was fitted.

    The larger of two ends: of forward, when all blocks keep what they need and there are no
    gradients yet, and of backward, when the gradients are whole and one block is left. At both a
    block is at work, between the unit gathered for it and the next one.

    Raises:
        InputError: strategy, group size and world do not fit.
    """
    terms = by.memory
    assert terms is not None, "of a protocol with `memory`"
    chosen = strategy(parallel.strategy)
    layout = chosen.layout(world_size, dict(parallel))
    k, low, batch = layout.dp_shard, DTYPE_BYTES[train.dtype], train.micro_batch
    optim = optim or Optim()
    P = forms.parameters
    in_block, other = optimizer(optim.name).state_bytes(optim)
    states = (4 * P + in_block * (P - forms.root_parameters) + other * forms.root_parameters) / k
    units = [stack.parameters / stack.depth for stack, _ in forms.stacks]
    unit = low * max(units)
    entries = [batch * tokens * stack.width * low for stack, tokens in forms.stacks]
    at_work = (2 + terms.gradient_units) * unit + terms.fixed_gib * 2**30
    at_work += max(
        batch * (stack.block_bytes(T, low) + terms.widths * T * stack.width * low)
        for stack, T in forms.stacks
    )
    kept = batch * sum(
        stack.activation_bytes(T, low, recompute=parallel.recompute) for stack, T in forms.stacks
    )
    whole = low * P if not chosen.reshard_after_forward and k > 1 else 0.0
    forward, backward = states + kept + whole, states + 4 * P / k + entries[0]
    allocated = max(forward, backward) + at_work
    pending = terms.pending_bytes * P
    if k > 1:
        pending = (terms.pending_units + terms.pending_shared / k) * unit
    active = allocated + pending
    return PredictedPeak(allocated, active, active + terms.reserve_gib * 2**30 * (k > 1))
