"""Reconstructions one can look at: input, masked, reconstruction, a row per sample, as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

GAP = 4
HOLE = 0.5


def save(path: Path, rows: Sequence[Tensor], bands: Sequence[str]) -> None:
    """Write a picture with a column per tensor.

    Args:
        path: of the PNG, written aside and renamed.
        rows: tensors (B, C, h, w) of equal shape; the first one sets the contrast, NaN is grey.
        bands: their names; red, green and blue are shown where they are, else the first band.
    """
    colour = [bands.index(name) for name in ("red", "green", "blue") if name in bands]
    chosen = colour if len(colour) == 3 else [0]
    columns = [tensor[:, chosen].float().cpu().numpy() for tensor in rows]
    low, high = np.percentile(columns[0], [1, 99], axis=(2, 3), keepdims=True)
    pictures = [_stretch(column, low, high) for column in columns]  # (B, C, h, w) each
    lines = [np.concatenate([_frame(p[b]) for p in pictures], axis=2) for b in range(len(low))]
    whole = np.concatenate(lines, axis=1)
    image = np.repeat(whole, 3, axis=0) if len(chosen) == 1 else whole
    pixels = (image.transpose(1, 2, 0) * 255).round().astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    Image.fromarray(pixels).save(aside, format="PNG")
    aside.replace(path)


def _stretch(
    values: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.float32]:
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.where(np.isnan(scaled), HOLE, scaled)


def _frame(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(picture, ((0, 0), (GAP // 2,) * 2, (GAP // 2,) * 2), constant_values=1.0)


def spread_out(count: int, total: int) -> NDArray[np.int64]:
    """Return `count` sample numbers spread evenly over `total`."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))
