"""The profile record: one JSON line that says what was measured, of what, where and how.

A file of records is JSON lines; records are appended, never changed. Two kinds are never mixed:
``measured`` (this code, from a clock) and ``published`` (read from a paper).
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcgeo.errors import InputError

#: What counts something: no file makes it larger than an integer of the machine.
Count = Annotated[int, Field(lt=2**63)]


class Spread(BaseModel):
    """Median and spread of a list of measurements, with the measurements themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    median: float
    p10: float
    p90: float
    values: list[float] = []

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        p10, median, p90 = np.percentile(np.asarray(values, dtype=float), [10, 50, 90])
        return cls(median=float(median), p10=float(p10), p90=float(p90), values=list(values))

    @property
    def relative(self) -> float:
        """(p90 - p10) / median."""
        return (self.p90 - self.p10) / self.median


class Record(BaseModel):
    """One point of a scaling study. A field that was not measured is None, never zero."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["measured", "published"]
    status: Literal["ok", "failed"] = "ok"
    error: str | None = Field(None, description="why the point failed, in one line")

    machine: str
    device: str = Field(description="what one rank drives, e.g. 'AMD EPYC, 1 thread'")
    hosts: list[str] = []
    nodes: Count
    world_size: Count = Field(description="ranks = devices")

    model: str
    parameters: Count | None = Field(None, description="trained parameters, encoder and decoder")
    objective: str
    bands: Count | None = None
    chip: tuple[Count, Count] = Field(description="height, width in pixels")
    strategy: str
    group_size: Count | None = None
    dtype: str
    micro_batch: Count
    accumulate: Count
    global_batch: Count
    data: str = Field(description="'synthetic' or 'shards'")

    warmup_steps: Count | None = Field(None, description="steps discarded before measuring")
    images_per_s: float | None = Field(None, description="all ranks; global_batch / median step")
    step_s: Spread | None = Field(None, description="seconds per step, slowest rank")
    data_wait_s: float | None = Field(None, description="median wait for data per step")
    comm_s: float | None = Field(None, description="seconds per step in which a collective runs")
    peak_memory_bytes: Count | None = Field(None, description="worst rank")
    memory_source: str | None = Field(None, description="'reserved' (device) or 'resident' (host)")
    model_flops: float | None = Field(None, description="forward + backward per step, all ranks")
    peak_flops_per_s: float | None = Field(None, description="of one device, at this dtype")
    peak_source: str | None = Field(None, description="'measured' or 'tabled'")
    mfu: float | None = None

    versions: dict[str, str] = {}
    commit: str | None = None
    dirty: bool | None = None
    command: str | None = None
    created: str = Field(description="UTC, ISO 8601")
    source: str | None = Field(None, description="where a published point was read")
    config: dict[str, Any] | None = Field(None, description="the resolved RunConfig")

    @property
    def layout(self) -> str:
        """The strategy with its group size, e.g. ``HYBRID_SHARD(2)``."""
        return f"{self.strategy}({self.group_size})" if self.group_size else self.strategy


def append(path: Path, record: Record) -> None:
    """Append one line to a file of records, in one write; a line torn before it stays alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = size > 0 and file.read(1) != b"\n"
        file.write(b"\n" * torn + record.model_dump_json().encode() + b"\n")
        os.fsync(file.fileno())


def read(paths: Iterable[Path]) -> list[Record]:
    """Return all records of files and folders (searched for ``*.jsonl`` and ``record.json``).

    Raises:
        InputError: nothing there, or a line that is not a record; the message names file and line.
    """
    found: list[Record] = []
    for path in paths:
        if path.is_dir():
            files = sorted([*path.rglob("record.json"), *path.rglob("records*.jsonl")])
            if not files:
                raise InputError(f"{path}: no record.json or records*.jsonl below this folder")
        elif path.is_file():
            files = [path]
        else:
            raise InputError(f"{path}: no such file or folder of records")
        for file in files:
            found += _read_file(file)
    return found


def _read_file(path: Path) -> list[Record]:
    records = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    records.append(_record(line, f"{path}:{number}"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return records


def _record(line: bytes, place: str) -> Record:
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise InputError(f"{place}: not JSON: {first['msg']}") from None
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{place}: not a record: {key}: {first['msg']}") from None
