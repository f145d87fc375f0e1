"""Fixed 2-D sine-cosine positions, as MAE has them (arXiv 2111.06377, code: pos_embed.py)."""

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def sincos_2d(width: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return positions (h w, width) of an (h, w) grid of patches in float32.

    The first half of the width encodes the column, the second the row; within each half the sines
    of all frequencies stand before the cosines.

    Raises:
        ValueError: width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width {width}: 2-D sine-cosine positions need a multiple of 4")
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64),
        torch.arange(grid[1], dtype=torch.float64),
        indexing="ij",
    )
    halves = [_sincos(width // 2, axis.reshape(-1)) for axis in (columns, rows)]
    return torch.cat(halves, dim=1).float().to(device)  # (h w, width)


def _sincos(width: int, place: Tensor) -> Tensor:
    frequency = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = place[:, None] * frequency  # (N, width / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
