"""Masked autoencoding: its options, closed forms, and what it takes of images and of samples.

Letters of the closed forms: N patches, V visible ones, W and D the widths of encoder and decoder,
P = p p C values of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from hpcgeo.objectives.objective import (
    IMAGES,
    TASKS,
    Inputs,
    Material,
    Objective,
    ObjectiveOptions,
    SampleBatch,
)
from hpcgeo.zoo import Architecture, Forms

if TYPE_CHECKING:
    from torch import Tensor, nn


class MaeOptions(ObjectiveOptions):
    """Masked autoencoding (He et al. 2021, arXiv 2111.06377)."""

    name: Literal["mae"] = "mae"
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="fraction of patches that is hidden")
    normalise_target: bool = Field(
        True, description="predict patches normalised by their own mean and deviation"
    )


class Mae(Objective):
    """Hide most patches, predict their pixels."""

    title = "predict the pixels of hidden patches (He et al. 2021, arXiv 2111.06377)"
    Options = MaeOptions
    backbones = ("vit",)
    data = (IMAGES, TASKS)
    exports: ClassVar[tuple[str, ...]] = ("transformers", "timm")
    options: MaeOptions

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.mae.network import MAE

        return MAE(material.architecture, material.bands, self.options)

    def forms(self, architecture: Architecture, bands: int, chip: tuple[int, int]) -> Forms:
        return forms(architecture, bands, chip, self.options.mask_ratio)

    def image_inputs(self, views: Sequence[Tensor], position: Any, num_patches: int) -> Inputs:
        from hpcgeo.objectives.collate import moved
        from hpcgeo.objectives.masking import noise

        there = moved(noise(self.seed, position, num_patches), views[0].device)
        return {"images": views[0], "noise": there}

    def task_inputs(self, batch: SampleBatch) -> Inputs:
        """Return the first date of each image, what is missing NaN, and noise of its patches."""
        import numpy as np
        import torch

        from hpcgeo.objectives.masking import noise

        material = batch.material
        assert material.chip is not None
        height, width = material.chip
        images = np.zeros((len(batch.drawn), material.bands, height, width), dtype=np.float32)
        for row, one in enumerate(batch.drawn):
            images[row] = one.sample.observations[0].values[0]
        position = np.array([one.position for one in batch.drawn], dtype=np.int64)
        num_patches = material.architecture.num_patches(material.chip)
        return {
            "images": torch.from_numpy(images),
            "noise": noise(self.seed, position, num_patches),
        }


def forms(
    architecture: Architecture, bands: int, chip: tuple[int, int], mask_ratio: float
) -> Forms:
    """Return the closed forms of MAE for one image: V patches embedded, N - V predicted.

    Bytes outside of the blocks are those at the loss: all patches, the visible and the masked ones,
    the target and its deviation from the mean in float32; what enters and leaves the last norms,
    the embedded tokens, the prediction.

    Raises:
        InputError: the chip is no multiple of the patch, or nothing would be visible.
    """
    N, V = architecture.num_patches(chip), architecture.num_visible(chip, mask_ratio)
    encoder, decoder = architecture.encoder, architecture.decoder
    W, D, P = encoder.width, decoder.width, architecture.patch**2 * bands
    R = 1 + architecture.registers

    def edge_bytes(dtype_bytes: int) -> float:
        pixels = N * P + V * P + 3 * (N - V) * P
        tokens = 2 * (V + R) * W + (N + R) * D + (N - V) * (D + P)
        in_float32 = (N - V) * P if dtype_bytes < 4 else 0  # the prediction, once more
        return 4 * (pixels + in_float32) + tokens * dtype_bytes

    outside = architecture.parameters(bands) - encoder.parameters
    return Forms(
        stacks=((encoder, V + R), (decoder, N + R)),
        root_parameters=outside + (W + 1) * D + D + 2 * D + (D + 1) * P,
        edge_flops=2 * V * P * W + 2 * (V + R) * W * D + 2 * (N - V) * D * P,
        input_flops=2 * V * P * W,
        edge_bytes=edge_bytes,
        view_bytes=4 * bands * chip[0] * chip[1],
        summary=f"{N} patches of {architecture.patch} x {architecture.patch}, {V} visible",
    )
