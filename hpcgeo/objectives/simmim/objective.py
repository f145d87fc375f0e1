"""SimMIM: hidden cells of an image are a token, one layer predicts their pixels.

Letters: B batch, K cells of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from hpcgeo.objectives.objective import IMAGES, Inputs, Material, Objective, ObjectiveOptions

if TYPE_CHECKING:
    from torch import Tensor, nn


class SimmimOptions(ObjectiveOptions):
    """SimMIM (Xie et al. 2021, arXiv 2111.09886)."""

    name: Literal["simmim"] = "simmim"
    mask_ratio: float = Field(0.6, gt=0, lt=1, description="fraction of the cells that is hidden")
    mask_cell: PositiveInt = Field(32, description="pixels on a side of what is hidden together")


class Simmim(Objective):
    """Hide cells of an image, predict their pixels by one layer."""

    title = "predict the pixels of hidden cells by one layer (Xie et al. 2021, arXiv 2111.09886)"
    Options: ClassVar[type[ObjectiveOptions]] = SimmimOptions
    backbones = ("swin", "vit")
    data = (IMAGES,)
    options: SimmimOptions

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.simmim.network import SimMIM

        return SimMIM(material.architecture, material.bands, material.chip, self.options)

    def image_inputs(self, views: Sequence[Tensor], position: Any, num_patches: int) -> Inputs:
        from hpcgeo.objectives.collate import moved
        from hpcgeo.objectives.masking import noise

        height, width = views[0].shape[-2:]
        cells = (height // self.options.mask_cell) * (width // self.options.mask_cell)
        there = moved(noise(self.seed, position, cells), views[0].device)
        return {"images": views[0], "noise": there}
