"""A data set of GEO-Bench: an HDF5 file a sample, bands as arrays, what is known as a pickle.

No pickle is run: they are read as inert values (`hpcgeo.data.readers.benchmarks.inert`).
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcgeo.data.readers.benchmarks.facts import Benchmark, split_of
from hpcgeo.data.readers.benchmarks.inert import Named, inert
from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    Int64,
    days,
    fit,
    fit_mask,
    read_from,
    reading,
    refuse_outside,
    scaled_gsd,
    single_target,
)
from hpcgeo.data.sample import UNKNOWN_SENSOR, Channel, Float32, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.table import KINDS
from hpcgeo.kinds.target import Target
from hpcgeo.sensors import sensors, spelled
from hpcgeo.tables import find

#: The kind of task of each class of labels.
LABELS = {
    "Classification": "classification",
    "MultiLabelClassification": "multilabel",
    "SegmentationClasses": "segmentation",
    "SemanticSegmentation": "segmentation",
}
#: Our sensor of each class of bands; others are known by name alone.
SENSORS = {"Sentinel2": "sentinel2", "Sentinel1": "sentinel1", "Landsat8": "landsat8"}
#: Bands in colours without a sensor.
COLOURS = {"Red": "R", "Green": "G", "Blue": "B"}
LABEL = "label"
#: The day at the end of the name of an array.
DAY = re.compile(r"(.*)_(\d{4})-(\d\d)-(\d\d)(?:_.*)?$")


@dataclass(frozen=True)
class _Band:
    """An array of a file: its name, our name of the band, metres of a pixel."""

    channel: Channel
    gsd_m: float


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the samples of a folder of GEO-Bench, e.g. classification_v1.0/m-eurosat.

    Raises:
        InputError: another target than the one there is, no list of splits, a sample that it names
            and is not there, or a kind of label that is not known.
    """
    single_target(target, LABEL)
    table, task = path / row.files["splits"], path / row.files["task"]
    with reading(table):
        partition: dict[str, list[str]] = json.loads(table.read_text("utf-8"))
    names, splits = [], []
    for word, members in partition.items():
        names += members
        splits += [split_of(row, word, table)] * len(members)
    for name in names:
        refuse_outside(name, str(table))
    files = [path / f"{name}.hdf5" for name in names]
    if not files:
        raise InputError(f"{table}: no samples")
    kind, classes = _label_type(task)
    with _opened(files[0]) as (_, told):
        bands = _bands(told)
    return Collection(
        target=Target(kind, classes),
        channels=tuple(dict.fromkeys(band.channel for band in bands.values())),
        splits=np.array(splits),
        groups=np.array(names),
        labels=_labels(KINDS[kind], path / row.files["labels"], names, files),
        **read_from(files, [table, task]),
        load=partial(_load, KINDS[kind], len(classes), files, frame),
    )


def _label_type(task: Path) -> tuple[str, tuple[str, ...]]:
    """Return kind of task and names of the classes, as the description of a data set has them."""
    with reading(task):
        told = inert(task.read_bytes())
        labels = told.fields["label_type"]
        kind = find(LABELS, labels.of.rpartition(".")[2], f"kind of label of {task}")
        count = int(labels.fields["n_classes"])
        names = labels.fields.get("_class_names") or [f"class {n}" for n in range(count)]
    return kind, tuple(map(str, names))


def _labels(kind: Kind, table: Path, names: list[str], files: list[Path]) -> Any:
    """Return the class of each sample, (N,), where splits and subsets go by class."""
    if not kind.stratified:
        return np.empty(0)
    if not table.is_file():
        return np.array([_class(file) for file in files], dtype=np.int64)
    with reading(table):
        members = json.loads(table.read_text("utf-8"))
        of = {name: int(label) for label, found in members.items() for name in found}
    for name in names:
        if name not in of:
            raise InputError(f"{table}: no label of {name}")
    return np.array([of[name] for name in names], dtype=np.int64)


