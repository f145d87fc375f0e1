"""Samples by their index, from the shard files of one layout."""

import hashlib
import os
from pathlib import Path
from typing import Literal, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from hpcgeo.data.index import Index, Layout, load
from hpcgeo.errors import InputError
from hpcgeo.tables import find

Pixels = npt.NDArray[np.generic]
Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

#: Shard files a process keeps open; a login shell allows 1024.
_OPEN_FILES = 256


class Dataset(Protocol):
    """What the loader reads from: samples alike in bands, size and data type."""

    @property
    def kind(self) -> Literal["shards", "synthetic"]:
        """Where samples come from."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""

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
    def digest(self) -> str:
        """Checksum of all samples."""

    def __len__(self) -> int: ...

    def read(self, indices: Int) -> tuple[Pixels, Int]:
        """Return pixels (B, C, H, W) in their own data type and valid height and width (B, 2)."""


class ShardDataset:
    """One layout of a data set on disk.

    Uncompressed pixels are read by their byte offset straight into the batch, without HDF5. Files
    are opened when first read, in every process anew.
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
        self._ends = np.cumsum([shard.samples for shard in row.shards])
        self._files: dict[int, int | h5py.File] = {}
        self._valid: dict[int, Int] = {}
        self.bands, self.nodata, self.dtype = row.bands, row.nodata, np.dtype(row.dtype)
        self.shape = len(row.bands), index.chip, index.chip
        self.mean = np.array([0.0 if mean is None else mean for mean in row.mean])
        self.std = np.array([1.0 if std is None else std for std in row.std])
        self.digest = hashlib.sha256(f"{index.digest}/{name}".encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Int) -> tuple[Pixels, Int]:
        """Return pixels (B, C, H, W) in their own data type and valid height and width (B, 2)."""
        pixels = np.empty((len(indices), *self.shape), dtype=self.dtype)
        valid = np.empty((len(indices), 2), dtype=np.int64)
        shards = np.searchsorted(self._ends, indices, side="right")
        for i in np.lexsort((indices, shards)):
            shard = int(shards[i])
            row = int(indices[i] - self._ends[shard]) + self._shards[shard].samples
            self._read_pixels(shard, row, pixels[i])
            valid[i] = self._valid[shard][row]
        return pixels, valid

    def _read_pixels(self, shard: int, row: int, out: Pixels) -> None:
        if shard not in self._files:
            self._open(shard)
        file = self._files[shard]
        if isinstance(file, h5py.File):
            file["pixels"].read_direct(out, np.s_[row])
            return
        offset = (self._shards[shard].start or 0) + row * out.nbytes
        if os.preadv(file, [out.data], offset) != out.nbytes:
            path = self._folder / self._shards[shard].name
            raise InputError(f"{path}: shorter than the index says; run `hpcgeo data verify`")

    def _open(self, shard: int) -> None:
        path = self._folder / self._shards[shard].name
        while len(self._files) >= _OPEN_FILES:
            _close(self._files.pop(next(iter(self._files))))
        try:
            hdf5 = h5py.File(path)
            self._valid[shard] = hdf5["valid"][:]
            if self._shards[shard].start is None:
                self._files[shard] = hdf5
            else:
                hdf5.close()
                self._files[shard] = os.open(path, os.O_RDONLY)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{path}: {reason}; run `hpcgeo data verify`") from None

    def __getstate__(self) -> dict[str, object]:
        """Open files stay in the process that opened them."""
        return vars(self) | {"_files": {}, "_valid": {}}

    def __del__(self) -> None:
        for file in getattr(self, "_files", {}).values():
            _close(file)


def _close(file: int | h5py.File) -> None:
    if isinstance(file, h5py.File):
        file.close()
    else:
        os.close(file)


def _choose(folder: Path, index: Index, layout: str | None) -> tuple[str, Layout]:
    filled = {name: row for name, row in index.layouts.items() if row.samples}
    if layout is not None:
        return layout, find(filled, layout, f"layout of {folder}")
    if len(filled) > 1:
        raise InputError(
            f"{folder}: several layouts; choose one with data.layout: {', '.join(filled)}"
        )
    return next(iter(filled.items()))
