"""The Swin transformer (Liu et al. 2021, arXiv 2103.14030): attention in windows, at four scales.

Version 2 (Liu et al. 2022, arXiv 2111.09883) has its norms behind attention and MLP, attention by
cosines, and a bias of positions that a small network computes: it fits windows of any size.

Letters: B batch, h w places of a stage, C its width, H heads, d = C / H, M side of a window,
T = M M, N windows of an image.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.models.drop_path import kept as factors_of
from hpcgeo.models.drop_path import skipping
from hpcgeo.models.features import Features
from hpcgeo.models.layers import PlainMlp
from hpcgeo.models.low_rank import product
from hpcgeo.models.patches import patchify
from hpcgeo.models.tokenizers import Tokens
from hpcgeo.swin import SwinArchitecture

NORM_EPS = 1e-5
#: The largest factor of a cosine (version 2), and the units of the network of its bias.
STEEPEST, BIAS_UNITS = 100.0, 512


class WindowBias(nn.Module):
    """A learned bias for each offset of two places in a window, (version 1)."""

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.offset_token = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))

    def forward(self, window: int) -> Tensor:
        """Return the bias of a window, which may be smaller than usual, (H, T, T)."""
        index = _offsets(window, self.window, self.offset_token.device)
        return self.offset_token[index].permute(2, 0, 1)


class ComputedBias(nn.Module):
    """The bias of an offset, by a network of its logarithm (version 2).

    Args:
        trained: side of the windows that the network has learned; 0: those it is used with.
    """

    def __init__(self, heads: int, trained: int) -> None:
        super().__init__()
        self.trained = trained
        self.into = nn.Linear(2, BIAS_UNITS)
        self.out = nn.Linear(BIAS_UNITS, heads, bias=False)

    def forward(self, window: int) -> Tensor:
        """Return the bias of a window, (H, T, T)."""
        device = self.into.weight.device
        table = _logarithms(window, self.trained or window, device).to(self.into.weight.dtype)
        bias = 16 * self.out(self.into(table).relu()).sigmoid()  # ((2 M - 1)^2, H)
        return bias[_offsets(window, window, device)].permute(2, 0, 1)


class Cosine(nn.Module):
    """The factor of the cosines of each head (version 2), and the bias of q and v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.empty(heads))
        self.query, self.value = Shift(width), Shift(width)


