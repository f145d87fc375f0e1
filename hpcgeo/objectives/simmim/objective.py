"""SimMIM: hidden cells of an image are a token, one layer predicts their pixels.

Letters: B batch, K cells of an image; of the closed forms N patches, T tokens, W width, P = p p C
values of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from hpcgeo.objectives.objective import IMAGES, Inputs, Material, Objective, ObjectiveOptions
from hpcgeo.zoo import Architecture, Forms

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

    def forms(self, architecture: Any, bands: int, chip: tuple[int, int]) -> Forms | None:
        return forms(architecture, bands, chip) if architecture.family == "vit" else None

    def image_inputs(self, views: Sequence[Tensor], position: Any, num_patches: int) -> Inputs:
        from hpcgeo.objectives.collate import moved
        from hpcgeo.objectives.masking import noise

        height, width = views[0].shape[-2:]
        cells = (height // self.options.mask_cell) * (width // self.options.mask_cell)
        there = moved(noise(self.seed, position, cells), views[0].device)
        return {"images": views[0], "noise": there}


def forms(architecture: Architecture, bands: int, chip: tuple[int, int]) -> Forms:
    """Return the closed forms of SimMIM on a ViT for one image: all patches are read and predicted.

    Bytes outside of the blocks are those at the loss: the patches, what enters and leaves the last
    norm, what enters the prediction; of the error, in float32, itself, its size and the product
    with what is hidden.
    """
    N, stack = architecture.num_patches(chip), architecture.encoder
    W, P = stack.width, architecture.patch**2 * bands
    T = N + 1 + architecture.registers

    def edge_bytes(dtype_bytes: int) -> float:
        return 3 * 4 * N * P + dtype_bytes * (N * P + 2 * T * W + N * W)

    return Forms(
        stacks=((stack, T),),
        root_parameters=architecture.parameters(bands) - stack.parameters + W + (W + 1) * P,
        edge_flops=4 * N * P * W,
        input_flops=2 * N * P * W,
        edge_bytes=edge_bytes,
        view_bytes=4 * bands * chip[0] * chip[1],
        summary=f"{N} patches of {architecture.patch} x {architecture.patch}, all read",
    )
