"""What the planner says of the Frontier study, beside what was measured, and of ViT-15B, which no
figure of it was fitted to: profiles/records/frontier-planned.

python -m profiles.planned
"""

from collections.abc import Iterator

from hpcgeo.measured import Memory
from hpcgeo.plan.cases import MeasuredStep, cases
from hpcgeo.plan.fit import TIGHT, verdict
from hpcgeo.plan.memory import PredictedPeak, peak
from hpcgeo.records import Record, read
from hpcgeo.tables import parse
from profiles.published import FOLDER, GCDS, GIB, LIMIT_GIB, Figures, record_of

PLANNED = FOLDER.with_name("frontier-planned")
UNSEEN, PARAMETERS = "vit_15b_gated", 14_720_400_000
LAYOUTS = ("HYBRID_SHARD(4)", "HYBRID_SHARD(8)", "HYBRID_SHARD(16)", "SHARD_GRAD_OP", "FULL_SHARD")
NODES = (1, 2, 4, 8, 16, 32, 64, 128)


def main() -> None:
    """Write both files anew."""
    for name, text in made().items():
        (PLANNED / name).write_text(text)


def made() -> dict[str, str]:
    """Return the text of each file by its name."""
    figures = parse((FOLDER / "figures.yaml").read_text("utf-8"), "figures.yaml")
    published = read([FOLDER / "records-published.jsonl"])
    unseen = list(_unseen(figures))
    known = [case for case in cases(published) if case.record.communication == "on"]
    records = [_planned(case) for case in [*known, *cases(unseen)]]
    return {
        "records-planned.jsonl": "".join(f"{one.model_dump_json()}\n" for one in records),
        "vit-15b.md": _table(cases(unseen)),
    }


def _unseen(figures: Figures) -> Iterator[Record]:
    """Yield records of the model that is left out, with a rate in them that nothing reads."""
    wider = figures | {"parameters": figures["parameters"] | {UNSEEN: PARAMETERS}}
    for layout in LAYOUTS:
        for nodes in NODES:
            if layout != "HYBRID_SHARD(16)" or nodes > 1:
                yield record_of(wider, UNSEEN, layout, nodes * GCDS, 1.0, None)


def _planned(case: MeasuredStep) -> Record:
    """Return the record that a case is predicted to leave."""
    rate, held = case.record.global_batch / case.predicted().seconds, _peak(case)
    room = TIGHT * LIMIT_GIB * GIB
    memory = Memory(
        peak_allocated_bytes=round(held.allocated),
        peak_active_bytes=round(min(held.active, room)),
        peak_reserved_bytes=round(min(held.reserved, room)),
        limit_bytes=round(LIMIT_GIB * GIB),
    )
    changed = {
        "kind": "predicted",
        "images_per_s": round(rate, 1),
        "memory": memory,
        "peak_memory_bytes": memory.peak_reserved_bytes,
        "memory_source": "reserved",
        "mfu": case.record.model_flops
        * rate
        / case.record.global_batch
        / (case.record.peak_flops_per_s * case.record.world_size)
        if case.record.model_flops and case.record.peak_flops_per_s
        else None,
        "notes": [],
        "source": "hpcgeo.plan, figures of frontier in hpcgeo/facts/calibrations.yaml",
    }
    return case.record.model_copy(update=changed)


def _peak(case: MeasuredStep) -> PredictedPeak:
    return peak(case.forms, case.parallel, case.train, case.record.world_size, case.by)


def _table(found: list[MeasuredStep]) -> str:
    """Return images/s of the model that nothing was fitted to, with its interval, and memory."""
    head = ["layout", *(f"{nodes} nodes" for nodes in NODES)]
    lines = [
        "# ViT-15B on Frontier, predicted",
        "",
        "Images/s of the whole job under FSDP1 as the study ran it, micro-batch 32 a GCD,",
        "everything recomputed; in brackets where eight of ten measurements should lie. Nothing",
        "was fitted to this model. Products with its 13,545 hidden units are taken to run 1.8 x",
        "slower than aligned ones (hpcgeo.plan.costs.UNALIGNED), which no measurement here has",
        "tested: the brackets go from 1 to 2.6 x.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    below = [
        "",
        f"GiB of a GCD ({LIMIT_GIB}): allocated, active, what the allocator would reserve.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for layout in LAYOUTS:
        own = {case.record.nodes: case for case in found if case.record.layout == layout}
        rates, memory = [], []
        for nodes in NODES:
            if nodes not in own:
                rates.append("")
                memory.append("")
                continue
            case, held = own[nodes], _peak(own[nodes])
            low, high = case.predicted().interval
            batch = case.record.global_batch
            rates.append(
                f"{batch / case.predicted().seconds:.4g} ({batch / high:.4g} to {batch / low:.4g})"
            )
            sizes = ", ".join(f"{value / GIB:.1f}" for value in vars(held).values())
            memory.append(f"{sizes}: {verdict(held, LIMIT_GIB)}")
        lines.append(f"| {layout} | {' | '.join(rates)} |")
        below.append(f"| {layout} | {' | '.join(memory)} |")
    return "\n".join([*lines, *below, ""])


if __name__ == "__main__":
    main()
