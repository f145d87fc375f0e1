"""CrossMAE: masked autoencoding whose decoder costs what is predicted, not what is masked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from hpcgeo.objectives.mae.objective import Mae, MaeOptions
from hpcgeo.objectives.objective import Material
from hpcgeo.stacks import CrossStack
from hpcgeo.zoo import Architecture, Forms

if TYPE_CHECKING:
    from torch import nn


class CrossMaeOptions(MaeOptions):
    """CrossMAE (Fu et al. 2024, arXiv 2401.14391)."""

    name: Literal["cross_mae"] = "cross_mae"  # type: ignore[assignment]
    predicted: float = Field(
        0.25, gt=0, le=1, description="fraction of the hidden patches that a step predicts"
    )

    def count(self, masked: int) -> int:
        """Return how many of so many masked patches a step predicts."""
        return max(1, round(self.predicted * masked))


class CrossMae(Mae):
    """Hide most patches, predict the pixels of some from the visible ones, each by itself."""

    title = (
        "MAE with a decoder of cross-attention, of a part of the hidden patches (arXiv 2401.14391)"
    )
    Options = CrossMaeOptions
    exports = ("timm",)
    options: CrossMaeOptions

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.cross_mae.network import CrossMAE

        return CrossMAE(material.architecture, material.bands, self.options)

    def forms(self, architecture: Architecture, bands: int, chip: tuple[int, int]) -> Forms:
        """Return the closed forms: of V visible patches that are read and Q that are predicted."""
        plain = super().forms(architecture, bands, chip)
        (encoder, T), (decoder, _) = plain.stacks
        N = architecture.num_patches(chip)
        K = N - architecture.num_visible(chip, self.options.mask_ratio)
        Q = self.options.count(K)
        W, D, P = encoder.width, decoder.width, architecture.patch**2 * bands
        across = CrossStack(**vars(decoder), context=T)

        def edge_bytes(dtype_bytes: int) -> float:
            pixels = N * P + (N - K) * P + 3 * Q * P + (Q * P if dtype_bytes < 4 else 0)
            return 4 * pixels + dtype_bytes * (2 * T * W + T * D + Q * (2 * D + P))

        return replace(
            plain,
            stacks=((encoder, T), (across, Q)),
            edge_flops=plain.edge_flops - 2 * (K - Q) * D * P,
            edge_bytes=edge_bytes,
            summary=f"{plain.summary}, {Q} predicted",
        )
