"""What a rank will hold, in closed form: parameters, gradients, optimizer, gathered units, more.

Letters: P parameters, k ranks that hold one copy. The form follows the engine: float32 weights,
gradients and AdamW moments in shards of P / k; under bfloat16 a gathered (FSDP2) or cast (DDP)
copy in bfloat16 beside them. ZeRO 1 and 2 keep a whole copy in the dtype of the arithmetic.
"""

from dataclasses import dataclass

from hpcgeo.config import RunConfig
from hpcgeo.strategies import Strategy, strategy
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
    """Return what one of `world_size` ranks will hold at the end of a forward.

    Raises:
        InputError: strategy, group size and world do not fit.
    """
    model = architecture(run.model.name)
    chosen = strategy(run.parallel.strategy)
    k = chosen.shard_size(world_size, run.parallel.group_size)
    P = model.mae_parameters(bands)
    low = DTYPE_BYTES[run.train.dtype]
    activations = model.mae_activation_bytes(run.data.chip, run.objective.mask_ratio, low)
    return Memory(
        parameters=(4 + _apart(chosen, low)) * P / k,
        gradients=4 * P / (1 if chosen.gradients == "none" else k),
        optimizer=8 * P / k,
        gathered=_gathered(run, bands, low),
        activations=run.train.micro_batch * activations,
    )


def _apart(chosen: Strategy, low: int) -> int:
    """Return the bytes of a parameter in the shard that forward gathers, if it is one of its own.

    ZeRO 3 steps on other float32 weights than those it gathers, FSDP2 on the same.
    """
    return low if chosen.backend == "deepspeed" and chosen.parameters == "world" else 0


def _gathered(run: RunConfig, bands: int, low: int) -> float:
    """Return the bytes of whole units: two of them if resharded after forward, else all."""
    model = architecture(run.model.name)
    P = model.mae_parameters(bands)
    if run.parallel.strategy in ("DDP", "ZERO0"):
        return 0.0 if low == 4 else low * P
    if not strategy(run.parallel.strategy).reshard_after_forward:
        return low * P
    stacks = (model.encoder, model.decoder)
    unit = max(stack.parameters / stack.depth for stack in stacks)
    root = P - sum(stack.parameters for stack in stacks)
    return low * (2 * unit + root)
