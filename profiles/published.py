"""Figures that were published become records: profiles/records/frontier/figures.yaml.

python profiles/published.py
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcgeo.machines import device_of
from hpcgeo.measured import Memory
from hpcgeo.records import Record
from hpcgeo.tables import parse
from hpcgeo.zoo import architecture

FOLDER = Path(__file__).parent / "records" / "frontier"
DEVICE, GCDS, GIB = "AMD Instinct MI250X", 8, 2**30
MICRO_BATCH, CHIP, CLASSES = 32, (224, 224), 1000
LIMIT_GIB = 63.98

Figures = Mapping[str, Any]


def main() -> None:
    """Write the records anew."""
    for name, lines in made().items():
        (FOLDER / name).write_text("".join(f"{line}\n" for line in lines))


def made() -> dict[str, list[str]]:
    """Return the lines of every file of records by its name."""
    figures = parse((FOLDER / "figures.yaml").read_text("utf-8"), "figures.yaml")
    files = {"published": _rates, "memory": _memory_alone, "prefetch": _prefetch}
    return {
        f"records-{name}.jsonl": [record.model_dump_json() for record in records(figures)]
        for name, records in files.items()
    }


def _rates(figures: Figures) -> Iterator[Record]:
    """Every rate, with what was published of its memory."""
    for model, lines in figures["images_per_s"].items():
        for layout, rates in lines.items():
            for place, (nodes, rate) in enumerate(zip(figures["nodes"], rates, strict=True)):
                ranks = GCDS * nodes
                memory = None
                if active := figures["active_gib"].get(model, {}).get(layout):
                    memory = active[place] and _held(peak_active_bytes=active[place])
                if ranks == _group(layout) and layout in figures["peak_gib"].get(model, {}):
                    memory = _peaks(figures["peak_gib"][model][layout])
                if rate is not None:
                    yield record_of(figures, model, layout, ranks, rate, memory)


def _memory_alone(figures: Figures) -> Iterator[Record]:
    """The peaks of runs without a published rate, on the ranks that hold one copy of the model."""
    for model, lines in figures["peak_gib"].items():
        for layout, peaks in lines.items():
            if (ranks := _group(layout) or 1) < GCDS:
                note = "memory alone, of the smallest run that holds the model: one group of ranks"
                yield record_of(figures, model, layout, ranks, None, _peaks(peaks), note=note)


def _prefetch(figures: Figures) -> Iterator[Record]:
    """The study of prefetching; its options are those of FSDP1."""
    study = figures["prefetch"]
    for row in study["images_per_s"]:
        options = {name: row[name] for name in ("backward_prefetch", "limit_all_gathers")}
        for layout, rate in row.items():
            if layout not in options:
                ranks = GCDS * study["nodes"]
                yield record_of(
                    figures, study["model"], layout, ranks, rate, None, config={"fsdp1": options}
                )


def record_of(
    figures: Figures,
    model: str,
    layout: str,
    ranks: int,
    rate: float | None,
    memory: Memory | None,
    note: str | None = None,
    **more: Any,
) -> Record:
    """Return a record of the study.

    Args:
        figures: of figures.yaml.
        model, layout, ranks: what ran.
        rate: images/s, of all ranks.
        memory: what was published of it.
        note: for whoever reads it.
        more: further fields.
    """
    dtype = "float32" if layout == "DDP" else "bfloat16"
    silent = figures["without_exchange"]
    notes = [silent["note"]] if layout in silent["layouts"] else []
    notes += filter(None, [note or figures["notes"].get(model)])
    batch = MICRO_BATCH * ranks
    flops = 3 * architecture(model).forward_flops(3, CHIP, classes=CLASSES)
    peak = device_of(DEVICE).peak(dtype)
    reserved = memory and memory.peak_reserved_bytes
    return Record(
        kind="published",
        machine="frontier",
        device=DEVICE,
        nodes=-(-ranks // GCDS),
        world_size=ranks,
        model=model,
        parameters=figures["parameters"][model],
        objective="classification",
        bands=3,
        chip=CHIP,
        strategy=layout.partition("(")[0],
        group_size=_group(layout),
        dtype=dtype,
        micro_batch=MICRO_BATCH,
        accumulate=1,
        global_batch=batch,
        data="synthetic",
        recompute="full",
        communication="off" if layout in silent["layouts"] else "on",
        warmup_steps=0,
        images_per_s=rate,
        peak_memory_bytes=reserved,
        memory_source="reserved" if reserved else None,
        memory=memory,
        model_flops=flops * batch,
        peak_flops_per_s=peak,
        peak_source="tabled",
        mfu=flops * rate / (peak * ranks) if rate and peak else None,
        created=figures["read"],
        source=figures["source"],
        notes=notes,
        **more,
    )


def _peaks(gib: tuple[float, float, float]) -> Memory:
    active, allocated, reserved = gib
    return _held(
        peak_active_bytes=active, peak_allocated_bytes=allocated, peak_reserved_bytes=reserved
    )


def _held(**gib: float) -> Memory:
    sizes = {name: round(value * GIB) for name, value in (gib | {"limit_bytes": LIMIT_GIB}).items()}
    return Memory(**sizes)


def _group(layout: str) -> int | None:
    found = re.search(r"\((\d+)\)", layout)
    return int(found[1]) if found else None


if __name__ == "__main__":
    main()
