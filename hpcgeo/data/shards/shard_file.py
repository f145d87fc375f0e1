"""A shard file: HDF5 with the pixels of one layout, a sample a chunk, and what is known of each.

pixels    (n, C, S, S)  in their own data type; one chunk, so one read, per sample
valid     (n, 2)        height and width of the part inside the source; the rest is padding
lon, lat  (n,)          degrees (WGS 84) of the centre, NaN where unknown
gsd_m     (n,)          ground sampling distance, NaN where unknown
time      (n,)          seconds since 1970 UTC, the smallest int64 where unknown
label     (n,)          row of the classes in the index, -1 where none
source    (n,)          row of `sources`, paths relative to the folder that was read
offset    (n, 2)        row and column in the source
crc32     (n,)          of the pixels of each sample, as zlib computes it (RFC 1952)
moments   (3, C)        count, mean, sum of squared deviations of the valid pixels
skipped                 sources that could not be read, as JSON
attributes              bands, sensor, nodata, scale, offset, dropped (mostly empty windows)
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hpcgeo.data.shards.chips import Spot, cut, filler
from hpcgeo.data.shards.hdf5 import new_hdf5, sha256
from hpcgeo.data.shards.moments import BandMoments
from hpcgeo.data.shards.settings import Compression, Settings
from hpcgeo.data.shards.skipped import Skipped, UnusableError
from hpcgeo.data.shards.sources import SourceFile
from hpcgeo.files import write_text
from hpcgeo.log import log


@dataclass(frozen=True)
class Key:
    """What all samples of a shard file share."""

    bands: tuple[str, ...]
    dtype: str
    sensor: str | None
    nodata: float | None
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None

    @classmethod
    def of(cls, source: SourceFile) -> "Key":
        """Return the key of a source."""
        return cls(*(getattr(source, field.name) for field in fields(cls)))


@dataclass(frozen=True)
class Span:
    """Windows [first, last) of a source; `label` is a row of the classes or -1."""

    source: SourceFile
    label: int
    first: int
    last: int


@dataclass(frozen=True)
class ShardPlan:
    """One shard file to write."""

    folder: Path
    path: Path
    key: Key
    spans: tuple[Span, ...]
    settings: Settings
    broken: Mapping[str, str] = field(default_factory=dict)  #: sources to leave out, and why


@dataclass(frozen=True)
class Shard:
    """What the index keeps of a shard file; `start` is the byte of the first uncompressed pixel."""

    name: str
    samples: int
    bytes: int
    sha256: str
    start: int | None
    moments: BandMoments
    labels: dict[int, int]
    dropped: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Failed:
    """A shard file that could not be written."""

    name: str
    reason: str


def build(plan: ShardPlan) -> Shard | Failed:
    """Write a shard file unless it is there as it was written, and return what it holds.

    Its checksum stands beside it, in a file that `sha256sum -c` reads.
    """
    try:
        sums = plan.path.with_name(f"{plan.path.name}.sha256")
        digest = sha256(plan.path) if plan.path.exists() and not plan.broken else None
        if digest and sums.exists() and sums.read_text("utf-8") != _line(digest, plan.path):
            log.warning("%s has other bytes than were written: written anew", plan.path)
            digest = None
        if digest and not _is_of(plan):
            log.warning("%s is of another plan, of an older release: written anew", plan.path)
            digest = None
        if digest is None:
            sums.unlink(missing_ok=True)
            _write(plan, _collect(plan))
            digest = sha256(plan.path)
        if not sums.exists():
            write_text(sums, _line(digest, plan.path))
        return read_summary(plan.path, digest)
    except OSError as error:
        return Failed(plan.path.name, error.strerror or str(error))
    except MemoryError:
        return Failed(plan.path.name, "out of memory: a smaller --shard-mib, or fewer --workers")


def _is_of(plan: ShardPlan) -> bool:
    """Say whether the shard file that is there holds what the plan says."""
    with h5py.File(plan.path, locking=False) as file:
        mine = _attributes(plan.key)
        there = {name: file.attrs[name] for name in file.attrs if name != "dropped"}
        alike = mine.keys() == there.keys() and all(
            np.array_equal(mine[name], there[name], equal_nan=name == "nodata") for name in mine
        )
        paths = _texts([span.source.path for span in plan.spans])
        return alike and np.array_equal(file["sources"][:], paths)


def _attributes(key: Key) -> dict[str, Any]:
    """Return what the attributes of a shard file say."""
    stated = {"scale": key.scale, "offset": key.offset}
    return {
        "bands": [*key.bands],
        "sensor": key.sensor or "",
        "nodata": np.nan if key.nodata is None else key.nodata,
        **{name: values for name, values in stated.items() if values is not None},
    }


def _line(digest: str, path: Path) -> str:
    return f"{digest}  {path.name}\n"


@dataclass
class _Samples:
    """Samples of a shard file in memory; `pixels` has room for every window."""

    pixels: npt.NDArray[np.generic]
    moments: BandMoments
    rows: list[tuple[Spot, Span]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    dropped: int = 0


def _collect(plan: ShardPlan) -> _Samples:
    size = plan.settings.chip
    room = sum(span.last - span.first for span in plan.spans)
    shape = room, len(plan.key.bands), size, size
    samples = _Samples(np.empty(shape, dtype=plan.key.dtype), BandMoments.none(shape[1]))
    for span in plan.spans:
        before = len(samples.rows), samples.moments, samples.dropped
        try:
            if reason := plan.broken.get(span.source.path):
                raise UnusableError(reason)
            _collect_span(plan, span, samples)
        except UnusableError as error:  # none of its chips, rather than some
            kept, samples.moments, samples.dropped = before
            del samples.rows[kept:]
            samples.skipped.append(Skipped(span.source.path, str(error)))
    return samples


def _collect_span(plan: ShardPlan, span: Span, samples: _Samples) -> None:
    missing = filler(plan.key.dtype, plan.key.nodata)
    first, source = len(samples.rows), span.source
    for chip in cut(plan.folder, span.source, span.first, span.last, plan.settings):
        if chip is None:
            samples.dropped += 1
            continue
        _, height, width = chip.pixels.shape
        sample = samples.pixels[len(samples.rows)]
        sample[:, height:], sample[:, :, width:] = missing, missing
        sample[:, :height, :width] = chip.pixels
        samples.moments += BandMoments.of(chip.pixels, chip.mask)
        samples.rows.append((chip.spot, span))
    chip_size = plan.settings.chip
    if len(samples.rows) == first and max(source.height, source.width) < chip_size:
        raise UnusableError(
            f"{source.height} x {source.width} pixels fill too little of a chip of {chip_size}: "
            f"choose a smaller --chip or --min-valid"
        )


def _write(plan: ShardPlan, samples: _Samples) -> None:
    rows = samples.rows
    paths = [span.source.path for span in plan.spans]
    number = {path: row for row, path in enumerate(paths)}
    moments = samples.moments
    arrays = {
        "valid": np.array([spot.valid for spot, _ in rows], dtype=np.int32).reshape(-1, 2),
        "lon": np.array([spot.lon for spot, _ in rows], dtype=np.float64),
        "lat": np.array([spot.lat for spot, _ in rows], dtype=np.float64),
        "gsd_m": np.array([spot.gsd_m for spot, _ in rows], dtype=np.float64),
        "time": np.array([span.source.time for _, span in rows], dtype=np.int64),
        "label": np.array([span.label for _, span in rows], dtype=np.int32),
        "source": np.array([number[span.source.path] for _, span in rows], dtype=np.int32),
        "offset": np.array([spot.offset for spot, _ in rows], dtype=np.int64).reshape(-1, 2),
        "sources": _texts(paths),
        "crc32": np.array([zlib.crc32(each) for each in samples.pixels[: len(rows)]], np.uint32),
        "moments": np.stack([moments.count, moments.mean, moments.squares]),
        "skipped": _texts([json.dumps([skip.path, skip.reason]) for skip in samples.skipped]),
    }
    with new_hdf5(plan.path) as file:
        for name, value in _attributes(plan.key).items():
            file.attrs[name] = value
        file.attrs["dropped"] = samples.dropped
        _write_pixels(file, samples.pixels[: len(rows)], plan.settings.compression)
        for name, array in arrays.items():
            file[name] = array


def _write_pixels(
    file: h5py.File, pixels: npt.NDArray[np.generic], compression: Compression
) -> None:
    chunk = (1, *pixels.shape[1:])
    if compression != "none":
        file.create_dataset(
            "pixels", data=pixels, chunks=chunk, compression=compression, shuffle=True
        )
        return
    # Room taken at once, so that the chunks lie one behind the other, as `_start` checks
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(chunk)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    space = h5py.h5s.create_simple(pixels.shape)
    kind = h5py.h5t.py_create(pixels.dtype)
    data = h5py.Dataset(h5py.h5d.create(file.id, b"pixels", kind, space, plan))
    if len(pixels):
        data[...] = pixels


def read_summary(path: Path, digest: str) -> Shard:
    """Return what the index keeps of a shard file that is there, of a checksum."""
    with h5py.File(path, locking=False) as file:
        labels, counts = np.unique(file["label"][:], return_counts=True)
        return Shard(
            name=path.name,
            samples=len(file["pixels"]),
            bytes=path.stat().st_size,
            sha256=digest,
            start=_start(file["pixels"]),
            moments=BandMoments(*file["moments"][:]),
            labels=dict(zip(labels.tolist(), counts.tolist(), strict=True)),
            dropped=int(file.attrs["dropped"]),
            skipped=tuple(Skipped(*json.loads(text)) for text in file["skipped"][:]),
        )


def _start(pixels: h5py.Dataset) -> int | None:
    if pixels.compression is not None or not len(pixels):
        return None
    first, last = (pixels.id.get_chunk_info(i).byte_offset for i in (0, len(pixels) - 1))
    assert last - first == (len(pixels) - 1) * pixels[0].nbytes
    return int(first)


def _texts(texts: Sequence[str]) -> npt.NDArray[np.bytes_]:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")
