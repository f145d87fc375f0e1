"""Records made in code: a sweep of one model, and single points to compare."""

from collections.abc import Callable
from typing import Any

import pytest

from hpcgeo.records import Record, Spread

Make = Callable[..., Record]


@pytest.fixture
def make() -> Make:
    """Return a function that makes a record; every field has a value that can be replaced."""
    return make_record


def make_record(
    strategy: str = "DDP", devices: int = 1, step_s: float | None = 0.1, **fields: Any
) -> Record:
    """Return a measured record of `devices` ranks; `spread` is (p90 - p10) / median."""
    spread = fields.pop("spread", 0.02)
    micro_batch = fields.pop("micro_batch", 8)
    accumulate = fields.pop("accumulate", 1)
    global_batch = fields.pop("global_batch", micro_batch * accumulate * devices)
    values: dict[str, Any] = {
        "kind": "measured",
        "machine": "testbed",
        "device": "CPU, 1 thread",
        "hosts": ["node1"],
        "nodes": 1,
        "world_size": devices,
        "model": "vit_tiny",
        "parameters": 5_000_000,
        "objective": "mae",
        "bands": 3,
        "chip": (64, 64),
        "strategy": strategy,
        "dtype": "float32",
        "micro_batch": micro_batch,
        "accumulate": accumulate,
        "global_batch": global_batch,
        "data": "synthetic",
        "warmup_steps": 2,
        "versions": {"torch": "2.13.0"},
        "commit": "0123456789abcdef",
        "dirty": False,
        "command": f"hpcgeo profile vit_tiny parallel.strategy={strategy}",
        "created": "2026-01-02T03:04:05Z",
    }
    if step_s is not None:
        half = step_s * spread / 2
        values["step_s"] = Spread(
            median=step_s, p10=step_s - half, p90=step_s + half, values=[step_s] * 10
        )
        values["images_per_s"] = global_batch / step_s
    return Record(**{**values, **fields})


@pytest.fixture
def sweep() -> list[Record]:
    """Return a small fixed study: three strategies, repeats, a noisy point and a failed one."""
    gib = 2**30
    return [
        make_record("DDP", 1, 0.100, peak_memory_bytes=gib, memory_source="resident"),
        make_record(
            "DDP", 1, 0.102, peak_memory_bytes=gib, memory_source="resident", created="2026-01-02"
        ),
        make_record("DDP", 2, 0.105, peak_memory_bytes=gib, memory_source="resident", comm_s=0.005),
        make_record(
            "DDP",
            4,
            0.120,
            peak_memory_bytes=gib,
            memory_source="resident",
            comm_s=0.012,
            mfu=0.25,
            peak_flops_per_s=61e9,
            peak_source="measured",
        ),
        make_record("FULL_SHARD", 1, 0.101, peak_memory_bytes=gib, memory_source="resident"),
        make_record(
            "FULL_SHARD",
            2,
            0.140,
            peak_memory_bytes=3 * gib // 4,
            memory_source="resident",
            comm_s=0.04,
            data_wait_s=0.01,
        ),
        make_record(
            "FULL_SHARD",
            4,
            0.200,
            spread=0.4,
            peak_memory_bytes=gib // 2,
            memory_source="resident",
            dirty=True,
        ),
        make_record("HYBRID_SHARD", 2, 0.11, group_size=2),
        make_record(
            "HYBRID_SHARD",
            4,
            None,
            group_size=2,
            status="failed",
            error="RuntimeError: rank 3 | timed out <600 s>",
        ),
    ]
