"""The index of a data set: what its shard files hold, with a checksum of every file."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcgeo.data.files import sha256
from hpcgeo.errors import InputError

NAME = "index.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Strict):
    """A file and its checksum."""

    name: str
    bytes: int
    sha256: str


class ShardFile(File):
    """A shard file; `start` is the byte of its first pixel, None where pixels are compressed."""

    samples: int
    start: int | None


class Layout(_Strict):
    """Samples alike in bands, data type, sensor and nodata; a band all missing has mean None."""

    bands: tuple[str, ...]
    dtype: str
    sensor: str | None
    nodata: float | None
    samples: int
    dropped: int
    mean: tuple[float | None, ...]
    std: tuple[float | None, ...]
    shards: tuple[ShardFile, ...]


class Index(_Strict):
    """What a data set holds; `digest` is the checksum of everything else in it."""

    schema_version: Literal[1] = 1
    chip: int
    compression: str
    sources: int
    skipped: int
    classes: dict[str, int]
    layouts: dict[str, Layout]
    files: tuple[File, ...]
    digest: str = ""

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
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError):
        raise InputError(f"{path}: damaged, or of another version; build the set again") from None
    if index.signed() != index:
        raise InputError(f"{path}: damaged: its digest does not match; build the set again")
    return index


def verify(folder: Path, index: Index) -> list[str]:
    """Return one line for every file that is missing or differs from its checksum."""
    shards = [shard for layout in index.layouts.values() for shard in layout.shards]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda file: _check(folder, file), [*index.files, *shards])
        return [problem for problem in found if problem]


def _check(folder: Path, file: File) -> str:
    path = folder / file.name
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"{path}: {size} bytes, {file.bytes} expected"
        return "" if sha256(path) == file.sha256 else f"{path}: damaged: its checksum differs"
    except OSError as error:
        return f"{path}: {error.strerror}"
