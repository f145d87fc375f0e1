"""Masked autoencoding, in the order of its paper (He et al. 2021, arXiv 2111.06377).

Letters: B batch, N patches, V visible, K = N - V masked, P values of a patch, W and D the widths of
encoder and decoder. Attention does not see order, so tokens are never shuffled back: the decoder
reads [class, visible, masked], each with its own position, and its last K outputs are the
predictions.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models.layers import NORM_EPS, blocks
from hpcgeo.models.patches import patchify, unpatchify
from hpcgeo.models.positions import sincos_2d
from hpcgeo.models.vit import ViT
from hpcgeo.objectives.mae.objective import MaeOptions
from hpcgeo.zoo import Architecture


class MAE(nn.Module):
    """Encoder on the visible patches, light decoder, loss on the masked ones."""

    methods = ("reconstruct", "error")

    def __init__(self, architecture: Architecture, bands: int, config: MaeOptions) -> None:
        super().__init__()
        self.architecture = architecture
        self.config = config
        width, narrow = architecture.encoder.width, architecture.decoder.width
        self.backbone = ViT(architecture, bands)
        self.decoder_embed = nn.Linear(width, narrow)
        self.mask_token = nn.Parameter(torch.empty(narrow))
        self.decoder_blocks = blocks(architecture.decoder)
        self.decoder_norm = nn.LayerNorm(narrow, eps=NORM_EPS)
        self.predict = nn.Linear(narrow, architecture.patch**2 * bands)

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        return [list(self.backbone.blocks), list(self.decoder_blocks)]

    def forward(
        self, images: Tensor, noise: Tensor, scale: float | None = None
    ) -> dict[str, Tensor]:
        """Return the loss.

        Args:
            images: (B, C, height, width), normalised per band.
            noise: (B, N), one number per patch; the V smallest stay visible.
            scale: of samples that may be none, with pixels that may be NaN: factor of the sum of
                their errors; None: their mean, and no pixel is missing.

        Returns:
            {"loss": mean squared error on the masked patches, float32}
        """
        if scale is not None:
            return {"loss": self._errors(images, noise, self._learned).sum() * scale}
        patches, visible, masked = self._mask(images, noise)
        masked = self._learned(masked)
        predicted = self._predict(images, patches, visible, masked)  # (B, K, P)
        target = self._target(_take(patches, masked))
        return {"loss": F.mse_loss(predicted.float(), target)}

    @torch.no_grad()
    def error(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return the sum over images of what `forward` takes the mean of."""
        return self._errors(images, noise).sum()

    def _learned(self, masked: Tensor) -> Tensor:
        """Return which of the masked patches (B, K) a step predicts: all."""
        return masked

    def _errors(
        self, images: Tensor, noise: Tensor, chosen: Callable[[Tensor], Tensor] = lambda x: x
    ) -> Tensor:
        """Return the error of each image, (B,), over the masked pixels that are not missing, of
        those of the masked patches that are chosen."""
        there = patchify(images.isfinite(), self.architecture.patch)
        images = images.nan_to_num(0.0, 0.0, 0.0)
        patches, visible, masked = self._mask(images, noise)
        masked = chosen(masked)
        predicted = self._predict(images, patches, visible, masked)  # (B, K, P)
        squares = (predicted.float() - self._target(_take(patches, masked))).square()
        counted = _take(there, masked)
        return (squares * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return (masked images, reconstructions), both (B, C, height, width).

        Masked pixels are NaN in the first. In the second visible patches stand as they are, and a
        normalised prediction is given back the mean and deviation of its patch.
        """
        patches, visible, masked = self._mask(images, noise)
        predicted = self._predict(images, patches, visible, masked).float()
        if self.config.normalise_target:
            mean, deviation = _moments(_take(patches, masked))
            predicted = predicted * deviation + mean
        places = masked[:, :, None].expand_as(predicted)
        whole = patches.scatter(1, places, predicted)
        holes = patches.scatter(1, places, torch.full_like(predicted, torch.nan))
        grid = self._grid(images)
        patch = self.architecture.patch
        return unpatchify(holes, patch, grid), unpatchify(whole, patch, grid)

    def _mask(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patches = patchify(images, self.architecture.patch)  # (B, N, P)
        height, width = images.shape[-2:]
        num_visible = self.architecture.num_visible((height, width), self.config.mask_ratio)
        order = noise.argsort(dim=1, stable=True)  # ties are alike on every device
        return patches, order[:, :num_visible], order[:, num_visible:]

    def _predict(self, images: Tensor, patches: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        grid, device = self._grid(images), images.device
        wide = self.backbone.positions(grid, device)
        narrow = sincos_2d(self.architecture.decoder.width, grid, device)
        x = self.backbone(_take(patches, visible), wide[visible])  # (B, R + V, W)
        x = self.decoder_embed(x)  # (B, R + V, D)
        hidden = self.mask_token.to(x.dtype) + narrow[masked].to(x.dtype)  # (B, K, D)
        read = self._decode(x, narrow[visible].to(x.dtype), hidden)  # (B, K, D)
        return self.predict(self.decoder_norm(read))  # (B, K, P)

    def _decode(self, x: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """Return what the decoder makes of masked patches, (B, K, D).

        Args:
            x: (B, R + V, D), of the encoder.
            seen: (B, V, D), positions of the visible patches.
            hidden: (B, K, D), the mask token at the positions of the masked ones.
        """
        first = self.backbone.first
        x = torch.cat([x[:, :first], x[:, first:] + seen, hidden], dim=1)  # (B, R + N, D)
        for block in self.decoder_blocks:
            x = block(x)
        return x[:, -hidden.shape[1] :]

    def _target(self, patches: Tensor) -> Tensor:
        if not self.config.normalise_target:
            return patches
        mean, deviation = _moments(patches)
        return (patches - mean) / deviation

    def _grid(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[-2:]
        return height // self.architecture.patch, width // self.architecture.patch


def _take(patches: Tensor, index: Tensor) -> Tensor:
    """Return the patches (B, K, P) that index (B, K) names, of (B, N, P)."""
    return patches.gather(1, index[:, :, None].expand(-1, -1, patches.shape[2]))


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each patch, (B, K, 1); the variance is the unbiased one."""
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + 1e-6) ** 0.5
