"""How each parameter is updated: by which part of the learning rate, and whether it rests at first.

Layer-wise decay (Clark et al. 2020, arXiv 2003.10555; Bao et al. 2022, arXiv 2106.08254; as MAE's
util/lr_decay.py): of L blocks, block i from 1 learns at decay^(L + 1 - i) of the rate, what embeds
at decay^(L + 1), what follows the blocks and the heads at the whole rate.
"""

from typing import Any, NamedTuple

from hpcgeo.errors import InputError
from hpcgeo.options import Optim


class Update(NamedTuple):
    """What is particular to the updates of a parameter.

    Attributes:
        scale: factor of the learning rate.
        rests: as long as the backbone is frozen.
    """

    scale: float = 1.0
    rests: bool = False


def updates(objective: Any, optim: Optim) -> dict[str, Update]:
    """Return how each parameter of an objective is updated, by name.

    Blocks are those of the backbone's `stacks`; what stands behind them it names itself
    (`outputs`, where it has any).

    Raises:
        InputError: the objective has no backbone to tell apart from its heads.
    """
    names = [name for name, _ in objective.named_parameters()]
    if optim.layer_decay is None and not optim.frozen_steps:
        return dict.fromkeys(names, Update())
    backbone = getattr(objective, "backbone", None)
    if backbone is None:
        option = "layer_decay" if optim.layer_decay is not None else "frozen_steps"
        raise InputError(
            f"optim.{option} {getattr(optim, option)}: this objective names no backbone: drop it, "
            f"or choose objective.name multitask"
        )
    blocks = [block for stack in backbone.stacks() for block in stack]
    outputs = backbone.outputs() if hasattr(backbone, "outputs") else []
    last, decay = len(blocks) + 1, optim.layer_decay or 1.0
    depth = {id(value): 0 for value in backbone.parameters()}
    for number, block in enumerate(blocks, 1):
        depth |= {id(value): number for value in block.parameters()}
    depth |= {id(value): last for module in outputs for value in module.parameters()}
    rests = optim.frozen_steps > 0
    if rests and not all(value.requires_grad for value in backbone.parameters()):
        raise InputError(
            f"optim.frozen_steps {optim.frozen_steps}: the weights of this backbone are never "
            f"trained (model.lora_rank): leave one out"
        )
    return {
        name: Update(decay ** (last - depth[id(value)]), rests) if id(value) in depth else Update()
        for name, value in objective.named_parameters()
    }
