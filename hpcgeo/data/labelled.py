"""Sets of labelled samples by the name of their reader: splits, fewer labels, one scale.

A reader lists what there is (`Collection`); here it becomes one split. Where there is no validation
split, a sixth of the training split is it: whole clusters (samples of one location), of every class
where no cluster has several, always the same ones.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hpcgeo.data.duplicate_list import left_out
from hpcgeo.data.places import split_by_place as by_place
from hpcgeo.data.readers.collection import SPLITS, Collection, Frame, without_meaning
from hpcgeo.data.readers.table import reader_of
from hpcgeo.data.sample import UNKNOWN, Channel, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.table import kind_of
from hpcgeo.kinds.target import Target
from hpcgeo.log import log

Int64 = npt.NDArray[np.int64]

#: Training samples that means and deviations of the values are taken over.
SAMPLED = 256
#: What a data set of `data.path` is called where it is read as labelled samples.
ONLY = "images"


class DescribedSet(Protocol):
    """What a model needs to know of a data set."""

    @property
    def target(self) -> Target:
        """What is predicted."""
        ...

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Every channel that any sample may hold, over all splits."""
        ...

    @property
    def patches(self) -> frozenset[int]:
        """Pixels on a side of tokens of images, beside those the task asks for."""
        ...


class TaskSet(DescribedSet, Protocol):
    """Labelled samples of one split of a data set."""

    @property
    def moments(self) -> Mapping[Channel, tuple[float, float]]:
        """Mean and deviation of every channel, by which samples are standardised."""
        ...

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the files that the samples are read from."""
        ...

    @property
    def split_fingerprint(self) -> str:
        """Fingerprint of the files, and of which split each sample is in."""
        ...

    def __len__(self) -> int: ...

    def group(self, index: int) -> str:
        """Return the cluster of a sample: samples of one location have the same."""
        ...

    def other(self, split: str) -> "TaskSet":
        """Return another split of the same data, which may be empty."""
        ...

    def read(self, index: int) -> Sample:
        """Return a sample; InputError names the file that cannot be read."""
        ...


@dataclass(frozen=True)
class LabelledSplit:
    """The samples `indices` (n,) of a collection with its splits (N,), standardised."""

    collection: Collection
    target: Target
    splits: npt.NDArray[np.str_]
    indices: Int64
    moments: dict[Channel, tuple[float, float]]
    place: bool

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Every channel that any sample may hold, over all splits."""
        return self.collection.channels

    @property
    def patches(self) -> frozenset[int]:
        """Pixels on a side of tokens of images, beside those the task asks for."""
        return self.collection.patches

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the files that the samples are read from."""
        return self.collection.fingerprint

    @property
    def split_fingerprint(self) -> str:
        """Fingerprint of the files, and of which split each sample is in."""
        splits = hashlib.sha256(self.splits.astype("U10").tobytes()).hexdigest()
        return fingerprint_of({"files": self.fingerprint, "splits": splits})[:32]

    def __len__(self) -> int:
        return len(self.indices)

    def group(self, index: int) -> str:
        """Return the cluster of a sample: samples of one location have the same."""
        return str(self.collection.groups[self.indices[index]])

    def other(self, split: str) -> "LabelledSplit":
        """Return another split of the same data, which may be empty."""
        return replace(self, indices=np.flatnonzero(self.splits == split))

    def subset(self, labels: float | int, seed: int) -> Int64:
        """Return which samples a label subset has, sorted; a smaller one lies inside a larger one.

        Args:
            labels: a fraction of the samples, at most 1.0, of every class at least one; or a number
                of samples (an integer), of every class where there are classes.
            seed: of the subset.
        """
        kept = []
        for number, members in enumerate(_classes(self.collection, self.indices)):
            order = np.random.default_rng([seed, number]).permutation(members)
            share = labels if isinstance(labels, int) else max(1, round(labels * len(members)))
            kept.append(order[:share])
        return np.searchsorted(self.indices, np.sort(np.concatenate(kept)))

    def read(self, index: int) -> Sample:
        """Return a sample; InputError names the file that cannot be read."""
        sample = self.collection.load(int(self.indices[index]))
        observations = tuple(self._standardised(each) for each in sample.observations)
        kind, label = kind_of(self.target), sample.target
        if kind.standardised:
            shape = (-1, *[1] * (label.ndim - 1))
            mean, std = (
                np.array(each).reshape(shape) for each in (self.target.mean, self.target.std)
            )
            label = ((label - mean) / std).astype(np.float32)
        place = sample.place if self.place else UNKNOWN
        return replace(
            sample, observations=observations, target=label, place=place, dense=kind.dense
        )

    def _standardised(self, seen: Observation) -> Observation:
        moments = np.array([self.moments[channel] for channel in seen.channels], dtype=np.float32)
        mean, std = moments.T.reshape(2, 1, -1, *[1] * (seen.values.ndim - 2))
        values = ((seen.values - mean) / std).astype(np.float32)
        values[np.isinf(values)] = np.nan  # missing, as for the moments
        return replace(seen, values=values)


def open_tasks(
    reader: str,
    path: Path,
    *,
    split: str,
    target: str | None = None,
    patch: int = 16,
    size: int | None = None,
    labels: float = 1.0,
    place: bool = True,
    seed: int = 0,
    split_by_place: float | None = None,
    leave_out: Path | None = None,
) -> LabelledSplit:
    """Return the labelled samples of one split of a data set.

    Values have zero mean and unit deviation over at most `SAMPLED` training samples, numbers to
    predict over all of them: the same for every split and every `labels`.

    Args:
        reader: the layout, a row of `hpcgeo list readers`.
        path: the folder, or the file.
        split: "train", "validation" or "test".
        target: which of several labels; None where the layout has one.
        patch: pixels on a side of a token of an image.
        size: height and width that images are brought to; None: as they are.
        labels: fraction of the training split to keep, of every class at least one sample.
        place: say where samples lie.
        seed: of the label subset; a smaller subset lies inside a larger one.
        split_by_place: degrees of blocks of ground that are held out whole; None: the splits are
            those of the data.
        leave_out: a list of near-duplicates across splits, of which the training split has none.

    Raises:
        InputError: a name that is not known, a value out of range, a file that cannot be read.
    """
    layout = reader_of(reader)
    if split not in SPLITS:
        raise InputError(f"split {split!r}: one of {', '.join(SPLITS)}")
    if not 0 < labels <= 1:
        raise InputError(f"labels {labels}: a fraction above 0, at most 1")
    collection = layout(path, target, Frame(patch, size))
    if split_by_place is not None:
        collection = by_place(collection, split_by_place)
    splits = _splits(collection)
    if leave_out is not None:
        splits[left_out(leave_out, collection, splits, split_by_place)] = ""
    train = np.flatnonzero(splits == "train")
    indices = np.flatnonzero(splits == split)
    for wanted, found in (("train", train), (split, indices)):
        if not len(found):
            raise InputError(f"{path}: no samples in the split {wanted!r}")
    standardised, moments = _standardised(collection, train), _moments(collection, train)
    part = LabelledSplit(collection, standardised, splits, indices, moments, place)
    if split == "train" and labels < 1:
        return replace(part, indices=indices[part.subset(float(labels), seed)])
    return part


def fingerprint_of(sets: Mapping[str, str]) -> str:
    """Return the fingerprint of several data sets, by name, of their own fingerprints."""
    return hashlib.sha256(json.dumps(dict(sets)).encode()).hexdigest()


def _splits(collection: Collection) -> npt.NDArray[np.str_]:
    """Return the split of each sample, (N,), with a sixth of training held out if there is need."""
    if "validation" in collection.splits:
        return collection.splits.astype("U10")
    splits = collection.splits.astype("U10")
    train = np.flatnonzero(splits == "train")
    names = collection.groups.tolist()
    for members in _separable(collection, train):
        groups: dict[str, list[int]] = {}
        for index in members.tolist():
            groups.setdefault(names[index], []).append(index)
        held: list[int] = []
        sixth = round(len(members) / 6)
        for name in without_meaning(list(groups)):
            # A group that would make it half as large again is left to training.
            if len(held) < sixth and len(held) + len(groups[name]) <= max(1, 1.5 * sixth):
                held += groups[name]
        splits[held] = "validation"
    return splits


def _separable(collection: Collection, members: Int64) -> list[Int64]:
    """Return the samples of each class, where no cluster has samples of several; else all."""
    classes = _classes(collection, members)
    clusters = [set(collection.groups[some].tolist()) for some in classes]
    alone = sum(map(len, clusters)) == len(set().union(*clusters))
    return classes if alone else [members]


def _classes(collection: Collection, members: Int64) -> list[Int64]:
    """Return the samples of each class; all together where they have none."""
    if not kind_of(collection.target).stratified:
        return [members]
    labels = collection.labels[members]
    return [members[labels == label] for label in np.unique(labels)]


def _standardised(collection: Collection, train: Int64) -> Target:
    kind = kind_of(collection.target)
    if not kind.standardised:
        return collection.target
    labels = _of_pixels(collection, train) if kind.dense else collection.labels[train]
    numbers = labels.astype(np.float64)  # (n, K)
    if not np.isfinite(numbers).any(axis=0).all():
        raise InputError(f"target {collection.target.names}: no number in the training split")
    mean, std = np.nanmean(numbers, axis=0), np.nanstd(numbers, axis=0)
    return replace(
        collection.target,
        mean=tuple(mean.tolist()),
        std=tuple(np.where(std > 0, std, 1).tolist()),
    )


def _of_pixels(collection: Collection, train: Int64) -> npt.NDArray[np.generic]:
    """Return the labels (n, K) of the pixels of samples spread over the training split."""
    found: list[npt.NDArray[np.generic]] = []
    for index in train[np.linspace(0, len(train) - 1, min(SAMPLED, len(train))).astype(np.int64)]:
        with suppress(InputError):  # one damaged file ends no run
            label = collection.load(int(index)).target
            found.append(label.reshape(len(label), -1).T)
    return np.concatenate(found) if found else np.empty((0, len(collection.target.names)))


def _moments(collection: Collection, train: Int64) -> dict[Channel, tuple[float, float]]:
    """Return mean and deviation of every channel over samples spread over the training split."""
    if collection.moments is not None:
        return dict(collection.moments)
    sums = {channel: np.zeros(3) for channel in collection.channels}
    spread = np.linspace(0, len(train) - 1, min(SAMPLED, len(train))).astype(np.int64)
    unread = []
    for index in train[spread]:
        try:
            observations = collection.load(int(index)).observations
        except InputError as error:  # one damaged file ends no run
            unread.append(error)
            continue
        for seen in observations:
            for number, channel in enumerate(seen.channels):
                values = seen.values[:, number]
                values = values[np.isfinite(values)].astype(np.float64)
                sums[channel] += len(values), values.sum(), (values**2).sum()
    if len(unread) == len(spread):
        raise InputError(f"none of {len(spread)} samples can be read: {unread[0]}")
    if unread:
        log.warning("%d of %d samples cannot be read: %s", len(unread), len(spread), unread[0])
    moments = {}
    for channel, (count, total, squares) in sums.items():
        mean = total / count if count else 0.0
        variance = squares / count - mean**2 if count else 1.0
        constant = variance <= 1e-12 * max(1.0, mean**2)
        moments[channel] = (mean, 1.0 if constant else float(np.sqrt(variance)))
    return moments
