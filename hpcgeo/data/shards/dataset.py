"""Samples by their index, from the shard files of one layout, or of several that go together."""

import hashlib
import math
import mmap
import resource
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from hpcgeo.data.shards.hdf5 import own_array, valid_sizes
from hpcgeo.data.shards.index import Index, SampleLayout, ShardFile, load
from hpcgeo.data.shards.synthetic import SyntheticDataset
from hpcgeo.errors import InputError
from hpcgeo.options import SYNTHETIC, Data
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
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that samples are labelled with."""

    @property
    def sensor(self) -> str | None:
        """Row of the sensors that the bands are of, where known."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""

    @property
    def nodata(self) -> Float:
        """Value of missing pixels of integers, (L,), NaN where there is none; in floats they are
        NaN.
        """

    @property
    def mean(self) -> Float:
        """Mean of the valid pixels per band, (L, C), in the numbers of each layout."""

    @property
    def std(self) -> Float:
        """Standard deviation of the valid pixels per band, (L, C), in the numbers of each layout;
        negative where these fall as what they stand for rises.
        """

    @property
    def fingerprint(self) -> str:
        """Checksum of all samples."""

    def __len__(self) -> int: ...

    def read(self, indices: Int) -> tuple[Pixels, Int]:
        """Return pixels (B, C, H, W) in their own data type and valid height and width (B, 2)."""

    def layout_of(self, indices: Int) -> Int:
        """Return the row of the moments that holds for each sample, (B,)."""


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
    """A data set on disk: one layout, or those that differ in nodata, scale and offset alone.

    Layouts of different scale or offset have moments in common: those of what their numbers stand
    for. Uncompressed pixels are copied from mapped files straight into the batch, without HDF5; all
    samples of a batch are announced first, so that the file system fetches them together and
    whole. Files are opened when first read, in every process anew.
    """

    kind: Literal["shards"] = "shards"

    def __init__(self, folder: Path, layout: str | None = None) -> None:
        """Open a data set.

        Args:
            folder: written by `hpcgeo data build`.
            layout: which layout, or several, separated by commas; needed where the set has some
                that do not go together.

        Raises:
            InputError: no data set, no such layout, or several that do not go together.
        """
        index = load(folder)
        chosen = _choose(folder, index, layout)
        row, *_ = rows = [*chosen.values()]
        self._folder = folder
        self._shards = [shard for each in rows for shard in each.shards]
        samples = np.array([shard.samples for shard in self._shards])
        self._layouts = np.repeat(np.arange(len(rows)), [len(each.shards) for each in rows])
        self._ends = np.cumsum(samples)
        self._firsts = self._ends - samples
        self._open: dict[int, _Shard] = {}
        self.sensor, self.classes = row.sensor, tuple(index.classes)
        self.bands, self.dtype = row.bands, np.dtype(row.dtype)
        self.nodata = np.array([np.nan if r.nodata is None else r.nodata for r in rows])
        self.shape = len(row.bands), index.chip, index.chip
        self.mean, self.std = _moments(rows)
        names = ",".join(chosen)
        self.fingerprint = hashlib.sha256(f"{index.digest}/{names}".encode()).hexdigest()

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

    def layout_of(self, indices: Int) -> Int:
        """Return the row of the moments that holds for each sample, (B,)."""
        return self._layouts[np.searchsorted(self._ends, indices, side="right")]

    def metadata(self) -> Metadata:
        """Return what is known of all samples.

        Raises:
            InputError: a shard file cannot be read, or differs from the index.
        """
        found: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*METADATA, "source")}
        for shard in self._shards:
            path = self._folder / shard.name
            try:
                with h5py.File(path, locking=False) as file:
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
            file = h5py.File(path, locking=False)
            self.valid = valid_sizes(file, row.samples, shape, dtype)
            self._crc32: list[int] | None = None  # of a file of before: not known
            if "crc32" in file:
                self._crc32 = own_array(file, "crc32", (row.samples,), np.dtype(np.uint32)).tolist()
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
        """Return the pixels (C, H, W) of a sample, as they were written."""
        try:
            pixels: Pixels = self.pixels[row]
        except (OSError, ValueError) as error:  # a compressed chunk that is damaged
            raise InputError(
                f"{self._path}: sample {row} cannot be read: {error}; run `hpcgeo data verify`"
            ) from None
        if self._crc32 is not None and zlib.crc32(pixels.data) != self._crc32[row]:
            raise InputError(
                f"{self._path}: sample {row} is damaged: its checksum differs; run `hpcgeo data "
                f"verify`, and build the set again"
            )
        return pixels

    def announce(self, row: int) -> None:
        """Have the file system fetch a sample, without waiting for it."""
        if self._mapped is not None:
            first = self._start + row * self._size
            page = first - first % mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_WILLNEED, page, first - page + self._size)


def _choose(folder: Path, index: Index, layout: str | None) -> dict[str, SampleLayout]:
    """Return the layouts to read, by name."""
    filled = {name: row for name, row in index.layouts.items() if row.samples}
    if layout is not None:
        names = [name.strip() for name in layout.split(",")]
        filled = {name: find(filled, name, f"layout of {folder}") for name in names}
    alike = {(row.bands, row.dtype, row.sensor, row.scale is None) for row in filled.values()}
    if len(alike) > 1:
        raise InputError(
            f"{folder}: several layouts; choose with data.layout, separated by commas where they "
            f"are alike in bands, data type and sensor and all or none state a scale: "
            f"{', '.join(filled)}"
        )
    return filled


def _moments(rows: Sequence[SampleLayout]) -> tuple[Float, Float]:
    """Return mean and standard deviation of all layouts together, in the numbers of each, (L, C).

    A layout weighs as much as it has samples; of one that has no pixel of a band, none.
    """
    mean, std = (
        np.array([[np.nan if value is None else value for value in each] for each in both])
        for both in ([row.mean for row in rows], [row.std for row in rows])
    )
    if len(rows) == 1:
        return np.nan_to_num(mean), np.nan_to_num(std, nan=1.0)
    scale, offset = (
        np.array([given or [none] * mean.shape[1] for given in both])
        for both, none in (([row.scale for row in rows], 1.0), ([row.offset for row in rows], 0.0))
    )
    weight = np.array([[row.samples] for row in rows]) * np.isfinite(mean)
    weight = weight / np.maximum(weight.sum(axis=0), 1)  # (L, C)
    stated, spread = np.nan_to_num(scale * mean + offset), np.nan_to_num(scale * std)
    centre = (weight * stated).sum(axis=0)  # (C,), in what the numbers stand for
    both = np.sqrt((weight * (spread**2 + (stated - centre) ** 2)).sum(axis=0))
    constant = both <= 1e-9 * np.abs(centre)  # but for rounding
    return (centre - offset) / scale, np.where(constant, 1, both) / scale


def open_dataset(config: Data) -> Dataset:
    """Return the data set that a configuration names.

    Raises:
        InputError: no data set there, or a layout must be chosen.
    """
    if config.path == SYNTHETIC:
        return SyntheticDataset((3, *config.chip))
    return ShardDataset(Path(config.path), config.layout)
