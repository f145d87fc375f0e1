"""The training state as safetensors files and an index in JSON; nothing in them is a pickle.

torch.distributed.checkpoint plans which rank writes and reads which piece of which tensor, between
any two world sizes (`hpcgeo.checkpoint.planning`); this is how the pieces lie on disk. The writer
that comes with it keeps that as a pickle (`.metadata`), and a pickle from a stranger runs what the
stranger likes. Numbers, names and bytes run nothing, so a checkpoint needs no trust: damaged or
forged, it is wrong at worst.

rank-00000.safetensors   the pieces that rank 0 wrote, largest data types first
rank-00001.safetensors
index.json               name -> {dtype, size, chunks: [[offsets, sizes, rank, byte], ...]}, or
                         {value}

Any tool that reads safetensors opens a rank's file; there a piece of a tensor has its offsets in
its name.

Names are `model.<parameter>`, `optimizer.state.<parameter>.exp_avg` (also `exp_avg_sq` and `step`)
and `optimizer.param_groups.<parameter>.<option>`: by parameter, not by group, since strategies may
group them differently.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter
from torch import Tensor

from hpcgeo.errors import InputError

#: Bytes copied, written and hashed at once where there is no copy of the whole file.
PORTION = 128 * 2**20

Answer = TypeVar("Answer")

#: How often a file is asked for before it counts as not to be read, and seconds between.
ATTEMPTS, PAUSE_S = 3, 1.0

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
INDEX = "index.json"
#: What a checkpoint may call its files; `.bin` were such without a header.
FILES = r"^(index\.json|rank-\d{5,}\.(safetensors|bin))$"


def file_name(rank: int) -> str:
    """Return the name of the file with the pieces that a rank wrote."""
    return f"rank-{rank:05d}.safetensors"


def fill(area: Tensor, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Copy a file's pieces into `area` one after another; yield it whenever full, and the rest.

    Args:
        area: bytes on the host. As large as the file it is yielded once, and the pieces may change
            from then on; a smaller one is filled again and again.
    """
    used = 0
    for piece in pieces:
        rest = piece.reshape(-1).view(torch.uint8)
        while len(rest):
            part = rest[: len(area) - used]
            area[used : used + len(part)].copy_(part, non_blocking=True)
            rest, used = rest[len(part) :], used + len(part)
            if used == len(area):
                yield _arrived(area)
                used = 0
    if used:
        yield _arrived(area[:used])


def patiently(path: Path, read: Callable[[], Answer]) -> Answer:
    """Return what reading a file gives; what fails for a moment is asked for again.

    Raises:
        InputError: it still cannot be read, and says nothing of what the file holds.
        FileNotFoundError: there is no such file.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return read()
        except FileNotFoundError:
            raise
        except OSError as error:
            if attempt == ATTEMPTS:
                raise InputError(
                    f"{path} cannot be read just now: {error.strerror} (asked {ATTEMPTS} times); "
                    f"nothing was changed: start it again when the file system answers"
                ) from None
            time.sleep(PAUSE_S)
    raise AssertionError


class FileEntry(BaseModel):
    """What the manifest says of a file."""

    model_config = ConfigDict(extra="forbid")
    bytes: NonNegativeInt
    digest: str


def write(path: Path, parts: Iterable[Tensor]) -> dict[str, Any]:
    """Write a file through to the disk, hashing it meanwhile; return its manifest entry.

    Raises:
        OSError: for instance a full disk.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as beside:
        for part in parts:
            view: Any = part.numpy()
            rest = memoryview(view)
            hashed = beside.submit(digest.update, rest)
            size += len(rest)
            while rest:
                rest = rest[file.write(rest) :]
            hashed.result()
        os.fsync(file.fileno())
    return {"bytes": size, "digest": digest.hexdigest()}


def entry_of(text: str) -> dict[str, Any]:
    """Return the manifest entry of a text file."""
    data = text.encode()
    return {"bytes": len(data), "digest": hashlib.sha256(data).hexdigest()}


def damage(path: Path, entry: FileEntry) -> str | None:
    """Return what is wrong with a file, given its manifest entry; None where nothing is.

    Raises:
        InputError: it cannot be read just now, which says nothing of its bytes.
    """
    try:
        size = patiently(path, path.stat).st_size
        if size != entry.bytes:
            return f"{path.name} has {size:,} bytes, not {entry.bytes:,}"
        if patiently(path, lambda: _digest(path)) != entry.digest:
            return f"{path.name} has other bytes than were written (checksum)"
    except FileNotFoundError:
        return f"{path.name} is missing"
    return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while portion := file.read(16 * 2**20):
            digest.update(portion)
    return digest.hexdigest()


class Stored(BaseModel):
    """A tensor of the index; a chunk is (offsets, sizes, rank, byte)."""

    model_config = ConfigDict(extra="forbid")
    dtype: str
    size: tuple[NonNegativeInt, ...]
    chunks: list[
        tuple[
            tuple[NonNegativeInt, ...], tuple[NonNegativeInt, ...], NonNegativeInt, NonNegativeInt
        ]
    ]


class Value(BaseModel):
    """Anything else of the index."""

    model_config = ConfigDict(extra="forbid")
    value: Any


INDEX_ENTRIES = TypeAdapter(dict[str, Stored | Value])


def _arrived(area: Tensor) -> Tensor:
    if area.is_pinned():
        torch.cuda.synchronize()
    return area
