"""CrossMAE in the order of its paper (Fu et al. 2024, arXiv 2401.14391, section 3.2).

Masked patches are queries that read the encoder's last features of the visible ones, and not each
other: so any number of them can be left out. (Features of several of its blocks: not done.)
"""

from torch import Tensor, nn

from hpcgeo.models.perceiver import CrossBlock
from hpcgeo.objectives.cross_mae.objective import CrossMaeOptions
from hpcgeo.objectives.mae.network import MAE
from hpcgeo.zoo import Architecture


class CrossMAE(MAE):
    """MAE whose masked patches are predicted by themselves, a part of them in a step."""

    config: CrossMaeOptions

    def __init__(self, architecture: Architecture, bands: int, config: CrossMaeOptions) -> None:
        super().__init__(architecture, bands, config)
        stack = architecture.decoder
        shape = stack.width, stack.width, stack.heads, stack.hidden, stack.mlp
        self.decoder_blocks = nn.ModuleList(CrossBlock(*shape) for _ in range(stack.depth))

    def _learned(self, masked: Tensor) -> Tensor:
        return masked[:, : self.config.count(masked.shape[1])]  # in random order

    def _decode(self, x: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        for block in self.decoder_blocks:
            hidden = block(hidden, x)
        return hidden
