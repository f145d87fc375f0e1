"""The profile record of a run, from its meter."""

import statistics
from datetime import datetime, timezone
from typing import Any

from hpcgeo.config import RunConfig
from hpcgeo.machines import machine
from hpcgeo.measured import Spread
from hpcgeo.records import Record
from hpcgeo.strategies import strategy
from hpcgeo.train.job import Parts
from hpcgeo.train.meter import Meter
from hpcgeo.train.provenance import command, commit, device_name, driver, environment, versions
from hpcgeo.zoo import architecture


def describe(run: RunConfig, parts: Parts, meter: Meter) -> Record:
    """Return the record of the steps a meter has seen; every rank calls it."""
    topology = parts.topology
    hosts = [place.host for place in topology.places]
    device = device_name(topology.device, hosts.count(hosts[topology.rank]))
    fields = {
        "device": device,
        "hosts": sorted(set(hosts)),
        "nodes": len(set(hosts)),
        "data": parts.workload.dataset.kind,
        **parts.workload.facts(),
        "driver": driver(topology.device),
        "environment": environment(),
        "command": command(),
    }
    measured = _measured(run, parts, meter)
    return Record(**fields | stated(run, topology.world_size) | measured)


def stated(run: RunConfig, world_size: int) -> dict[str, Any]:
    """Return the fields of a record that are known before anything runs."""
    head, dirty = commit()
    layout = strategy(run.parallel.strategy).layout(world_size, dict(run.parallel))
    return {
        "kind": "measured",
        "machine": machine(run.launch.machine).name,
        "world_size": world_size,
        "model": architecture(run.model.name).name,
        "objective": run.objective.name,
        "chip": getattr(run.data, "chip", None),
        "strategy": run.parallel.strategy,
        "group_size": run.parallel.group_size,
        "dtype": run.train.dtype,
        "recompute": str(run.parallel.recompute),
        "micro_batch": run.train.micro_batch,
        "accumulate": run.train.accumulate,
        "global_batch": run.train.micro_batch * run.train.accumulate * layout.data_parallel,
        "versions": versions(),
        "commit": head,
        "dirty": dirty,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "config": run.model_dump(mode="json"),
    }


def _measured(run: RunConfig, parts: Parts, meter: Meter) -> dict[str, Any]:
    extras = meter.extras()
    rows = meter.measured()
    if not rows:
        return {}
    step_s = Spread.of([row["step_s"] for row in rows])
    topology, model_flops = parts.topology, parts.workload.model_flops(meter.global_batch)
    fields = {
        "warmup_steps": meter.warmup_steps,
        "step_s": step_s,
        "images_per_s": meter.global_batch / step_s.median,
        "data_wait_s": statistics.median(row["data_wait_s"] for row in rows),
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in rows),
        "memory_source": "reserved" if topology.device.type == "cuda" else "resident",
        "model_flops": model_flops,
        **extras,
    }
    if topology.model and (tabled := topology.model.peak(run.train.dtype)):
        fields |= {"peak_flops_per_s": tabled, "peak_source": "tabled"}
    if "tokens" in rows[0]:
        fields["tokens_per_s"] = Spread.of([row["tokens_per_s"] for row in rows])
        fields["padding"] = statistics.median(row["padding"] for row in rows)
    if peak := fields.get("peak_flops_per_s"):
        available = peak * topology.world_size * step_s.median
        # Where steps differ in work, as those of a mixture do, one does not say it for the median.
        if model_flops:
            fields["mfu"] = model_flops / available
            counted = fields.get("counted_flops")
            fields["hfu"] = counted / available if counted else None
    return fields
