"""Images and finer ones of the same ground, cut into chips: the finer one is the label."""

from functools import partial
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling

from hpcgeo.data.readers.benchmarks.facts import Benchmark, count
from hpcgeo.data.readers.benchmarks.masks import matches
from hpcgeo.data.readers.benchmarks.splits import listed_or_ours
from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    Int64,
    numbered,
    read_from,
    single_target,
)
from hpcgeo.data.readers.windows import Header, header, read
from hpcgeo.data.sample import Observation, Sample
from hpcgeo.data.shards.geography import place
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the chips of a folder: whole ones, of the size of the frame in finer pixels.

    The coarser image is brought to the pixels of the finer one, which is divided by `range`.
    `files` has `layouts`, patterns of the `coarse` and the `fine` image with a part {area} by which
    splits of ours are stratified; the first with a finer image that is there is read.

    Raises:
        InputError: another target than the one there is, no finer image, a coarser one that is not
            there, or a frame that is larger than an image.
    """
    single_target(target, row.kind)
    for layout in row.files["layouts"]:
        if found := matches(row, path, layout["fine"]):
            break
    else:
        tried = ", ".join(layout["fine"] for layout in row.files["layouts"])
        raise InputError(f"{path}: no finer images of {row.title}: {tried}")
    fine = [header(file) for _, file in found]
    coarse = [path / layout["coarse"].format(**parts) for parts, _ in found]
    count(row, len(fine), path)
    chips = np.array([(n, *at) for n, image in enumerate(fine) for at in _grid(image, frame)])
    names = [image.path.relative_to(path).as_posix() for image in fine]
    areas = numbered([parts["area"] for parts, _ in found])[1]
    splits, lists = listed_or_ours(row, path, names, areas)
    return Collection(
        target=Target(row.kind, row.bands),
        channels=row.channels,
        splits=splits[chips[:, 0]],
        groups=np.array(names)[chips[:, 0]],
        labels=np.empty(0),
        **read_from([*coarse, *(image.path for image in fine)], lists),
        load=partial(_load, row, coarse, fine, chips),
    )


def _grid(image: Header, frame: Frame) -> list[tuple[int, int, int, int, int]]:
    """Return first row and column, height and width of the chips of an image, and their patch."""
    size, patch = frame.size, frame.patch
    if size is None:
        return [(0, 0, image.height // patch * patch, image.width // patch * patch, patch)]
    if size > min(image.height, image.width):
        raise InputError(
            f"{image.path}: {image.height} x {image.width} pixels, and chips of {size}: choose a "
            "smaller size"
        )
    rows, columns = image.height // size, image.width // size
    corners = np.ndindex(rows, columns)
    return [(row * size, column * size, size, size, patch) for row, column in corners]


def _load(
    row: Benchmark, coarse: list[Path], fine: list[Header], chips: Int64, index: int
) -> Sample:
    number, top, left, height, width, patch = chips[index].tolist()
    image, shape = fine[number], (height, width)
    affine = image.transform
    west, north = affine.c + left * affine.a, affine.f + top * affine.e
    box = (west, north + height * affine.e, west + width * affine.a, north)
    numbers = list(range(1, len(row.bands) + 1))
    values = read(coarse[number], numbers, box, shape, Resampling.bilinear)
    label = read(image.path, numbers, box, shape, Resampling.nearest) / row.files["range"]
    middle = np.array([top + height / 2]), np.array([left + width / 2])
    lon, lat, gsd_m = place(image.crs, affine[:6], *middle)
    seen = Observation(row.channels, values[None], ANY_TIME, float(gsd_m[0]), patch)
    return Sample((seen,), label.astype(np.float32), (float(lon[0]), float(lat[0])))
