"""Pictures of samples: a column for the input and for each thing made of it, as PNG."""

import colorsys
import math
from collections.abc import Iterable, Mapping, Sequence
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

Rgb = NDArray[np.float32]
Colour = tuple[float, float, float]
Legend = Mapping[str, Colour]
#: From dark to light, from low to high: dark blue, green, yellow.
GRADES = np.array([(0.15, 0.1, 0.35), (0.15, 0.55, 0.5), (0.98, 0.9, 0.2)])


def save(path: Path, columns: Mapping[str, Tensor], shown: Sequence[int]) -> None:
    """Write a picture with a column per tensor.

    Args:
        path: of the PNG, written aside and renamed.
        columns: title -> tensor (B, C, h, w), all of one shape; the first one sets the contrast of
            each sample, NaN is grey.
        shown: the bands to show as red, green and blue; see `visible`.
    """
    values = {
        title: column[:, list(shown)].float().cpu().numpy() for title, column in columns.items()
    }
    first = next(iter(values.values()))
    page(path, {title: stretched(value, first) for title, value in values.items()})


def page(path: Path, columns: Mapping[str, Rgb], legend: Legend | None = None) -> None:
    """Write a picture with a column per title, (B, 3, h, w) in [0, 1], a row per sample.

    Args:
        path: of the PNG, written aside and renamed.
        columns: all of one shape.
        legend: names of colours, below.
    """
    rows = [
        np.concatenate([_frame(sample) for sample in samples], axis=1)
        for samples in zip(*columns.values(), strict=True)
    ]
    image = Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8))
    places = _legend_places(legend or {}, image.width)
    footer = HEADER + max(top for _, top in places) if places else 0
    whole = Image.new("RGB", (image.width, image.height + HEADER + footer), "white")
    whole.paste(image, (0, HEADER))
    draw = ImageDraw.Draw(whole)
    for number, title in enumerate(columns):
        draw.text((number * image.width // len(columns) + GAP, 2), title, fill="black")
    for (name, of_name), (left, top) in zip((legend or {}).items(), places, strict=True):
        below = image.height + HEADER + top + 2
        filling = tuple(round(255 * part) for part in of_name)
        draw.rectangle((left, below, left + 10, below + 10), filling, outline="black")
        draw.text((left + 14, below), name, fill="black")
    path.parent.mkdir(exist_ok=True)
    with aside(path) as partial:
        whole.save(partial, format="PNG")


def stretched(values: Rgb, reference: Rgb) -> Rgb:
    """Return values (B, 3, h, w) in [0, 1] by the contrast of the reference; NaN is grey."""
    low, high = np.percentile(reference, [1, 99], axis=(1, 2, 3), keepdims=True)
    scaled = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return np.where(np.isnan(scaled), HOLE, scaled)


def colour(number: int, count: int) -> Colour:
    """Return the colour of a class of so many; of two the first is dark. Unlabelled is grey."""
    if number < 0:
        return HOLE, HOLE, HOLE
    if count == 2:
        return ((0.1, 0.1, 0.15), (1.0, 0.8, 0.2))[number]
    return colorsys.hsv_to_rgb(number * 0.618 % 1, 0.75, 0.95 - 0.35 * (number % 2))


def coloured(classes: NDArray[np.int64], count: int) -> Rgb:
    """Return classes (B, h, w) in their colours, (B, 3, h, w)."""
    table = np.array([colour(number, count) for number in (*range(count), -1)], dtype=np.float32)
    return np.ascontiguousarray(table[classes].transpose(0, 3, 1, 2))


def graded(position: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the colours (3, ...) of positions (...) in [0, 1] from low to high."""
    stops = np.linspace(0, 1, len(GRADES))
    return np.stack([np.interp(position, stops, channel) for channel in GRADES.T])


def shaded(values: NDArray[np.floating], low: float, high: float) -> Rgb:
    """Return the colours (3, ...) of values (...) between two; NaN is grey."""
    position = np.clip((np.nan_to_num(values) - low) / max(high - low, 1e-12), 0, 1)
    return np.where(np.isfinite(values), graded(position), HOLE).astype(np.float32)


def grades(low: float, high: float, name: str) -> Legend:
    """Return a legend of values between two: the ends and the middle."""
    return {
        f"{name} {low + part * (high - low):.3g}": tuple(graded(np.array(part)).tolist())
        for part in (0.0, 0.5, 1.0)
    }


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


def _legend_places(names: Iterable[str], width: int) -> list[tuple[int, int]]:
    """Return where each name goes, left and top, in as many lines as it takes."""
    places = []
    left = top = 0
    for name in names:
        needed = 24 + 7 * len(name)
        if left and left + needed > width:
            left, top = 0, top + HEADER
        places.append((left + GAP, top))
        left += needed
    return places


def _frame(picture: Rgb) -> Rgb:
    """Return a picture (3, h, w) enlarged and with a white edge, (h', w', 3)."""
    times = max(1, SMALLEST // picture.shape[1])
    large = picture.repeat(times, axis=1).repeat(times, axis=2).transpose(1, 2, 0)
    edge = (GAP // 2, GAP // 2)
    return np.pad(large, (edge, edge, (0, 0)), constant_values=1.0)