class Shift(nn.Module):
    """A bias alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(width))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside of windows.

    The rows of the product for q, k and v are ordered (H, 3, d), as of a ViT.
    """

    def __init__(self, width: int, heads: int, stage: SwinArchitecture) -> None:
        super().__init__()
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=stage.version == 1)
        self.out = nn.Linear(width, width)
        self.cosine = Cosine(width, heads) if stage.version == 2 else None
        self.bias: WindowBias | ComputedBias = (
            WindowBias(heads, stage.window)
            if stage.version == 1
            else ComputedBias(heads, stage.trained_window)
        )
        self.low_rank = nn.ModuleDict()

    def forward(self, x: Tensor, window: int, allowed: Tensor | None) -> Tensor:
        """Return (B, N, T, C) of windows (B, N, T, C).

        Args:
            window: their side.
            allowed: (N, T, T), which places may attend to which; None: all of a window.
        """
        B, N, T, C = x.shape
        all_three = product(self, "qkv", x).view(B * N, T, C // self.head_width, 3, self.head_width)
        q, k, v = all_three.transpose(1, 2).unbind(3)  # (B N, H, T, d)
        scale = self.head_width**-0.5
        if self.cosine is not None:
            heads = (-1, 1, self.head_width)
            v = v + self.cosine.value.bias.to(v.dtype).view(heads)
            q = F.normalize(q + self.cosine.query.bias.to(q.dtype).view(heads), dim=-1)
            steep = self.cosine.log_scale.clamp(max=math.log(STEEPEST)).exp()
            q, k, scale = q * steep.to(q.dtype)[:, None, None], F.normalize(k, dim=-1), 1.0
        bias = self.bias(window).to(q.dtype)  # (H, T, T)
        if allowed is not None:
            seen = bias.masked_fill(~allowed[:, None], -torch.inf)  # (N, H, T, T)
            bias = seen.expand(B, -1, -1, -1, -1).reshape(B * N, *bias.shape)
        if B:
            read = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        else:  # fused kernels abort on a pass without samples
            read = (q * scale @ k.transpose(-2, -1) + bias).softmax(dim=-1) @ v
        return product(self, "out", read.transpose(1, 2).reshape(B, N, T, C))


class SwinBlock(nn.Module):
    """Attention in windows, which may lie shifted by half their side, and an MLP.

    Args:
        width, heads: of the stage.
        shifted: every second block's windows are.
        architecture: of the backbone.
    """

    def __init__(
        self, width: int, heads: int, shifted: bool, architecture: SwinArchitecture
    ) -> None:
        super().__init__()
        self.window, self.shifted = architecture.window, shifted
        self.norm_first = architecture.version == 1
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = WindowAttention(width, heads, architecture)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = PlainMlp(width, architecture.mlp_ratio * width)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the places (B, h, w, C) after this block; `kept` as of `TransformerBlock`."""
        attention, mlp = (None, None) if kept is None else kept[..., None]
        if self.norm_first:
            x = x + skipping(self._attended(self.attention_norm(x)), attention)
            return x + skipping(self.mlp(self.mlp_norm(x)), mlp)
        x = x + skipping(self.attention_norm(self._attended(x)), attention)
        return x + skipping(self.mlp_norm(self.mlp(x)), mlp)

    def _attended(self, x: Tensor) -> Tensor:
        B, h, w, C = x.shape
        M = min(self.window, h, w)
        shift = M // 2 if self.shifted and min(h, w) > self.window else 0
        down, right = -h % M, -w % M
        if down or right:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        height, width = h + down, w + right
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        x = x.view(B, height // M, M, width // M, M, C).transpose(2, 3)
        x = x.reshape(B, height // M * (width // M), M * M, C)
        allowed = _allowed(height, width, M, shift, x.device) if shift else None
        x = self.attention(x, M, allowed)
        x = x.view(B, height // M, width // M, M, M, C).transpose(2, 3).reshape(B, height, width, C)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x[:, :h, :w]


class Merge(nn.Module):
    """Four neighbouring places become one of twice the width."""

    def __init__(self, width: int, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm = nn.LayerNorm((4 if norm_first else 2) * width, eps=NORM_EPS)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, h / 2, w / 2, 2 C) of (B, h, w, C); an odd side gets zeros."""
        h, w = x.shape[1:3]
        if h % 2 or w % 2:
            x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=-1)
        return self.reduce(self.norm(x)) if self.norm_first else self.norm(self.reduce(x))


