"""fMoW-rgb: photographs of a place on several dates, SPLIT/CLASS/CLASS_N, with JSON beside each."""

import json
import math
import re
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hpcgeo.data.readers.benchmarks.facts import Benchmark, classes_of, split_words
from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    fit,
    read_from,
    read_image,
    reading,
    single_target,
)
from hpcgeo.data.sample import UNKNOWN, Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

#: Half-width of a time that is known to the second, in days.
SECOND = 0.5 / 86_400
EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the places of a folder, each with its dates in order.

    `files` says which photographs (`image`), how many `dates` at most, evenly over those there are,
    and how much of a photograph: the box of the place times `context` on a side.

    Raises:
        InputError: another target than the one there is, a split, class or place without images, or
            classes that the data set does not have.
    """
    single_target(target, "class")
    places: list[list[Path]] = []
    splits: list[str] = []
    for word, split in split_words(row, "folders").items():
        found = _places(path / word, row.files["image"])
        splits += [split] * len(found)
        places += found
    folders = [images[0].parent for images in places]
    classes, labels = classes_of(row, [folder.parent.name for folder in folders], path)
    return Collection(
        target=Target(row.kind, classes),
        channels=row.channels,
        splits=np.array(splits),
        groups=np.array([folder.relative_to(path).as_posix() for folder in folders]),
        labels=labels,
        **read_from([image for images in places for image in images]),
        load=partial(_load, row, places, labels, frame),
    )


def _places(folder: Path, pattern: str) -> list[list[Path]]:
    """Return the photographs of each place of a split."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, one of the splits")
    found = []
    for place in sorted(each for each in folder.glob("*/*") if each.is_dir()):
        images = sorted(place.glob(pattern))
        if not images:
            raise InputError(f"{place}: no photograph {pattern}: unpack it again")
        found.append(images)
    return found


def _load(
    row: Benchmark, places: list[list[Path]], labels: Int64, frame: Frame, index: int
) -> Sample:
    about = [(_about(image.with_suffix(".json")), image) for image in places[index]]
    about.sort(key=lambda each: each[0]["when"])
    most = row.files["dates"]
    kept = np.linspace(0, len(about) - 1, min(most, len(about))).round().astype(int)
    dates = [about[number] for number in kept.tolist()]
    cut = [_cut(image, one["box"], row.files["context"]) for one, image in dates]
    if frame.size is None and len({each.shape for each in cut}) > 1:
        raise InputError(
            f"{places[index][0].parent}: photographs of several sizes: give a size, e.g. 224"
        )
    gsd_m = [
        one["gsd"] * each.shape[1] / (frame.size or each.shape[1])
        for (one, _), each in zip(dates, cut, strict=True)
    ]
    values = np.stack(
        [fit(each, frame, image) for (_, image), each in zip(dates, cut, strict=True)]
    )
    time: Float64 = np.array([(one["when"], SECOND) for one, _ in dates])
    seen = Observation(row.channels, values, time, float(np.mean(gsd_m)), frame.patch)
    return Sample((seen,), labels[index], place=dates[0][0]["place"])


def _about(path: Path) -> dict[str, Any]:
    """Return what JSON says of a photograph: when (days since 2000), gsd, box and place."""
    with reading(path):
        told = json.loads(path.read_text("utf-8"))
        when = datetime.fromisoformat(told["timestamp"].replace("Z", "+00:00"))
        boxes = told["bounding_boxes"]
        box = [int(number) for number in (boxes[0] if isinstance(boxes, list) else boxes)["box"]]
        corners = re.findall(r"(-?[\d.]+) (-?[\d.]+)", str(told.get("raw_location", "")))
        numbers = np.array(corners, dtype=np.float64).reshape(-1, 2)[:4]
        gsd = float(told.get("gsd", math.nan))
    if len(box) != 4 or min(box[2:]) < 1:
        raise InputError(f"{path}: box {box}: left, top, width and height")
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    place = (float(numbers[:, 0].mean()), float(numbers[:, 1].mean())) if len(numbers) else UNKNOWN
    return {"when": (when - EPOCH).total_seconds() / 86_400, "gsd": gsd, "box": box, "place": place}


def _cut(image: Path, box: list[int], context: float) -> Float32:
    """Return the part of a photograph (3, H, W) around a box, `context` times its longer side."""
    pixels = read_image(image, "RGB")
    left, top, width, height = box
    side = min(math.ceil(max(width, height) * context), *pixels.shape[1:])
    first = [
        min(max(0, round(start + length / 2 - side / 2)), whole - side)
        for start, length, whole in zip((top, left), (height, width), pixels.shape[1:], strict=True)
    ]
    return pixels[:, first[0] : first[0] + side, first[1] : first[1] + side]
