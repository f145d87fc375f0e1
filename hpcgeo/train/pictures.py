"""Reconstructions one can look at: input, masked, reconstruction, a row per sample, as PNG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from hpcgeo.files import aside
from hpcgeo.sensors import sensor

GAP = 4
HEADER = 16
HOLE = 0.5
#: Red, green, blue; and what bands are called where no sensor is known.
VISIBLE_NM = (665.0, 560.0, 490.0)
WORDS_NM = dict(zip(("red", "green", "blue", "nir"), (*VISIBLE_NM, 842.0), strict=True))
SMALLEST = 160  #: chips below this many pixels are enlarged

Picture = NDArray[np.float32]


def save(path: Path, columns: Mapping[str, Tensor], shown: Sequence[int]) -> None:
    """Write a picture with a column per tensor.

    Args:
        path: of the PNG, written aside and renamed.
        columns: title -> tensor (B, C, h, w), all of one shape; the first one sets the contrast of
            each sample, NaN is grey.
        shown: the bands to show as red, green and blue; see `visible`.
    """
    values = [column[:, list(shown)].float().cpu().numpy() for column in columns.values()]
    low, high = np.percentile(values[0], [1, 99], axis=(1, 2, 3), keepdims=True)
    stretched = [_stretch(value, low, high) for value in values]  # (B, 3, h, w) each
    rows = [
        np.concatenate([_frame(column[b]) for column in stretched], axis=1) for b in range(len(low))
    ]
    image = Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8))
    page = Image.new("RGB", (image.width, image.height + HEADER), "white")
    page.paste(image, (0, HEADER))
    for number, title in enumerate(columns):
        left = number * image.width // len(columns) + GAP
        ImageDraw.Draw(page).text((left, 2), title, fill="black")
    path.parent.mkdir(exist_ok=True)
    with aside(path) as partial:
        page.save(partial, format="PNG")


def visible(bands: Sequence[str], sensor_name: str | None) -> list[int]:
    """Return which bands to show as red, green and blue; the first one thrice where none is known.

    >>> visible(["B02", "B03", "B04", "B08"], "sentinel2")
    [2, 1, 0]
    """
    wavelengths = WORDS_NM
    if sensor_name:
        wavelengths = {b.name: b.wavelength_nm or math.inf for b in sensor(sensor_name).bands}
    if not set(bands) <= wavelengths.keys():
        return [0, 0, 0]
    known = [wavelengths[name] for name in bands]
    return [known.index(min(known, key=lambda nm: abs(nm - wanted))) for wanted in VISIBLE_NM]


def spread_out(count: int, total: int) -> NDArray[np.int64]:
    """Return `count` sample numbers spread evenly over `total`."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(np.int64))


def _stretch(values: Picture, low: Picture, high: Picture) -> Picture:
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.where(np.isnan(scaled), HOLE, scaled)


def _frame(picture: Picture) -> Picture:
    """Return a picture (3, h, w) enlarged and with a white edge, (h', w', 3)."""
    times = max(1, SMALLEST // picture.shape[1])
    large = picture.repeat(times, axis=1).repeat(times, axis=2).transpose(1, 2, 0)
    edge = (GAP // 2, GAP // 2)
    return np.pad(large, (edge, edge, (0, 0)), constant_values=1.0)
