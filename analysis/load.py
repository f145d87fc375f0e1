"""Records become a pandas frame, one row each; what was not recorded stays missing, never zero."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hpcgeo.errors import InputError
from hpcgeo.records import MISSING, Record, read

#: Columns that must agree between two points of one comparison.
CONTEXT = (
    "kind",
    "machine",
    "device",
    "model",
    "objective",
    "bands",
    "chip",
    "dtype",
    "recompute",
    "data",
    "communication",
    "torch",
    "knobs",
)


def load(paths: Iterable[Path]) -> tuple[list[Record], int]:
    """Return the records of files and folders, and how many identical copies were left out.

    Raises:
        InputError: nothing there, no record in it, or a line that is not a sound record.
    """
    paths = list(paths)
    found: dict[str, Record] = {}
    read_in = 0
    for path in paths:
        records = read([path])
        for record in records:
            _check(record, path)
            found.setdefault(record.model_dump_json(), record)
        read_in += len(records)
    if not found:
        names = ", ".join(str(path) for path in paths) or "no files given"
        raise InputError(f"no records in {names}; `hpcgeo profile` writes them")
    return list(found.values()), read_in - len(found)


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per record, in the order given; columns carry their units in their names."""
    return pd.DataFrame([_row(record) for record in records])


def _check(record: Record, path: Path) -> None:
    counts = ("nodes", "world_size", "micro_batch", "accumulate", "global_batch")
    rates = ("images_per_s", "mfu", "peak_memory_bytes", "peak_flops_per_s", "model_flops")
    times = ("data_wait_s", "comm_s")
    rules = [(name, getattr(record, name), "above zero") for name in (*counts, *rates)]
    rules += [(name, getattr(record, name), "zero or above") for name in times]
    if record.step_s is not None:
        rules += [
            (f"step_s.{name}", getattr(record.step_s, name), "above zero")
            for name in ("p10", "median", "p90")
        ]
    for name, value, rule in rules:
        if value is None:
            continue
        if not math.isfinite(value) or value < 0 or (value == 0 and rule == "above zero"):
            raise InputError(
                f"{path}: {record.model}, {record.layout} on {record.world_size}: {name} is "
                f"{value}; it must be {rule}, or null where it was not measured"
            )
    step = record.step_s
    if step is not None and not step.p10 <= step.median <= step.p90:
        raise InputError(
            f"{path}: {record.model}, {record.layout} on {record.world_size}: step_s needs "
            f"p10 <= median <= p90, found {step.p10}, {step.median}, {step.p90}"
        )


def _row(record: Record) -> dict[str, Any]:
    step = record.step_s
    images_per_s = record.images_per_s
    if images_per_s is None and step is not None:
        images_per_s = record.global_batch / step.median
    return {
        **record.key,
        "status": record.status,
        "error": record.error,
        "hosts": ", ".join(sorted(set(record.hosts))) or MISSING,
        "nodes": record.nodes,
        "devices": record.world_size,
        "parameters": _number(record.parameters),
        "strategy": record.strategy,
        "layout": record.layout,
        "micro_batch": record.micro_batch,
        "accumulate": record.accumulate,
        "global_batch": record.global_batch,
        "warmup_steps": _number(record.warmup_steps),
        "measured_steps": _number(len(step.values) if step and step.values else None),
        "images_per_s": _number(images_per_s),
        "step_s": _number(step.median if step else None),
        "step_p10_s": _number(step.p10 if step else None),
        "step_p90_s": _number(step.p90 if step else None),
        "noisy": record.noisy,
        "data_wait_s": _number(record.data_wait_s),
        "comm_s": _number(record.comm_s),
        "peak_memory_bytes": _number(record.peak_memory_bytes),
        "memory_source": (record.memory_source or MISSING) if record.peak_memory_bytes else "",
        "peak_flops_per_s": _number(record.peak_flops_per_s),
        "peak_source": record.peak_source or "" if record.mfu else "",
        "mfu": _number(record.mfu),
        "versions": ", ".join(f"{name} {value}" for name, value in sorted(record.versions.items()))
        or MISSING,
        "commit": record.commit or MISSING,
        "dirty": {None: MISSING, True: "uncommitted changes", False: "clean"}[record.dirty],
        "command": record.command or MISSING,
        "created": record.created,
        "source": record.source or MISSING,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
