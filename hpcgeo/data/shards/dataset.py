"""Samples by their index, from the shard files of one layout."""

import hashlib
import math
import mmap
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from hpcgeo.data.shards.hdf5 import own_array, valid_sizes
from hpcgeo.data.shards.index import Index, SampleLayout, ShardFile, load
from hpcgeo.errors import InputError
from hpcgeo.tables import find

Pixels = npt.NDArray[np.generic]
Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

#: Of each sample, in every shard file.
METADATA: dict[str, np.dtype[Any]] = {
    "label": np.dtype(np.int32),
    **dict.fromkeys(("lon", "lat", "gsd_m"), np.dtype(np.float64)),
    "time": np.dtype(np.int64),
}

#: Shard files a process keeps open: half of what it may.
_OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


class Dataset(Protocol):
    """What the loader reads from: samples alike in bands, size and data type."""

    @property
    def kind(self) -> Literal["shards", "synthetic"]:
        """Where samples come from."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""

    @property
    def sensor(self) -> str | None:
        """Row of the sensors that the bands are of, where known."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""

    @property
    def nodata(self) -> float | None:
        """Value of missing pixels of integers; in floats they are NaN."""

    @property
    def mean(self) -> Float:
        """Mean of the valid pixels per band, (C,)."""

    @property
    def std(self) -> Float:
        """Standard deviation of the valid pixels per band, (C,)."""

    @property
    def fingerprint(self) -> str:
        """Checksum of all samples."""

    def __len__(self) -> int: ...

    def read(self, indices: Int) -> tuple[Pixels, Int]:
        """Return pixels (B, C, H, W) in their own data type and valid height and width (B, 2)."""


@dataclass(frozen=True)
class Metadata:
    """What is known of samples beside their pixels, (N,) each; NaN or -1: not known.

    `time` is in seconds since 1970, the smallest int64 where unknown; `source` names the image.
    """

    label: Int
    lon: Float
    lat: Float
    gsd_m: Float
    time: Int
    source: npt.NDArray[np.str_]


class ShardDataset:
    """One layout of a data set on disk.

    Uncompressed pixels are copied from mapped files straight into the batch, without HDF5; all
    samples of a batch are announced first, so that the file system fetches them together and
    whole. Files are opened when first read, in every process anew.
    """

    kind: Literal["shards"] = "shards"

    def __init__(self, folder: Path, layout: str | None = None) -> None:
        """Open a data set.

        Args:
            folder: written by `hpcgeo data build`.
            layout: which layout; needed where the set has several.

        Raises:
            InputError: no data set, no such layout, or several and none was named.
        """
        index = load(folder)
        name, row = _choose(folder, index, layout)
        self._folder, self._shards = folder, row.shards
        samples = np.array([shard.samples for shard in row.shards])
        self._ends = np.cumsum(samples)
        self._firsts = self._ends - samples
        self._open: dict[int, _Shard] = {}
        self.sensor = row.sensor
        self.bands, self.nodata, self.dtype = row.bands, row.nodata, np.dtype(row.dtype)
        self.shape = len(row.bands), index.chip, index.chip
        self.mean = np.array([0.0 if mean is None else mean for mean in row.mean])
        self.std = np.array([1.0 if std is None else std for std in row.std])
        self.fingerprint = hashlib.sha256(f"{index.digest}/{name}".encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Int) -> tuple[Pixels, Int]:
        """Return pixels (B, C, H, W) in their own data type and valid height and width (B, 2)."""
        shards = np.searchsorted(self._ends, indices, side="right")
        rows = (indices - self._firsts[shards]).tolist()
        needed = set(shards.tolist())
        if len(self._open | dict.fromkeys(needed)) > _OPEN_FILES:
            self._open.clear()
        for shard in needed - self._open.keys():
            path = self._folder / self._shards[shard].name
            self._open[shard] = _Shard(path, self._shards[shard], self.shape, self.dtype)
        places = [
            (self._open[shard], row) for shard, row in zip(shards.tolist(), rows, strict=True)
        ]
        for file, row in places:
            file.announce(row)
        valid = np.array([file.valid[row] for file, row in places], dtype=np.int64)
        pixels = np.empty((len(indices), *self.shape), dtype=self.dtype)
        for i, (file, row) in enumerate(places):
            pixels[i] = file.sample(row)
        return pixels, valid

    def metadata(self) -> Metadata:
        """Return what is known of all samples.

        Raises:
            InputError: a shard file cannot be read, or differs from the index.
        """
        found: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*METADATA, "source")}
        for shard in self._shards:
            path = self._folder / shard.name
            try:
                with h5py.File(path) as file:
                    for name, dtype in METADATA.items():
                        found[name].append(own_array(file, name, (shard.samples,), dtype))
                    number = own_array(file, "source", (shard.samples,), np.dtype(np.int32))
                    names = own_array(file, "sources")
                    found["source"].append(np.char.decode(names, "utf-8")[number])
            except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
                raise InputError(f"{path}: {error}; run `hpcgeo data verify`") from None
        return Metadata(**{name: np.concatenate(parts) for name, parts in found.items()})

    def __getstate__(self) -> dict[str, object]:
        """Open files stay in the process that opened them."""
        return vars(self) | {"_open": {}}


class _Shard:
    """A shard file that is open; `pixels` is mapped memory, or read by HDF5 where compressed."""

    def __init__(
        self, path: Path, row: ShardFile, shape: tuple[int, int, int], dtype: np.dtype[Any]
    ) -> None:
        self._path = path
        try:
            if (size := path.stat().st_size) != row.bytes:
                raise ValueError(f"{size} bytes, {row.bytes} expected")
            file = h5py.File(path)
            self.valid = valid_sizes(file, row.samples, shape, dtype)
            self.pixels = file["pixels"]
            self._mapped: mmap.mmap | None = None
            if row.start is not None:
                file.close()
                self._start, self._size = row.start, math.prod(shape) * dtype.itemsize
                with path.open("rb") as stream:
                    self._mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
                count = row.samples * math.prod(shape)
                flat = np.frombuffer(self._mapped, dtype, count, offset=row.start)
                self.pixels = flat.reshape(row.samples, *shape)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # h5py's all
            raise InputError(f"{path}: {error}; run `hpcgeo data verify`") from None

    def sample(self, row: int) -> Pixels:
        """Return the pixels (C, H, W) of a sample."""
        try:
            return self.pixels[row]
        except (OSError, ValueError) as error:  # a compressed chunk that is damaged
            raise InputError(
                f"{self._path}: sample {row} cannot be read: {error}; run `hpcgeo data verify`"
            ) from None

    def announce(self, row: int) -> None:
        """Have the file system fetch a sample, without waiting for it."""
        if self._mapped is not None:
            first = self._start + row * self._size
            page = first - first % mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_WILLNEED, page, first - page + self._size)


def _choose(folder: Path, index: Index, layout: str | None) -> tuple[str, SampleLayout]:
    filled = {name: row for name, row in index.layouts.items() if row.samples}
    if layout is not None:
        return layout, find(filled, layout, f"layout of {folder}")
    if len(filled) > 1:
        raise InputError(
            f"{folder}: several layouts; choose one with data.layout: {', '.join(filled)}"
        )
    return next(iter(filled.items()))
