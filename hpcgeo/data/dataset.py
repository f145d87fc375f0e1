"""Samples by their index, from the shard files of one layout."""

import hashlib
import os
import resource
from pathlib import Path
from typing import Any, Literal, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from hpcgeo.data.index import Index, Layout, load
from hpcgeo.errors import InputError
from hpcgeo.tables import find

Pixels = npt.NDArray[np.generic]
Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

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
        samples = np.array([shard.samples for shard in row.shards])
        self._ends = np.cumsum(samples)
        self._starts = self._ends - samples
        self._files: dict[int, Any] = {}  # descriptors; h5py files where pixels are compressed
        self._valid: dict[int, list[list[int]]] = {}
        self.bands, self.nodata, self.dtype = row.bands, row.nodata, np.dtype(row.dtype)
        self.shape = len(row.bands), index.chip, index.chip
        self.mean = np.array([0.0 if mean is None else mean for mean in row.mean])
        self.std = np.array([1.0 if std is None else std for std in row.std])
        self.digest = hashlib.sha256(f"{index.digest}/{name}".encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Int) -> tuple[Pixels, Int]:
        """Return pixels (B, C, H, W) in their own data type and valid height and width (B, 2)."""
        shards = np.searchsorted(self._ends, indices, side="right")
        rows = indices - self._starts[shards]
        if len(self._files) + len(indices) > _OPEN_FILES:
            self._close()
        places = list(zip(shards.tolist(), rows.tolist(), strict=True))
        for shard, _ in places:
            if shard not in self._files:
                self._files[shard] = self._open(shard)
        valid = np.array([self._valid[shard][row] for shard, row in places], dtype=np.int64)
        pixels = np.empty((len(indices), *self.shape), dtype=self.dtype)
        size = pixels[:1].nbytes
        flat = memoryview(pixels.view(np.uint8).reshape(-1).data)
        for i, (shard, row) in enumerate(places):  # memory is filled front to back, which is faster
            file, start = self._files[shard], self._shards[shard].start
            if start is None:
                file["pixels"].read_direct(pixels, np.s_[row], np.s_[i])
            elif os.preadv(file, [flat[i * size : (i + 1) * size]], start + row * size) != size:
                raise InputError(f"{self._path(shard)}: cut short; run `hpcgeo data verify`")
        return pixels, valid

    def _path(self, shard: int) -> Path:
        return self._folder / self._shards[shard].name

    def _open(self, shard: int) -> Any:
        path = self._path(shard)
        try:
            if shard not in self._valid:
                with h5py.File(path) as file:
                    self._valid[shard] = file["valid"][:].tolist()
            compressed = self._shards[shard].start is None
            return h5py.File(path) if compressed else os.open(path, os.O_RDONLY)
        except (OSError, KeyError) as error:
            raise InputError(f"{path}: {error}; run `hpcgeo data verify`") from None

    def _close(self) -> None:
        while self._files:
            _, file = self._files.popitem()
            if isinstance(file, h5py.File):
                file.close()
            else:
                os.close(file)

    def __getstate__(self) -> dict[str, object]:
        """Open files stay in the process that opened them."""
        return vars(self) | {"_files": {}, "_valid": {}}

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self._close()


def _choose(folder: Path, index: Index, layout: str | None) -> tuple[str, Layout]:
    filled = {name: row for name, row in index.layouts.items() if row.samples}
    if layout is not None:
        return layout, find(filled, layout, f"layout of {folder}")
    if len(filled) > 1:
        raise InputError(
            f"{folder}: several layouts; choose one with data.layout: {', '.join(filled)}"
        )
    return next(iter(filled.items()))
