"""SimMIM in the order of its paper (Xie et al. 2021, arXiv 2111.09886).

Letters: B batch, K cells, h w places of the last stage, C their width, r pixels on a side of one.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hpcgeo.errors import InputError
from hpcgeo.models.backbone import backbone
from hpcgeo.models.patches import unpatchify
from hpcgeo.objectives.simmim.objective import SimmimOptions


class SimMIM(nn.Module):
    """A backbone that reads hidden patches as a token, a layer for pixels, the loss on hidden ones.

    The layer is the 1 x 1 convolution and the pixel shuffle of the paper.
    """

    methods = ("reconstruct",)

    def __init__(
        self, architecture: object, bands: int, chip: tuple[int, int] | None, config: SimmimOptions
    ) -> None:
        """Make it.

        Raises:
            InputError: the cells do not fit patches and chip.
        """
        super().__init__()
        self.backbone = backbone(architecture, (), bands, "uniform")
        self.cell, patch = config.mask_cell, self.backbone.patch
        self.config = config
        if self.cell % patch or any(side % self.cell for side in chip or ()):
            raise InputError(
                f"objective.mask_cell {self.cell}: no multiple of the {patch}-pixel patch, or no "
                f"divisor of data.chip {chip}"
            )
        self.mask_token = nn.Parameter(torch.empty(self.backbone.embed.out_features))
        self.predict = nn.Linear(self.backbone.width, self.backbone.stride**2 * bands)

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        stacks: list[list[nn.Module]] = self.backbone.stacks()
        return stacks

    def forward(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return the loss.

        Args:
            images: (B, bands, height, width), normalised per band.
            noise: (B, K), one number for each cell; the largest are hidden.

        Returns:
            {"loss": mean absolute error of the hidden pixels, float32}
        """
        hidden = self._hidden(images, noise)
        *_, last = self._places(images, hidden)
        return {"loss": self._error(last, images, hidden)}

    def _error(self, last: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """Return the mean absolute error of the pixels that the last places predict."""
        error = (self._pixels(last) - images).abs()
        return (error * hidden[:, None]).sum() / (hidden.sum() * images.shape[1])

    @torch.no_grad()
    def reconstruct(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return images with NaN where they are hidden, and with what is predicted there."""
        hidden = self._hidden(images, noise)[:, None]
        *_, last = self._places(images, hidden[:, 0])
        predicted = self._pixels(last)
        return images.masked_fill(hidden, torch.nan), torch.where(hidden, predicted, images)

    def _hidden(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return which pixels are hidden, (B, height, width)."""
        height, width = (side // self.cell for side in images.shape[-2:])
        count = math.ceil(noise.shape[1] * self.config.mask_ratio)
        order = noise.argsort(dim=1, stable=True, descending=True)
        cells = torch.zeros_like(noise, dtype=torch.bool).scatter(1, order[:, :count], True)
        rows = cells.view(-1, height, width).repeat_interleave(self.cell, 1)
        return rows.repeat_interleave(self.cell, 2)

    def _places(self, images: Tensor, hidden: Tensor) -> Iterator[Tensor]:
        """Yield the places of images whose hidden pixels (B, height, width) are a token."""
        patch = self.backbone.patch
        places: Iterator[Tensor] = self.backbone.places(
            images, hidden[:, ::patch, ::patch], self.mask_token
        )
        return places

    def _pixels(self, last: Tensor) -> Tensor:
        """Return the pixels of whole images, float32, that the last places predict."""
        values = self.predict(last)  # (B, h, w, r r bands)
        return unpatchify(values.flatten(1, 2), self.backbone.stride, values.shape[1:3]).float()