def _class(file: Path) -> int:
    """Return the class of a sample."""
    with _opened(file) as (_, told):
        return int(told[LABEL])


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a file: its arrays, and what it says beside them."""
    with reading(file), h5py.File(file, locking=False) as arrays:
        told = inert(ast.literal_eval(str(arrays.attrs["pickle"])))  # bytes, written as text
        if not isinstance(told, dict):
            raise InputError(f"{file}: its attribute pickle is no table of bands")
        if "bands_order" not in told:
            told["bands_order"] = list(arrays)
        yield arrays, told


def _bands(told: dict[str, Any]) -> Mapping[str, _Band]:
    """Return the arrays of a file that are bands, in their order."""
    found = {}
    for name in told["bands_order"]:
        about = told.get(name)
        about = about if type(about) is dict else {}
        info = about.get("band_info")
        channel = _channel(name, info if isinstance(info, Named) else Named())
        if not name.startswith(LABEL):
            found[name] = _Band(channel, float(about.get("spatial_resolution") or "nan"))
    return found


def _channel(name: str, info: Named) -> Channel:
    """Return our name of a band: of a known sensor by its other names, else as it is called."""
    dated = DAY.fullmatch(name)
    plain = dated[1] if dated else name
    sensor = SENSORS.get(info.of.rpartition(".")[2])
    if sensor:
        known = [band.name for band in sensors()[sensor].bands]
        for word in info.fields.get("alt_names", ()):
            if band := spelled(f"B{str(word).removeprefix('B')}".replace("B0", "B"), known):
                return Channel(sensor, band)
        if plain.rpartition(" - ")[2] in known:
            return Channel(sensor, plain.rpartition(" - ")[2])
    if plain in COLOURS:
        return Channel("rgb", COLOURS[plain])
    return Channel(UNKNOWN_SENSOR, plain)


def _load(kind: Kind, num_classes: int, files: list[Path], frame: Frame, index: int) -> Sample:
    file = files[index]
    with _opened(file) as (arrays, told):
        bands = _bands(told)
        values = {name: np.asarray(arrays[name], dtype=np.float32) for name in bands}
        dense = np.asarray(arrays[LABEL]).squeeze() if kind.dense else None
    for name, pixels in values.items():
        if pixels.squeeze().ndim != 2:
            raise InputError(f"{file}: {name} is {pixels.shape}, not (H, W): it cannot be read")
    side = max(max(pixels.shape[:2]) for pixels in values.values())
    grid = Frame(1, side)
    dates = sorted({_day(name) for name in bands})
    channels = tuple(dict.fromkeys(band.channel for band in bands.values()))
    image: Float32 = np.full((len(dates), len(channels), side, side), np.nan, dtype=np.float32)
    for name, band in bands.items():
        where = dates.index(_day(name)), channels.index(band.channel)
        image[where] = fit(values[name].squeeze()[None], grid, file)[0]
    seen = Observation(
        channels,
        fit(image, frame, file),
        np.concatenate([_time(day) for day in dates]),
        gsd_m=scaled_gsd(min(band.gsd_m for band in bands.values()), side, frame),
        patch=frame.patch,
    )
    if dense is not None:
        return Sample((seen,), _mask(dense, num_classes, side, frame, file))
    label = np.asarray(told[LABEL])
    if kind.stratified:
        return Sample((seen,), label.astype(np.int64).reshape(()))
    if label.shape != (num_classes,):
        raise InputError(f"{file}: a label of {label.shape}, not ({num_classes},)")
    return Sample((seen,), label.astype(np.float32))


def _mask(dense: Any, num_classes: int, side: int, frame: Frame, file: Path) -> Int64:
    """Return the class of each pixel in the frame."""
    classes = dense.astype(np.int64)
    least, most = classes.min(), classes.max()
    if least < 0 or most >= num_classes:
        raise InputError(f"{file}: classes from {least} to {most}, of {num_classes} from 0")
    return fit_mask(fit_mask(classes, Frame(1, side), file), frame, file)


def _day(name: str) -> str:
    found = DAY.fullmatch(name)
    return "-".join(found.groups()[1:4]) if found else ""


def _time(day: str) -> Any:
    if not day:
        return ANY_TIME
    start = date.fromisoformat(day)
    return np.array([days(start, start + timedelta(days=1))])
