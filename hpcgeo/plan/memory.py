"""What a rank will hold, in closed form: parameters, gradients, optimizer, gathered units, more.

Letters: P parameters (with tensor parallelism those a rank computes with), k ranks that hold one
copy. The form follows the engine: float32 weights, gradients and optimizer state in shards of
P / k; gathered (FSDP2) or cast (DDP) copies in the dtype of the arithmetic beside them. ZeRO 1 and
2 keep a whole copy in that dtype, ZeRO 3 a shard of it.
"""

from dataclasses import dataclass

from hpcgeo.config import RunConfig
from hpcgeo.optimizers.table import optimizer
from hpcgeo.strategies import strategy
from hpcgeo.zoo import architecture

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank by cause."""

    parameters: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        """Bytes of all causes; the allocator's slack and the libraries come on top."""
        return self.parameters + self.gradients + self.optimizer + self.gathered + self.activations


def predict(run: RunConfig, bands: int, world_size: int) -> Memory:
    """Return what one of `world_size` ranks will hold at most, of each cause.

    Under accumulation all but gathered units meet when the last forward ends. Without it gradients
    grow while activations go, and the sum is an upper bound.

    Raises:
        InputError: strategy, group size and world do not fit, or the run is not one of MAE.
    """
    data, mae = run.mae
    model = architecture(run.model.name)
    chosen = strategy(run.parallel.strategy)
    layout = chosen.layout(world_size, dict(run.parallel))
    model.refuse_cut(layout.tp)
    stacks = (model.encoder, model.decoder)
    root = model.mae_parameters(bands) - sum(stack.parameters for stack in stacks)
    P = root + sum(stack.cut_parameters(layout.tp) for stack in stacks)
    low = DTYPE_BYTES[run.train.dtype]
    activations = run.train.micro_batch * model.mae_activation_bytes(
        bands,
        data.chip,
        mae.mask_ratio,
        low,
        recompute=run.parallel.recompute,
        tensor=layout.tp,
    )
    units = [stack.cut_parameters(layout.tp) / stack.depth for stack in stacks]
    if chosen.name in ("DDP", "ZERO0"):
        gathered = 0.0 if low == 4 else low * P
    elif chosen.reshard_after_forward:
        gathered = low * (2 * max(units) + root)
    else:
        gathered = low * P
    if run.parallel.offload:
        return Memory(0, 0, 0, gathered, activations)
    k = layout.dp_shard
    row = optimizer(run.optim.name)
    # ZeRO 3 steps on other float32 weights than those it gathers, FSDP2 on the same.
    apart = low if chosen.backend == "deepspeed" and chosen.parameters == "world" else 0
    # Micro-batches that DDP does not reduce are summed beside the buckets that it will reduce.
    sums = 8 if chosen.name == "DDP" and run.train.accumulate > 1 else 4
    return Memory(
        parameters=(4 + apart) * P / k,
        gradients=sums * P / (1 if chosen.gradients == "none" else k),
        optimizer=(row.block_bytes * (P - root) + row.other_bytes * root) / k,
        gathered=gathered,
        activations=activations,
    )
