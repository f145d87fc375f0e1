"""The index of a data set: what its shard files hold, with a checksum of every file.

Anyone can write an index whose digest fits, so what it says of sizes and names is held together.
"""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from hpcgeo.data.shards.hdf5 import sha256
from hpcgeo.errors import InputError

NAME = "index.json"

#: Bytes that one byte of deflate can stand for, at most (RFC 1951: 258 for two bits).
DENSEST = 1032


def _number(dtype: str) -> str:
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"{dtype!r} is no data type") from None
    if found.kind not in "iuf" or found.name != dtype:
        raise ValueError(f"{dtype!r} is no data type of pixels")
    return dtype


Count = Annotated[int, Field(ge=0, lt=2**63)]
Name = Annotated[str, StringConstraints(min_length=1, pattern=r"\A[^/\x00-\x1f]+\z")]
DType = Annotated[str, AfterValidator(_number)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """A file in the folder of the set, and its checksum."""

    name: Name
    bytes: Count
    sha256: str


class ShardFile(File):
    """A shard file; `start` is the byte of its first pixel, None where pixels are compressed."""

    samples: Count
    start: Count | None


class SampleLayout(_Strict):
    """Samples alike in bands, data type, sensor, nodata, scale and offset.

    A pixel stands for scale x value + offset of its band; None: its files state neither. A band all
    missing has mean None.
    """

    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    dtype: DType
    sensor: str | None
    nodata: FiniteFloat | None
    scale: tuple[FiniteFloat, ...] | None = None
    offset: tuple[FiniteFloat, ...] | None = None
    samples: Count
    dropped: Count
    mean: tuple[FiniteFloat | None, ...]
    std: tuple[Annotated[FiniteFloat, Field(ge=0)] | None, ...]
    shards: tuple[ShardFile, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> "SampleLayout":
        of_bands = (self.mean, self.std, self.scale, self.offset)
        if any(len(values) != len(self.bands) for values in of_bands if values is not None):
            raise ValueError("not as many means, deviations, scales or offsets as bands")
        if (self.scale is None) != (self.offset is None) or 0 in (self.scale or ()):
            raise ValueError("scale and offset come together, and a scale is not 0")
        if self.samples != sum(shard.samples for shard in self.shards):
            raise ValueError("samples are not those of the shard files together")
        return self

    @model_serializer(mode="wrap")
    def _stated(self, usual: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out scale and offset where there are none, as in sets written before."""
        found: dict[str, Any] = usual(self)
        unstated = {"scale", "offset"} if self.scale is None else set()
        return {name: value for name, value in found.items() if name not in unstated}


class Index(_Strict):
    """What a data set holds; `digest` is the checksum of everything else in it."""

    schema_version: Literal[1] = 1
    chip: Annotated[Count, Field(ge=1)]
    compression: str
    sources: Count
    skipped: Count
    classes: dict[str, Count]
    layouts: dict[str, SampleLayout]
    files: tuple[File, ...]
    digest: str = ""

    @model_validator(mode="after")
    def _has_room(self) -> "Index":
        """A reader takes room for samples: they have to be in the files."""
        if not any(layout.samples for layout in self.layouts.values()):
            raise ValueError("no sample")
        for layout in self.layouts.values():
            shape = len(layout.bands), self.chip, self.chip
            sample = math.prod(shape) * np.dtype(layout.dtype).itemsize
            for shard in layout.shards:
                start = shard.start
                room = shard.bytes * DENSEST if start is None else shard.bytes - start
                if shard.samples * sample > room:
                    raise ValueError(f"{shard.name} is too small for its samples")
        return self

    def signed(self) -> "Index":
        """Return the index with its digest."""
        text = self.model_copy(update={"digest": ""}).model_dump_json()
        return self.model_copy(update={"digest": hashlib.sha256(text.encode()).hexdigest()})

    @property
    def samples(self) -> int:
        """Samples of all layouts."""
        return sum(layout.samples for layout in self.layouts.values())

    @property
    def bytes(self) -> int:
        """Bytes of all shard files."""
        return sum(shard.bytes for row in self.layouts.values() for shard in row.shards)


def load(folder: Path) -> Index:
    """Return the index of a data set.

    Raises:
        InputError: no data set there, an unfinished one, or an index that was changed.
    """
    path = folder / NAME
    try:
        index = Index.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        unfinished = (folder / "plan.json").exists()
        way_out = "its build is not finished: run the same command again" if unfinished else ""
        raise InputError(
            f"{folder}: no {NAME}; {way_out or 'write a data set with `hpcgeo data build`'}"
        ) from None
    except NotADirectoryError:
        raise InputError(f"{folder}: a file: give the folder of a data set") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError):
        raise InputError(f"{path}: damaged, or of another version; build the set again") from None
    if index.signed() != index:
        raise InputError(f"{path}: damaged: its checksum does not match; build the set again")
    return index


def verify(folder: Path, index: Index) -> dict[str, str]:
    """Return what is wrong with every file that is missing or differs from its checksum."""
    shards = [shard for layout in index.layouts.values() for shard in layout.shards]
    with ThreadPoolExecutor(4) as pool:
        files = [*index.files, *shards]
        found = pool.map(lambda file: _check(folder / file.name, file), files)
        problems = zip(files, found, strict=True)
        return {str(folder / file.name): problem for file, problem in problems if problem}


def _check(path: Path, file: File) -> str:
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"{size} bytes, {file.bytes} expected"
        return "" if sha256(path) == file.sha256 else "damaged: its checksum differs"
    except OSError as error:
        return str(error.strerror)
