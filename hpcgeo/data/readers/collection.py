"""What every reader of labelled samples hands over, and the few steps that readers share."""

import csv
import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hpcgeo.data.sample import Channel, Float32, Float64, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

Int64 = npt.NDArray[np.int64]

#: What Pillow opens: not what runs another program (EPS) or is rarely well kept.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000")

SPLITS = ("train", "validation", "test")

#: A time of which nothing is known, (1, 2).
ANY_TIME: Float64 = np.array([[0.0, np.inf]])


@dataclass(frozen=True)
class Frame:
    """How images are cut into tokens: `patch` pixels on a side, chips of `size` (None: as stored).

    Raises:
        InputError: a patch that is no power of two, or does not divide the size.
    """

    patch: int
    size: int | None = None

    def __post_init__(self) -> None:
        if self.patch < 1 or self.patch & (self.patch - 1):
            raise InputError(f"patch {self.patch}: a power of two, e.g. 16")
        if self.size is not None and (self.size < 1 or self.size % self.patch):
            raise InputError(f"size {self.size}: must be a multiple of patch {self.patch}")


@dataclass(frozen=True)
class Collection:
    """The labelled samples of one folder or file, all parts of it together.

    Attributes:
        target: what they are labelled with, before any standardisation.
        channels: every channel that any sample may hold.
        splits: (N,) the part each sample is in, one of `SPLITS`.
        groups: (N,) what shares ground and is held out together; a name for each sample: none do.
        labels: (N,) class of each sample, or (N, K) its numbers; empty where the label is an image.
        fingerprint: checksum of what the samples are read from.
        changed: when the newest of those files was written, in ns; a copy of them may be newer.
        load: reads a sample by its number, values as stored.
        patches: of images, beside that of the frame.
        moments: mean and deviation of the bands, where the data knows them.
        places: (N, 2) longitude and latitude, where they are known without reading a sample.
    """

    target: Target
    channels: tuple[Channel, ...]
    splits: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    labels: npt.NDArray[np.generic]
    fingerprint: str
    load: Callable[[int], Sample]
    patches: frozenset[int] = frozenset()
    moments: Mapping[Channel, tuple[float, float]] | None = None
    places: Float64 | None = None
    changed: int = 0


def single_target(target: str | None, name: str) -> None:
    """Refuse a target other than the only one of a layout, which need not be named."""
    if target not in (None, name):
        raise InputError(f"unknown target {target!r}; known: {name}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # Pillow, NumPy, zlib and HDF5 share no class of errors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: cannot be read: {reason}") from None


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file.

    Raises:
        InputError: there is no such file, it lacks a column, a row is cut short, it has no rows, or
            a name leads out of the folder.
    """
    with reading(path), path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        missing = [name for name in columns if name not in (lines.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}")
        rows = list(lines)
    if not rows:
        raise InputError(f"{path}: no rows")
    for number, row in enumerate(rows, 2):
        if any(row[name] is None for name in columns):
            raise InputError(f"{path}: line {number} is cut short")
        for name in columns:
            refuse_outside(row[name], f"{path}: line {number}")
    return rows


def refuse_outside(name: str, where: str) -> None:
    """Refuse a name that leads out of the folder of a data set; names in it come from anyone."""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts or "\0" in name:
        raise InputError(f"{where} names {name!r}, outside of the folder of the data set")


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[np.generic]]:
    """Return the named arrays of an npz file; nothing is unpickled.

    Raises:
        InputError: the file cannot be read, or lacks one of them.
    """
    # opened here: NumPy leaves a file open that is no archive
    with reading(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        missing = [name for name in names if name not in arrays]
        if missing:
            raise InputError(f"{path}: no array {', '.join(missing)}; known: {', '.join(arrays)}")
        return {name: arrays[name] for name in names}


def one_of_splits(names: Sequence[str], path: Path) -> npt.NDArray[np.str_]:
    """Return the parts of samples, (N,); a name that is none is an InputError."""
    for name in sorted(set(names)):
        if name not in SPLITS:
            raise InputError(f"{path}: split {name!r}; known: {', '.join(SPLITS)}")
    return np.array(names)


def numbered(names: Sequence[str]) -> tuple[tuple[str, ...], Int64]:
    """Return the classes in sorted order and the number of each sample's, (N,)."""
    classes, numbers = np.unique(np.array(names), return_inverse=True)
    return tuple(classes.tolist()), numbers.astype(np.int64).reshape(-1)


