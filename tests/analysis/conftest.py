"""Records made in code: a sweep of one model, and single points to compare."""

from collections.abc import Callable
from typing import Any

import pytest

from hpcgeo.measured import Activity, Energy, Memory, Phases, Spread, Traffic, Transfer, Wait
from hpcgeo.records import LinksRecord, Record

GIB = 2**30

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


def activity(step_s: float, exposed: float) -> Activity:
    """Return a traced step of which `exposed` seconds are communication, and 5 % idle."""
    idle = 0.05 * step_s
    return Activity(
        step_s=step_s,
        compute_s=step_s - exposed - idle,
        exposed_comm_s=exposed,
        data_wait_s=0.0,
        host_to_device_s=0.0,
        idle_s=idle,
        comm_s=2 * exposed,
    )


def phases(step_s: float) -> Phases:
    return Phases(
        step_s=step_s,
        data_wait_s=0.01 * step_s,
        host_to_device_s=0.01 * step_s,
        forward_s=0.3 * step_s,
        backward_s=0.6 * step_s,
        optimizer_s=0.05 * step_s,
        other_s=0.03 * step_s,
    )


def gathered(ranks: int, message_bytes: int, seconds: float) -> Traffic:
    """Return all-gathers over the sharding group: four calls a step."""
    rate = message_bytes / (seconds / 4)
    return Traffic(
        collective="all_gather",
        group="dp_shard",
        ranks=ranks,
        message_bytes=message_bytes,
        calls=4,
        seconds=seconds,
        transfer_s=seconds / 4,
        algorithm_bytes_per_s=rate,
        bus_bytes_per_s=rate * (ranks - 1) / ranks,
    )


def memory(shards: int) -> Memory:
    """Return memory by cause of a model of 1 GiB of parameters, cut over `shards` ranks."""
    return Memory(
        parameters_bytes=GIB // shards,
        gradients_bytes=GIB // shards,
        optimizer_bytes=2 * GIB // shards,
        gathered_bytes=0,
        activations_bytes=GIB // 2,
        batch_bytes=GIB // 16,
        phase="backward",
        other_bytes=3 * GIB // 16,
        peak_allocated_bytes=4 * GIB // shards + 3 * GIB // 4,
        peak_resident_bytes=4 * GIB // shards + GIB,
        limit_bytes=8 * GIB,
    )


def whole_record(strategy: str, devices: int, step_s: float, **fields: Any) -> Record:
    """Return a record in which every section of the report finds something."""
    shards = devices if strategy == "FULL_SHARD" else 1
    held = memory(shards)
    joules = 40.0 * devices * step_s * 10
    values: dict[str, Any] = {
        "stable": True,
        "comm_s": 0.02 * devices,
        "data_wait_s": 0.01 * step_s,
        "phases": phases(step_s),
        "activity": activity(step_s, 0.01 * (devices - 1)),
        "traffic": [gathered(devices, 2**22, 0.01 * devices)] if shards > 1 else [],
        "wait": Wait(seconds=[0.002] * devices),
        "memory": held,
        "predicted_memory": held.model_copy(update={"activations_bytes": 6 * GIB // 10}),
        "peak_memory_bytes": held.peak_resident_bytes,
        "memory_source": "resident",
        "recompute": "none",
        "model_flops": 1e9 * devices,
        "counted_flops": 1.3e9 * devices,
        "peak_flops_per_s": 61e9,
        "peak_source": "tabled",
        "mfu": 1e9 / step_s / 61e9,
        "hfu": 1.3e9 / step_s / 61e9,
        "product_flops_per_s": 50e9,
        "energy": Energy(
            source="rapl",
            covers="the package of 1 node",
            joules=joules,
            images=8 * devices * 10,
            grid_g_per_kwh=400,
            grid_source="stated by the user",
        ),
    }
    return make_record(strategy, devices, step_s, **{**values, **fields})


@pytest.fixture
def whole() -> Make:
    """Return a function that makes a record with every field filled."""
    return whole_record


@pytest.fixture
def sweep() -> list[Record]:
    """Return a fixed study: two strategies, repeats, noise, failures, and every field filled."""
    late = Wait(seconds=[0.06, 0.06, 0.01, 0.06], straggler=2, host="node1", late_s=0.05)
    oom = {"status": "out_of_memory", "error": "needs 9 GiB", "micro_batch": 64}
    failed = {"status": "failed", "error": "RuntimeError: rank 3 | timed out <600 s>"}
    return [
        whole_record("DDP", 1, 0.100),
        whole_record("DDP", 1, 0.102, created="2026-01-02"),
        whole_record("DDP", 2, 0.105),
        whole_record("DDP", 4, 0.120, wait=late),
        whole_record("DDP", 4, 0.090, communication="off", traffic=[], activity=None, comm_s=0.0),
        whole_record("DDP", 4, 0.150, data="shards"),
        whole_record("DDP", 4, 0.120, data="cached"),
        whole_record("FULL_SHARD", 1, 0.101, stable=False),
        whole_record("FULL_SHARD", 2, 0.140),
        whole_record("FULL_SHARD", 4, 0.250, spread=0.4, dirty=True),
        make_record("FULL_SHARD", 4, None, kind="predicted", recompute="none", images_per_s=150.0),
        make_record("HYBRID_SHARD", 2, 0.11, group_size=2, recompute="none"),
        make_record("HYBRID_SHARD", 4, None, group_size=2, recompute="none", **failed),
        make_record("DDP", 4, None, recompute="none", **oom),
    ]


@pytest.fixture
def links() -> LinksRecord:
    """Return the curve of one collective, with a cliff at 4 MB that recovers at 16 MB."""
    rates = {2**18: 1e9, 2**20: 2e9, 2**22: 3e8, 2**24: 4e9}
    transfers = [
        Transfer(
            collective="all_gather",
            group="all",
            ranks=4,
            nodes=1,
            message_bytes=message,
            seconds=Spread.of([message / rate]),
            algorithm_bytes_per_s=rate,
            bus_bytes_per_s=0.75 * rate,
        )
        for message, rate in rates.items()
    ]
    return LinksRecord(
        kind="measured",
        machine="testbed",
        device="CPU, 1 thread",
        nodes=1,
        world_size=4,
        backend="gloo",
        transfers=transfers,
        created="2026-01-02T03:04:05Z",
    )
