"""How long `hpcgeo report` takes and how much memory, for many records with every field filled.

    python benchmarks/report.py --records 10000

The records are invented, and look like a long study: models, strategies, numbers of nodes, repeats.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path

import numpy as np

from hpcgeo.config import load
from hpcgeo.measured import Activity, Energy, Memory, Phases, Spread, Traffic, Transfer, Wait
from hpcgeo.records import LinksRecord, Record

MODELS = {"vit_base": 87e6, "vit_huge": 635e6, "vit_1b": 914e6, "vit_3b": 3067e6, "vit_5b": 5349e6}
LAYOUTS = (
    *(("DDP", None), ("NO_SHARD", None), ("SHARD_GRAD_OP", None), ("FULL_SHARD", None)),
    *(("HYBRID_SHARD", 2), ("HYBRID_SHARD", 8)),
)
NODES = (1, 2, 4, 8, 16, 32, 64, 128)
STEPS = 20


def records(count: int) -> list[Record]:
    """Return invented records: a grid of settings, each point three times."""
    random = np.random.default_rng(0)
    config = load("mae_vit_base", []).model_dump(mode="json")
    grid = product(("bfloat16", "float32"), (8, 16, 32, 64), MODELS, NODES, LAYOUTS, range(6))
    return [_record(random, config, *point) for point in islice(grid, count)]


def _record(
    random: np.random.Generator,
    config: dict[str, object],
    dtype: str,
    micro_batch: int,
    model: str,
    nodes: int,
    layout: tuple[str, int | None],
    repeat: int,
) -> Record:
    ranks, (strategy, group) = 8 * nodes, layout
    parameters = int(MODELS[model])
    compute = 6e-12 * micro_batch * parameters**0.9 * (2 if dtype == "float32" else 1)
    exposed = compute * 0.02 * nodes ** (0.9 if strategy == "FULL_SHARD" else 0.2)
    step = compute * 1.08 + exposed
    values = step * random.normal(1, 0.01 if repeat else 0.02, STEPS)
    held = ranks if strategy == "FULL_SHARD" else (group or 1)
    state, image = 16 * parameters // held, 3e6 * micro_batch
    memory = Memory(
        parameters_bytes=state // 4,
        gradients_bytes=state // 4,
        optimizer_bytes=state // 2,
        gathered_bytes=parameters // 16,
        activations_bytes=int(image * 100),
        batch_bytes=int(image),
        other_bytes=2**28,
        phase="backward",
        peak_allocated_bytes=int(state + image * 100 + 2**29),
        peak_active_bytes=int(state + image * 100 + 2**29),
        peak_reserved_bytes=int(1.1 * (state + image * 100) + 2**29),
        limit_bytes=64 * 2**30,
    )
    failed = memory.peak_reserved_bytes is not None and memory.peak_reserved_bytes > 64 * 2**30
    common = {
        "kind": "measured",
        "machine": "frontier",
        "device": "MI250X, 1 GCD",
        "hosts": [f"frontier{place:05d}" for place in range(nodes)],
        "nodes": nodes,
        "world_size": ranks,
        "model": model,
        "parameters": parameters,
        "objective": "mae",
        "bands": 3,
        "chip": (224, 224),
        "strategy": strategy,
        "group_size": group,
        "dtype": dtype,
        "micro_batch": micro_batch,
        "accumulate": 1,
        "global_batch": micro_batch * ranks,
        "data": "synthetic",
        "recompute": "full",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "command": f"hpcgeo-profile run mae_vit model.name={model} parallel.strategy={strategy}",
        "created": f"2026-01-02T03:04:{repeat:02d}Z",
        "versions": {"torch": "2.13.0", "hpcgeo": "0.1.0", "python": "3.11.7"},
        "environment": {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "7"},
        "driver": "6.3.1",
        "config": config,
    }
    if failed:
        return Record.model_validate(common | {"status": "out_of_memory", "error": "out of memory"})
    joules = 300.0 * ranks * step * STEPS
    return Record.model_validate(
        common
        | {
            "warmup_steps": 5,
            "stable": bool(random.random() < 0.99),
            "images_per_s": micro_batch * ranks / float(np.median(values)),
            "step_s": Spread.of([float(value) for value in values]),
            "data_wait_s": step * 0.01,
            "comm_s": exposed * 2,
            "phases": Phases(
                step_s=step,
                data_wait_s=step * 0.01,
                host_to_device_s=step * 0.01,
                forward_s=step * 0.3,
                backward_s=step * 0.6,
                optimizer_s=step * 0.05,
                other_s=step * 0.03,
            ),
            "activity": Activity(
                step_s=step,
                compute_s=compute,
                exposed_comm_s=exposed,
                data_wait_s=compute * 0.02,
                host_to_device_s=compute * 0.02,
                idle_s=compute * 0.04,
                comm_s=exposed * 2,
            ),
            "traffic": [
                Traffic(
                    collective=name,
                    group="dp_shard",
                    ranks=held if held > 1 else ranks,
                    message_bytes=parameters // 16,
                    calls=32,
                    seconds=exposed,
                    transfer_s=exposed / 32,
                    algorithm_bytes_per_s=parameters / 16 / (exposed / 32),
                    bus_bytes_per_s=parameters / 16 / (exposed / 32),
                )
                for name in ("all_gather", "reduce_scatter", "all_reduce")
            ],
            "wait": Wait(
                seconds=[float(s) for s in exposed * random.random(min(ranks, 16))],
                straggler=int(random.integers(ranks)) if repeat == 1 else None,
                host="frontier00000",
                late_s=exposed * 0.3 if repeat == 1 else None,
            ),
            "memory": memory,
            "predicted_memory": memory.model_copy(update={"other_bytes": None}),
            "peak_memory_bytes": memory.peak_reserved_bytes,
            "memory_source": "reserved",
            "model_flops": 6.0 * parameters * 257 * micro_batch * ranks,
            "counted_flops": 8.0 * parameters * 257 * micro_batch * ranks,
            "peak_flops_per_s": 191.5e12,
            "peak_source": "tabled",
            "mfu": 0.3 * compute / step,
            "hfu": 0.4 * compute / step,
            "product_flops_per_s": 150e12,
            "energy": Energy(
                source="rocm-smi",
                covers=f"4 MI250X of each of {nodes} nodes",
                joules=joules,
                images=micro_batch * ranks * STEPS,
                grid_g_per_kwh=400.0,
                grid_source="example",
            ),
        }
    )


def links() -> LinksRecord:
    """Return invented curves of collectives."""
    transfers = [
        Transfer(
            collective=name,
            group="all",
            ranks=16,
            nodes=2,
            message_bytes=2**size,
            seconds=Spread.of([1e-5 + 2**size / 1e10]),
            algorithm_bytes_per_s=2**size / (1e-5 + 2**size / 1e10),
            bus_bytes_per_s=2**size / (1e-5 + 2**size / 1e10),
        )
        for name in ("all_reduce", "all_gather", "reduce_scatter")
        for size in range(10, 30)
    ]
    return LinksRecord(
        kind="measured",
        machine="frontier",
        device="MI250X, 1 GCD",
        nodes=2,
        world_size=16,
        backend="nccl",
        transfers=transfers,
        created="2026-01-02T03:04:05Z",
    )


def main() -> None:
    """Write the records, run the command, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="folder for the records and the report")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        (folder / "records").mkdir(parents=True, exist_ok=True)
        made = records(chosen.records)
        text = "".join(record.model_dump_json() + "\n" for record in made)
        (folder / "records" / "records.jsonl").write_text(text)
        (folder / "records" / "links.jsonl").write_text(links().model_dump_json() + "\n")
        words = [sys.executable, "-m", "hpcgeo", "report", str(folder / "records")]
        start = time.monotonic()
        subprocess.run([*words, "--out", str(folder / "report")], check=True)
        took = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        core, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**10
        size = (folder / "report" / "report.html").stat().st_size / 2**20
        print(
            f"{len(made):,} records: {took:.1f} s, {core:.1f} s of a core, peak {peak:,.0f} MiB, "
            f"page {size:.1f} MiB"
        )


if __name__ == "__main__":
    main()
