"""Chips of a set that `hpcgeo data build` wrote, with what it stored: class, place, time, bands.

Chips of one image or scene stay together. A fifth of the images of every class, always the same
ones, are the test split. Bands are normalised by the moments of the data set, as in pretraining on
it. Chips of a folder without classes are unlabelled.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    fit,
    single_target,
    without_meaning,
)
from hpcgeo.data.sample import UNKNOWN_SENSOR, Channel, Float64, Observation, Sample
from hpcgeo.data.shards.dataset import Metadata, ShardDataset
from hpcgeo.data.shards.index import load
from hpcgeo.kinds.target import Target

#: What photographs call their bands, and how the facts of sensors do.
PHOTOGRAPH: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
    ("red", "green", "blue"): ("rgb", ("R", "G", "B"))
}

#: Of the images of a class, those that are the test split.
TEST = 5

#: Seconds from 1970 to 2000, in days.
EPOCH_DAYS = 10957


@dataclass(frozen=True)
class _Chips:
    """The chips of one layout, read one by one."""

    dataset: ShardDataset
    known: Metadata
    channels: tuple[Channel, ...]
    frame: Frame
    path: Path

    def load(self, labelled: bool, index: int) -> Sample:
        stored, valid = self.dataset.read(np.array([index]))
        height, width = valid[0]
        values = stored[:1, :, :height, :width].astype(np.float32)  # (1, C, H, W)
        layout = int(self.dataset.layout_of(np.array([index]))[0])
        if stored.dtype.kind != "f":
            missing = stored[:1, :, :height, :width] == self.dataset.nodata[layout]  # of NaN: none
            values[missing] = np.nan
        if layout:  # in the numbers of the first layout
            mean, std = (
                moments[[layout, 0], :, None, None].astype(np.float32)
                for moments in (self.dataset.mean, self.dataset.std)
            )
            values = (values - mean[0]) * (std[1] / std[0]) + mean[1]
        gsd = float(self.known.gsd_m[index]) * height / (self.frame.size or height)
        values = fit(values, self.frame, self.path)
        seen = Observation(
            self.channels, values, _time(int(self.known.time[index])), gsd, self.frame.patch
        )
        label = self.known.label[index]
        target = np.array(label, dtype=np.int64) if labelled else np.empty(0, dtype=np.int64)
        place = float(self.known.lon[index]), float(self.known.lat[index])
        return Sample((seen,), target, place)


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the chips of a data set of one layout, or of several that go together.

    Args:
        path: the folder.
        target: "class" or None.
        frame: of the chips.

    Raises:
        InputError: no such data set or target, or a file of it cannot be read.
    """
    single_target(target, "class")
    dataset, classes = ShardDataset(path), tuple(load(path).classes)
    known = dataset.metadata()
    labelled = bool(classes) and bool((known.label >= 0).any())
    channels = named(dataset.sensor, dataset.bands)
    std = np.where(dataset.std[0] != 0, dataset.std[0], 1)
    moments = zip(dataset.mean[0].tolist(), std.tolist(), strict=True)
    chips = _Chips(dataset, known, channels, frame, path)
    return Collection(
        target=Target("classification" if labelled else "unlabelled", classes if labelled else ()),
        channels=channels,
        splits=_splits(known),
        groups=known.source,
        labels=known.label if labelled else np.empty(0, dtype=np.int64),
        fingerprint=dataset.fingerprint,
        load=partial(chips.load, labelled),
        moments=dict(zip(channels, moments, strict=True)),
    )


def named(sensor: str | None, bands: tuple[str, ...]) -> tuple[Channel, ...]:
    """Return the bands of a data set as those of a sensor, which it may not name."""
    if sensor is None:
        sensor, bands = PHOTOGRAPH.get(bands, (UNKNOWN_SENSOR, bands))
    return tuple(Channel(sensor, band) for band in bands)


def _splits(known: Metadata) -> npt.NDArray[np.str_]:
    """Return the split of each chip, (N,): every fifth image of a class is for testing."""
    splits = np.full(len(known.label), "train", dtype="U10")
    for label in np.unique(known.label):
        members = np.flatnonzero(known.label == label)
        sources = without_meaning(sorted(set(known.source[members].tolist())))
        test = sources[: round(len(sources) / TEST)]
        splits[members[np.isin(known.source[members], test)]] = "test"
    return splits


def _time(seconds: int) -> Float64:
    """Return centre and half-width of a time in days since 2000, (1, 2)."""
    if seconds == np.iinfo(np.int64).min:
        return ANY_TIME
    return np.array([[seconds / 86400 - EPOCH_DAYS, 0.0]])