def checksum(files: Sequence[Path], tables: Sequence[Path] = ()) -> str:
    """Return a checksum of names and sizes of `files` and of the content of `tables`.

    Of an npz file it is that of the checksums that the archive holds of its arrays.

    Raises:
        InputError: one of them is not there.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with reading(path):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            if path.suffix == ".npz":
                with zipfile.ZipFile(path) as archive:
                    parts = [f"{part.filename} {part.CRC}" for part in archive.infolist()]
                digest.update("\n".join(parts).encode())
    for path in tables:
        with reading(path):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read_from(files: Sequence[Path], tables: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the fields of a `Collection` that say what its samples are read from; see `checksum`.

    Raises:
        InputError: a file is not there.
    """
    fingerprint = checksum(files, tables)
    times = [path.stat().st_mtime_ns for path in (*files, *tables)]
    return {"fingerprint": fingerprint, "changed": max(times, default=0)}


def days(start: date, end: date) -> tuple[float, float]:
    """Return centre and half-width of [start, end) in days since 2000-01-01.

    >>> days(date(2000, 1, 1), date(2000, 1, 3))
    (1.0, 1.0)
    """
    first = (start - date(2000, 1, 1)).days
    half = (end - start).days / 2
    return first + half, half


def year(number: int) -> tuple[float, float]:
    """Return centre and half-width of a year in days since 2000-01-01."""
    return days(date(number, 1, 1), date(number + 1, 1, 1))


def read_image(path: Path, mode: str) -> Float32:
    """Return an image that Pillow reads, (L, H, W).

    Args:
        path: of the file.
        mode: of Pillow: "RGB", or "L" for one band.

    Raises:
        InputError: it cannot be read.
    """
    with reading(path), Image.open(path, formats=FORMATS) as image:
        pixels = np.asarray(image.convert(mode), dtype=np.float32)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1))


def fit(values: Float32, frame: Frame, path: Path) -> Float32:
    """Return an image (..., H, W) at the size of the frame, averaged over what a pixel covers.

    Raises:
        InputError: no size is asked for and the image's own is no multiple of the patch.
    """
    return _resize(values, frame, path, Image.Resampling.BILINEAR)


def fit_mask(classes: Int64, frame: Frame, path: Path) -> Int64:
    """Return classes of pixels (H, W) at the size of the frame, each that of the nearest pixel.

    Raises:
        InputError: no size is asked for and the mask's own is no multiple of the patch.
    """
    nearest = _resize(classes.astype(np.float32), frame, path, Image.Resampling.NEAREST)
    return nearest.astype(np.int64)


def read_masked(image: Path, mask: Path, frame: Frame) -> tuple[Float32, Int64, tuple[int, int]]:
    """Return an image (3, H, W) and what its mask marks (H, W) at the size of the frame, and the
    height and width they are stored with.

    Raises:
        InputError: one cannot be read, or they differ in size, or `fit` refuses it.
    """
    stored, marked = read_image(image, "RGB"), read_image(mask, "L")[0] > 0
    height, width = marked.shape
    if stored.shape[1:] != (height, width):
        raise InputError(f"{mask}: {marked.shape} pixels, {stored.shape[1:]} in {image}")
    classes = fit_mask(marked.astype(np.int64), frame, mask)
    return fit(stored, frame, image), classes, (height, width)


def _resize(values: Float32, frame: Frame, path: Path, how: Image.Resampling) -> Float32:
    height, width = values.shape[-2:]
    if frame.size is None:
        if height % frame.patch or width % frame.patch:
            raise InputError(
                f"{path}: {height} x {width} pixels are no multiple of patch {frame.patch}; "
                f"give a size, e.g. {max(1, height // frame.patch) * frame.patch}"
            )
        return values
    if (height, width) == (frame.size, frame.size):
        return values
    bands = values.reshape(-1, height, width)
    side = (frame.size, frame.size)
    fitted = np.stack([np.asarray(Image.fromarray(band).resize(side, how)) for band in bands])
    return fitted.reshape(*values.shape[:-2], *side)


def scaled_gsd(gsd_m: float, height: int, frame: Frame) -> float:
    """Return metres of a pixel after `fit` of an image of `height` rows."""
    return gsd_m * height / (frame.size or height)


def without_meaning(names: Sequence[str]) -> list[str]:
    """Return names in an order without meaning that is always the same."""
    return sorted(names, key=lambda name: hashlib.blake2b(name.encode()).digest())
