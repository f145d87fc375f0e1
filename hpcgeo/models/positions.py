"""2-D positions of patches: fixed sines and cosines, or learned ones brought to another grid."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=32)
def sincos_2d(
    width: int,
    grid: tuple[int, int],
    device: torch.device,
    native: tuple[int, int] | None = None,
) -> Tensor:
    """Return fixed positions (h w, width) of an (h, w) grid of patches in float32.

    As MAE has them (arXiv 2111.06377, code: pos_embed.py). The first half of the width encodes the
    column, the second the row; within each half the sines of all frequencies stand before the
    cosines.

    Args:
        width: of a token.
        grid: rows and columns of patches.
        device: of the result.
        native: the grid that the weights were trained on, over which this one is stretched: the
            middles of patches lie where they lie in the image. None: this one.

    Raises:
        ValueError: width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width {width}: 2-D sine-cosine positions need a multiple of 4")
    axes = [
        (torch.arange(size, dtype=torch.float64) + 0.5) * of / size - 0.5
        for size, of in zip(grid, native or grid, strict=True)
    ]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    halves = [_sincos(width // 2, axis.reshape(-1)) for axis in (columns, rows)]
    return torch.cat(halves, dim=1).float().to(device)  # (h w, width)


def resized(positions: Tensor, grid: tuple[int, int], antialias: bool) -> Tensor:
    """Return learned positions (N, width) of a square grid as those of another, (h w, width).

    Bicubic, as DINOv2 (arXiv 2304.07193) and timm do it; DINOv2 with registers filters them too.
    """
    side = round(len(positions) ** 0.5)
    if grid == (side, side):
        return positions
    x = positions.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    x = F.interpolate(x, grid, mode="bicubic", align_corners=False, antialias=antialias)
    return x.permute(0, 2, 3, 1).flatten(1, 2)[0].to(positions.dtype)


def _sincos(width: int, place: Tensor) -> Tensor:
    frequency = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = place[:, None] * frequency  # (N, width / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
