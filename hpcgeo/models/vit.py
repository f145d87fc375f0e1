"""The vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) on patches of any raster.

Letters: B batch, N patches, P = p p C values of a patch, W width, R = 1 + registers.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from hpcgeo.models.drop_path import kept
from hpcgeo.models.features import Features
from hpcgeo.models.layers import NORM_EPS, blocks
from hpcgeo.models.patches import patchify
from hpcgeo.models.positions import resized, sincos_2d
from hpcgeo.models.tokenizers import Tokens
from hpcgeo.zoo import Architecture


class ViT(nn.Module):
    """Linear patch embedding, class token, blocks, norm. Positions come from the caller.

    It takes patches, not images: so it can be given the visible ones alone, and knows nothing of
    the size or aspect of the chip. Architectures may have learned positions, registers (tokens
    beside the class token, arXiv 2309.16588) and LayerScale.

    Attributes:
        drop_path: how often samples skip the last block in training; see `hpcgeo.models.drop_path`.
        widths: of what `places` yields, in its order.
        told: number of those whose features a student learns, by default.
    """

    drop_path = 0.0

    def __init__(self, architecture: Architecture, bands: int) -> None:
        super().__init__()
        width = architecture.encoder.width
        self.patch, self.bands, self.stride = architecture.patch, bands, architecture.patch
        self.width, self.heads, self.context = width, architecture.encoder.heads, width
        self.vector_width = width
        self.widths = (width,) * architecture.encoder.depth
        self.told = len(self.widths)
        self.first = 1 + architecture.registers  #: of the patches among the tokens, R
        self.antialias = architecture.antialias
        self.embed = nn.Linear(architecture.patch**2 * bands, width)
        self.class_token = nn.Parameter(torch.empty(width))
        self.position_token = self.register_token = None
        if architecture.grid:
            self.position_token = nn.Parameter(torch.empty(architecture.grid**2, width))
        if architecture.registers:
            self.register_token = nn.Parameter(torch.empty(architecture.registers, width))
        self.blocks = blocks(architecture.encoder)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, patches: Tensor, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        """Encode patches.

        Args:
            patches: (B, N, P)
            positions: (N, W) or (B, N, W), of `positions`.
            keys: (B,) by which samples skip blocks, where they do.

        Returns:
            (B, R + N, W), the class token first, then the registers; they have no position.
        """
        x = self._entry(patches, positions)  # (B, R + N, W)
        factors = kept(keys, self.drop_path, len(self.blocks))
        for block, factor in zip(self.blocks, factors, strict=True):
            x = block(x) if factor is None else block(x, kept=factor)
        return self.norm(x)

    def places(
        self, images: Tensor, hidden: Tensor | None = None, token: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield the patches (B, h, w, W) of images after each block, the last with the norm.

        Args:
            images: (B, bands, height, width), without gaps.
            hidden: (B, h, w), which patches are replaced by `token` (W,).
        """
        grid = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        x = self.embed(patchify(images, self.patch).to(self.embed.weight.dtype))
        if hidden is not None:
            assert token is not None
            x = torch.where(hidden.flatten(1)[..., None], token.to(x.dtype), x)
        x = self._begun(x, self.positions(grid, images.device))
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            found = self.norm(x) if number == len(self.blocks) else x
            yield found[:, self.first :].unflatten(1, grid)

    def after(self, patches: Tensor, positions: Tensor, numbers: Sequence[int]) -> list[Tensor]:
        """Return what the last norm makes of tokens after some blocks, (B, R + N, W) each.

        Args:
            patches, positions: as in `forward`.
            numbers: of the blocks, from 1; 0: of what enters the first one.
        """
        x = self._entry(patches, positions)
        found = {0: self.norm(x)} if 0 in numbers else {}
        for number, block in enumerate(self.blocks[: max(numbers)], 1):
            x = block(x)
            if number in numbers:
                found[number] = self.norm(x)
        return [found[number] for number in numbers]

    def positions(
        self, grid: tuple[int, int], device: torch.device, native: tuple[int, int] | None = None
    ) -> Tensor:
        """Return the positions (h w, W) of a grid of patches; `native` as of `sincos_2d`."""
        if self.position_token is not None:
            return resized(self.position_token, grid, self.antialias)
        return sincos_2d(self.width, grid, device, native)

    def stacks(self) -> list[list[nn.Module]]:
        """Return the blocks, in the order of their use; each is one unit to shard."""
        return [list(self.blocks)]

    def outputs(self) -> list[nn.Module]:
        """Return what stands behind the blocks."""
        return [self.norm]

    def encode(self, tokens: Tokens) -> Features:
        """Return the features of samples with one image each, of any number of dates.

        Missing pixels are zero, the mean of their band. Latents are the class token, registers and
        patches, means over the dates; the vector is the mean of the patches.
        """
        shapes = [group.values.shape for group in tokens.groups]  # (G, T, C, H, W)
        height, width = shapes[0][3:] if shapes else (self.patch, self.patch)
        empty = tokens.place.new_zeros(0, self.bands, height, width, dtype=torch.float32)
        images = torch.cat([empty, *(group.values.flatten(0, 1) for group in tokens.groups)])
        patches = patchify(images.nan_to_num(0.0, 0.0, 0.0), self.patch)  # (n, N, P)
        grid = height // self.patch, width // self.patch
        keys = tokens.keys_of_images()
        x = self(patches, self.positions(grid, patches.device), keys)  # (n, R + N, W)
        latents = x.new_zeros(len(tokens.place), *x.shape[1:])
        grids, there = [], []
        parts = x.split([G * T for G, T, *_ in shapes]) if shapes else ()
        for group, part, (G, T, *_) in zip(tokens.groups, parts, shapes, strict=True):
            dates = part.unflatten(0, (G, T))  # (G, T, R + N, W)
            latents = latents.index_add(0, group.samples, dates.mean(1))
            grids.append(dates[:, :, None, self.first :].unflatten(3, grid))  # (G, T, 1, h, w, W)
            seen = patchify(group.values.flatten(0, 1).isfinite(), self.patch).any(2)
            there.append(seen.view(G, T, 1, *grid))
        if not shapes:
            latents = latents + x.sum() * 0  # so that all parameters take part
        return Features(latents, latents[:, self.first :].float().mean(1), grids, there)

    def _entry(self, patches: Tensor, positions: Tensor) -> Tensor:
        return self._begun(self.embed(patches.to(self.embed.weight.dtype)), positions)

    def _begun(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x + positions.to(x.dtype)  # (B, N, W)
        tokens = [self.class_token[None]]
        if self.register_token is not None:
            tokens.append(self.register_token)
        first = torch.cat(tokens).to(x.dtype).expand(len(x), -1, -1)
        return torch.cat([first, x], dim=1)  # (B, R + N, W)
