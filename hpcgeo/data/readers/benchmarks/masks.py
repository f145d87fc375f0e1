"""Images of one or two dates with a mask each, cut into chips.

Paths have named parts: {split}, the split by the word that the data set has for it; {name}, one
image; {band}, a file for each band; others are what they are in the path of the mask.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hpcgeo.data.readers.benchmarks.facts import Benchmark, count, split_of, split_words
from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    Int64,
    days,
    read_from,
    reading,
    single_target,
)
from hpcgeo.data.readers.windows import Shape, shape_of, window
from hpcgeo.data.sample import Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import IGNORED, Target
from hpcgeo.log import log

#: Fraction of the pixels of a chip whose colour may be that of no class: odd ones at edges.
ODD = 0.01


@dataclass(frozen=True)
class Masked:
    """One image of the data set.

    Attributes:
        name: its name, with the split where names begin anew in each.
        split: one of `SPLITS`.
        dates: of each date its file, or one a band.
        mask: the file of its classes.
        days: a text file with the day of each date.
    """

    name: str
    split: str
    dates: tuple[tuple[Path, ...], ...]
    mask: Path
    days: Path | None

    @property
    def images(self) -> list[Path]:
        """The files of all dates."""
        return [path for date in self.dates for path in date]


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the chips of a folder; images are cut, not resized.

    Chips are of the size of the frame, without one whole images. What lies beyond an edge is
    missing and not labelled, so that each pixel is in one chip. `files` is a list of layouts, of
    which the first with a mask that is there is read: patterns `dates`, `mask`, and `days`, a text
    file with a day in the last word of a line for each date. With `colours` these are the classes
    of a mask; without, what is above zero is of the second class.

    Raises:
        InputError: another target than the one there is, no mask, an image that is not there or has
            another size than its mask.
    """
    single_target(target, row.kind)
    images = _images(row, path)
    count(row, len(images), path)
    chips = []
    for number, image in enumerate(images):
        shape = shape_of(image.mask)
        for file in image.images:
            if shape_of(file) != shape:
                raise InputError(f"{file}: {shape_of(file)} pixels, {shape} in {image.mask}")
        chips += [(number, *corner, *side) for corner, side in _grid(shape, frame)]
    where = np.array(chips)
    return Collection(
        target=Target(row.kind, row.known),
        channels=row.channels,
        splits=np.array([image.split for image in images])[where[:, 0]],
        groups=np.array([image.name for image in images])[where[:, 0]],
        labels=np.empty(0),
        **read_from(
            [file for image in images for file in (*image.images, image.mask)],
            [image.days for image in images if image.days],
        ),
        load=partial(_load, row, images, where, frame),
    )


def _images(row: Benchmark, folder: Path) -> list[Masked]:
    """Return the images of the first layout that is there, sorted by their names."""
    for layout in row.files:
        found = matches(row, folder, layout["mask"])
        if found:
            break
    else:
        tried = ", ".join(layout["mask"] for layout in row.files)
        raise InputError(f"{folder}: no masks of {row.title}: {tried}")
    named = {name: split for split, names in row.splits.get("names", {}).items() for name in names}
    there = {parts["name"] for parts, _ in found}
    for name in named:
        if name not in there:
            raise InputError(f"{folder}: no {layout['mask'].format(name=name)}, one of {row.title}")
    if named and there - set(named):
        log.warning("%s: in no split, left out: %s", folder, ", ".join(sorted(there - set(named))))
        found = [each for each in found if each[0]["name"] in named]
    elif not named:
        splits = {split_of(row, parts["split"], folder) for parts, _ in found}
        for split, words in row.splits["words"].items():
            if split not in splits:
                raise InputError(f"{folder}: no masks of the split {split} ({' or '.join(words)})")
    return [_masked(row, folder, layout, parts, mask, named) for parts, mask in found]


