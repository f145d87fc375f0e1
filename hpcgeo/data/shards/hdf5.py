"""The files of a data set: HDF5 that survives a full disk, tables, checksums."""

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpcgeo.files import aside, write_text

_PAGE = 4096


class _Deaf(io.FileIO):
    """A file that keeps its first error to itself: HDF5 crashes on a disk that is full."""

    error: OSError | None = None

    def write(self, data: object) -> int:
        rest = memoryview(data).cast("B")  # type: ignore[arg-type]
        size = len(rest)
        while len(rest) and self.error is None:
            rest = rest[self._try(super().write, rest) or 0 :]
        return size

    def truncate(self, size: int | None = None) -> int:
        self._try(super().truncate, size)
        return size or 0

    def _try(self, call: Callable[..., int], *arguments: object) -> int | None:
        try:
            return call(*arguments)
        except OSError as error:
            self.error = error
            return None


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file that gets its name when the block ends.

    The same content gives the same bytes. Layout version 1.10 places the chunks of an uncompressed
    data set one behind the other, the first on a page of memory: that is read a third faster.

    Raises:
        OSError: the file could not be written, with its errno; nothing is left behind.
    """
    with aside(path) as partial, _Deaf(partial, "w+") as file:
        with h5py.File(
            file,
            "w",
            libver=("v110", "v110"),
            alignment_threshold=1 << 20,
            alignment_interval=_PAGE,
        ) as hdf5:
            yield hdf5
        if file.error is not None:
            raise file.error
        os.fsync(file.fileno())


def _own(file: h5py.File, name: str) -> h5py.Dataset:
    """Return an array that lies in an open file itself; a ValueError where it does not."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is missing, or in another file")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual:
        raise ValueError(f"{name} is no array of this file")
    return array


def own_array(
    file: h5py.File,
    name: str,
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Any:
    """Return the values of an array of an open file.

    Args:
        shape, dtype: what it has to be; None: one dimension, of bytes.

    Raises:
        ValueError: it is missing, elsewhere, or something else.
    """
    array = _own(file, name)
    fits = array.shape == shape and array.dtype == dtype
    if not (fits if shape is not None else array.ndim == 1 and array.dtype.kind == "S"):
        raise ValueError(f"{name} differs from the index in its size or data type")
    return array[:]


def valid_sizes(
    file: h5py.File, samples: int, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> list[list[int]]:
    """Return the valid height and width of every sample of an open shard file.

    What the file says of its arrays is held against the index before anything is read: HDF5 takes
    whatever room it is told to, and reads other files where it is sent there.

    Raises:
        ValueError: they differ, or the numbers are no sizes.
    """
    arrays = {
        "pixels": ((samples, *shape), dtype, (1, *shape)),
        "valid": ((samples, 2), np.dtype(np.int32), None),
    }
    for name, expected in arrays.items():
        array = _own(file, name)
        if (array.shape, array.dtype, array.chunks) != expected:
            raise ValueError(f"{name} differs from the index in its size or data type")
    valid = file["valid"][:]
    if (valid < 1).any() or (valid > shape[1:]).any():
        raise ValueError("valid holds sizes that no chip has")
    return valid.tolist()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def sha256(path: Path) -> str:
    """Return the checksum of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