class Swin(nn.Module):
    """Patches, stages of blocks, each but the first after a merge, and a norm.

    Attributes:
        drop_path: how often samples skip the last block in training.
        stride: pixels on a side of a place of the last stage.
        widths: of what `places` yields, in its order.
        told: number of those whose features a student learns, by default (GFM's).
    """

    drop_path = 0.0
    told = 3

    def __init__(self, architecture: SwinArchitecture, bands: int) -> None:
        super().__init__()
        self.patch, self.bands, self.stride = architecture.patch, bands, architecture.stride
        self.depths = architecture.depths
        widths = architecture.widths
        self.widths = (*widths[1:], widths[-1])
        self.width = self.context = self.vector_width = widths[-1]
        self.heads = architecture.heads[-1]
        self.embed = nn.Linear(self.patch**2 * bands, widths[0])
        self.embed_norm = nn.LayerNorm(widths[0], eps=NORM_EPS)
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, number % 2 == 1, architecture)
            for width, heads, depth in zip(
                widths, architecture.heads, architecture.depths, strict=True
            )
            for number in range(depth)
        )
        self.merges = nn.ModuleList(
            Merge(width, architecture.version == 1) for width in widths[:-1]
        )
        self.norm = nn.LayerNorm(widths[-1], eps=NORM_EPS)

    def forward(self, images: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return the places of the last stage, of `places`."""
        *_, last = self.places(images, keys=keys)
        return last

    def places(
        self,
        images: Tensor,
        hidden: Tensor | None = None,
        token: Tensor | None = None,
        keys: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Yield the places (B, h, w, C) of images after each stage: as the next one reads them,
        merged; the last with the norm.

        Args:
            images: (B, bands, height, width), without gaps; a side that is no multiple of the patch
                gets zeros.
            hidden: (B, h, w) of the first stage, which patches are replaced by `token` (C,).
            keys: (B,) by which samples skip blocks, where they do.
        """
        height, width = images.shape[-2:]
        down, right = -height % self.patch, -width % self.patch
        if down or right:
            images = F.pad(images, (0, right, 0, down))
        grid = (height + down) // self.patch, (width + right) // self.patch
        x = self.embed(patchify(images, self.patch).to(self.embed.weight.dtype))
        x = self.embed_norm(x).unflatten(1, grid)
        if hidden is not None:
            assert token is not None
            x = torch.where(hidden[..., None], token.to(x.dtype), x)
        factors = iter(factors_of(keys, self.drop_path, len(self.blocks)))
        blocks = iter(self.blocks)
        for depth, leave in zip(self.depths, (*self.merges, self.norm), strict=True):
            for _ in range(depth):
                factor = next(factors)
                block = next(blocks)
                x = block(x) if factor is None else block(x, kept=factor)
            x = leave(x)
            yield x

    def stacks(self) -> list[list[nn.Module]]:
        """Return blocks and merges, in the order of their use; each is one unit to shard."""
        blocks, units = iter(self.blocks), []
        for stage, depth in enumerate(self.depths):
            units.append(
                [
                    *([self.merges[stage - 1]] if stage else []),
                    *(next(blocks) for _ in range(depth)),
                ]
            )
        return units

    def outputs(self) -> list[nn.Module]:
        """Return what stands behind the blocks."""
        return [self.norm]

    def encode(self, tokens: Tokens) -> Features:
        """Return the features of samples with one image each, of any number of dates.

        Missing pixels are zero. Latents are the places of the last stage, means over the dates; the
        vector is their mean.
        """
        shapes = [group.values.shape for group in tokens.groups]  # (G, T, C, H, W)
        side = self.stride
        height, width = shapes[0][3:] if shapes else (side, side)
        empty = tokens.place.new_zeros(0, self.bands, height, width, dtype=torch.float32)
        images = torch.cat([empty, *(group.values.flatten(0, 1) for group in tokens.groups)])
        x = self(images.nan_to_num(0.0, 0.0, 0.0), tokens.keys_of_images())  # (n, h, w, C)
        latents = x.new_zeros(len(tokens.place), *x.shape[1:]).flatten(1, 2)
        grids, there = [], []
        parts = x.split([G * T for G, T, *_ in shapes]) if shapes else ()
        for group, part, (G, T, *_) in zip(tokens.groups, parts, shapes, strict=True):
            dates = part.unflatten(0, (G, T))  # (G, T, h, w, C)
            latents = latents.index_add(0, group.samples, dates.mean(1).flatten(1, 2))
            grids.append(dates[:, :, None])
            there.append(_seen(group.values, side, part.shape[1:3]).view(G, T, 1, *part.shape[1:3]))
        if not shapes:
            latents = latents + x.sum() * 0  # so that all parameters take part
        return Features(latents, latents.float().mean(1), grids, there)


def _seen(values: Tensor, side: int, grid: Sequence[int]) -> Tensor:
    """Return which places of a grid hold any pixel of (G, T, C, H, W) that is not missing."""
    pixels = values.flatten(0, 1).isfinite().any(1)  # (G T, H, W)
    height, width = (n * side for n in grid)
    padded = F.pad(pixels, (0, width - pixels.shape[2], 0, height - pixels.shape[1]))
    return padded.view(-1, grid[0], side, grid[1], side).any(4).any(2)


@lru_cache(maxsize=64)
def _offsets(window: int, table: int, device: torch.device) -> Tensor:
    """Return which row of a table of offsets ((2 m - 1)^2,) two places of a window have, (T, T)."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    down, right = (each.flatten()[:, None] - each.flatten() for each in (rows, columns))
    return ((down + table - 1) * (2 * table - 1) + right + table - 1).to(device)


@lru_cache(maxsize=64)
def _logarithms(window: int, trained: int, device: torch.device) -> Tensor:
    """Return the offsets of a window ((2 M - 1)^2, 2) as version 2 has them, in -1 to 1 times 8
    beyond which logarithms are taken."""
    along = torch.arange(1.0 - window, window) / max(1, trained - 1) * 8
    along = along.sign() * (along.abs() + 1).log2() / 3
    return torch.stack(torch.meshgrid(along, along, indexing="ij"), -1).flatten(0, 1).to(device)


@lru_cache(maxsize=64)
def _allowed(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Return which places of shifted windows may attend to which: neighbours alone, (N, T, T)."""
    down, right = (
        (torch.arange(side) >= side - window).long() + (torch.arange(side) >= side - shift).long()
        for side in (height, width)
    )
    region = down[:, None] * 3 + right  # (h, w)
    windows = region.view(height // window, window, width // window, window).transpose(1, 2)
    flat = windows.reshape(-1, window**2)
    return (flat[:, :, None] == flat[:, None]).to(device)