def _masked(
    row: Benchmark,
    folder: Path,
    layout: dict[str, Any],
    parts: dict[str, str],
    mask: Path,
    named: dict[str, str],
) -> Masked:
    dates = []
    for pattern in layout["dates"]:
        bands = row.bands if "{band}" in pattern else ("",)
        files = tuple(folder / pattern.format(**parts, band=band) for band in bands)
        for file in files:
            if not file.is_file():
                raise InputError(f"{file}: no such file, and there is {mask}: unpack it again")
        dates.append(files)
    word = parts.get("split")
    split = named[parts["name"]] if word is None else split_of(row, word, folder)
    name = parts["name"] if word is None else f"{word} {parts['name']}"
    text = folder / layout["days"].format(**parts) if "days" in layout else None
    return Masked(name, split, tuple(dates), mask, text)


def matches(row: Benchmark, folder: Path, pattern: str) -> list[tuple[dict[str, str], Path]]:
    """Return the files of a pattern with its named parts, sorted."""
    pieces = re.split(r"\{(\w+)\}", pattern)
    words = "|".join(map(re.escape, split_words(row, "words"))) if "words" in row.splits else ""
    regex = "".join(
        f"(?P<{piece}>{words if piece == 'split' else '[^/]+?'})"
        if number % 2
        else re.escape(piece)
        for number, piece in enumerate(pieces)
    )
    with reading(folder):
        paths = sorted(folder.glob("*".join(pieces[::2]).replace("[", "[[]")))
    hits = ((re.fullmatch(regex, path.relative_to(folder).as_posix()), path) for path in paths)
    return [(hit.groupdict(), path) for hit, path in hits if hit]


def _grid(shape: Shape, frame: Frame) -> list[tuple[Shape, Shape]]:
    """Return first row and column, height and width of the chips of an image."""
    if frame.size is None:
        rows, columns = (-(-side // frame.patch) * frame.patch for side in shape)
        return [((0, 0), (rows, columns))]
    size = frame.size
    corners = product(*(range(0, side, size) for side in shape))
    return [((row, column), (size, size)) for row, column in corners]


def _load(
    row: Benchmark, images: Sequence[Masked], chips: Int64, frame: Frame, index: int
) -> Sample:
    number, *corner, height, width = chips[index].tolist()
    image, at, side = images[number], (corner[0], corner[1]), (height, width)
    values = np.stack([_date(row, files, at, side) for files in image.dates])  # (T, L, H, W)
    classes = _classes(row, image.mask, at, side)
    seen = Observation(row.channels, values, _time(image), gsd_m=row.gsd_m, patch=frame.patch)
    return Sample((seen,), classes)


def _date(row: Benchmark, files: Sequence[Path], corner: Shape, side: Shape) -> Float32:
    """Return the bands of one date in a window, (L, H, W)."""
    if len(files) == 1:
        return window(files[0], list(range(1, len(row.bands) + 1)), corner, side)
    return np.concatenate([window(file, [1], corner, side) for file in files])


def _classes(row: Benchmark, mask: Path, corner: Shape, side: Shape) -> Int64:
    """Return the class of each pixel of a window, (H, W)."""
    if not row.colours:
        marked = window(mask, [1], corner, side, codes=True)[0]
        return np.where(np.isfinite(marked), marked > 0, IGNORED).astype(np.int64)
    shown = window(mask, [1, 2, 3], corner, side, codes=True)  # (3, H, W)
    classes = np.full(side, IGNORED, dtype=np.int64)
    known = ~np.isfinite(shown[0])
    for name, colour in row.colours.items():
        here = (shown == np.array(colour, dtype=np.float32)[:, None, None]).all(axis=0)
        known |= here
        if name is not None:
            classes[here] = row.known.index(name)
    if (~known).mean() > ODD:
        odd = ", ".join(f"{value:g}" for value in shown[:, ~known][:, 0])
        raise InputError(f"{mask}: colour ({odd}) is that of no class of {row.title}")
    return classes


def _time(image: Masked) -> Float64:
    """Return centre and half-width of each date, (T, 2)."""
    if image.days is None:
        return np.repeat(ANY_TIME, len(image.dates), axis=0)
    with reading(image.days):
        words = [
            line.split()[-1] for line in image.days.read_text("utf-8").splitlines() if line.strip()
        ]
        starts = [datetime.strptime(word, "%Y%m%d").date() for word in words]
    if len(starts) != len(image.dates):
        raise InputError(f"{image.days}: {len(starts)} days, {len(image.dates)} expected")
    return np.array([days(start, start + timedelta(days=1)) for start in starts])
