"""The answer of a plan in words and as values: what to run, how sure that is, and why."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hpcgeo.plan.calibration import FITTED, STREAMED, Calibration
from hpcgeo.plan.candidates import Candidate, PlanRequest
from hpcgeo.plan.costs import ALIGNED, STATE_TRAFFIC, TILE, UNALIGNED
from hpcgeo.plan.fit import GIB, RESERVED
from hpcgeo.plan.pretraining import Cost


def doubtful(found: Sequence[Candidate]) -> list[Candidate]:
    """Return those that cannot be told apart from the first: their intervals overlap."""
    best, *others = found
    return [one for one in others if one.word == best.word and one.interval[1] > best.interval[0]]


def headline(asked: PlanRequest, found: Sequence[Candidate]) -> str:
    """Return what to run, in a line, and what it takes."""
    best, device = found[0], asked.where.model
    assert device is not None
    low, high = best.interval
    rest = doubtful(found)
    sure = (
        f"not told apart from {', '.join(one.layout for one in rest[:3])}"
        if rest
        else "ahead of all others by more than the interval"
    )
    return (
        f"take {' '.join(best.options)}: {best.images_per_s:,.0f} images/s "
        f"({low:,.0f} to {high:,.0f}), MFU {best.mfu:.0%}, {best.memory.total / GIB:.3g} of "
        f"{device.memory:g} GiB: {best.word}; {sure}"
    )


def row(one: Candidate) -> dict[str, str]:
    """Return a way as a line of the table."""
    step = one.step
    low, high = one.interval
    return {
        "strategy": one.layout,
        "tensor": str(one.parallel.tensor),
        "recompute": str(one.parallel.recompute),
        "micro-batch": _batch(one),
        "images/s": f"{one.images_per_s:,.0f}",
        "8 of 10 in": f"{low:,.0f} to {high:,.0f}",
        "step s": f"{step.seconds:.3g}",
        "compute": f"{step.compute_s:.3g}",
        "exposed": f"{step.exposed_s:.2g}",
        "optimizer": f"{step.optimizer_s:.2g}",
        "MFU": f"{one.mfu:.0%}",
        "GiB": f"{one.memory.total / GIB:.3g}",
        "memory": one.word,
    }


def values(asked: PlanRequest, one: Candidate, cost: Cost | None) -> dict[str, Any]:
    """Return a way as values, for programs."""
    low, high = one.interval
    return {
        "options": one.options,
        "strategy": one.layout,
        "tensor": one.parallel.tensor,
        "recompute": one.parallel.recompute,
        "micro_batch": one.train.micro_batch,
        "accumulate": one.train.accumulate,
        "images_per_s": one.images_per_s,
        "images_per_s_80": [low, high],
        "step_s": one.step.seconds,
        "compute_s": one.step.compute_s,
        "exposed_s": one.step.exposed_s,
        "hidden_s": one.step.hidden_s,
        "optimizer_s": one.step.optimizer_s,
        "mfu": one.mfu,
        "memory_bytes": {k: round(v) for k, v in vars(one.memory).items()}
        | {"total": round(one.memory.total)},
        "memory": one.word,
        "read_bytes_per_s_node": one.images_per_s * asked.forms.view_bytes / asked.nodes,
        **({"cost": asdict(cost)} if cost else {}),
    }


def cost_line(cost: Cost) -> str:
    """Return what a whole pretraining costs, in a line."""
    said = f"{cost.images:,.0f} images: {cost.hours:.3g} h, {cost.node_hours:,.3g} node-hours"
    if cost.jobs is not None:
        said += f", {cost.jobs:,} jobs of {cost.job_hours:g} h"
    if cost.kwh is not None:
        said += f", at most {cost.kwh:,.3g} kWh by board power"
    if cost.kg_co2 is not None:
        said += f", {cost.kg_co2:,.3g} kg CO2"
    return said


def warnings(asked: PlanRequest, one: Candidate) -> Iterator[str]:
    """Yield what slows a way down for no good, and what its figures do not rest on."""
    figures = asked.figures
    if figures is not None and not figures.calibrated:
        yield (
            f"{asked.where.name} was not measured: shares of data sheets, so the interval is wide; "
            f"--probe RECORD with one measured run of one node narrows it"
        )
    odd = sorted(
        {
            f"{name} {size}"
            for stack, _ in asked.forms.stacks
            for name, size in (
                ("width", stack.width),
                ("hidden", stack.hidden),
                ("head", stack.width // stack.heads),
            )
            if size % ALIGNED
        }
    )
    if odd:
        yield (
            f"{', '.join(odd)}: no multiple of {ALIGNED}: products with it are taken to be "
            f"{UNALIGNED} x slower"
        )
    if one.parallel.recompute != "none" and one.parallel.strategy in ("FULL_SHARD", "HYBRID_SHARD"):
        yield (
            "leave parallel.forward_prefetch alone: with recompute it halved a throughput under "
            "FSDP2 on MI355X (AMD-AGI/Primus, issue 884)"
        )


def explained(asked: PlanRequest, one: Candidate, figures: Calibration) -> Iterator[str]:
    """Yield every term of a way: its value, its formula, its source."""
    device, step = asked.where.model, one.step
    assert device is not None
    low, high = step.factors
    yield (
        f"compute {step.compute_s:.4g} s: FLOPs of all products in tiles of {TILE[0]} x {TILE[1]} "
        f"over {device.compute_units or 'all'} compute units, at {figures.matmul:.3g} of "
        f"{device.peak(one.train.dtype) or 0:.4g} FLOP/s; and what a block writes and reads, "
        f"{figures.width_passes:.3g} widths of a token and its MLP, at {STREAMED:g} of "
        f"{device.bandwidth:g} TB/s"
    )
    yield (
        f"exposed {step.exposed_s:.4g} s: collectives that the timeline finds nothing to hide "
        f"behind, and {figures.hidden_alone:.2g} (with exchange of replicas "
        f"{figures.hidden_beside:.2g}) of {step.hidden_s:.4g} s that it hides"
    )
    yield (
        f"collectives: a ring of n ranks takes (n - 1) x {figures.hop_us:.3g} us beyond a node and "
        f"its bytes at {figures.out_gbs:.3g} GB/s of a node, shared by the rings that leave it; "
        f"inside {figures.node_gbs:.3g} GB/s; an all-reduce {2 * figures.tree_us:.3g} us for each "
        f"doubling of nodes (Thakur et al. 2005, IJHPCA 19, 49)"
    )
    yield (
        f"optimizer {step.optimizer_s:.4g} s: {STATE_TRAFFIC} bytes of every parameter held, at "
        f"the same rate"
    )
    yield (
        f"interval: eight of ten steps took {low:.3g} to {high:.3g} x as long as predicted; "
        f"{figures.source}"
    )
    causes = ", ".join(
        f"{name} {value / GIB:.3g}" for name, value in vars(one.memory).items() if value
    )
    yield (
        f"memory {one.memory.total / GIB:.4g} GiB: {causes}; the allocator may reserve {RESERVED} "
        f"x as much (hpcgeo.plan.memory)"
    )
    known = [
        f"{name} {getattr(figures, name):.3g} +- {figures.deviations[name]:.2g}"
        for name in FITTED
        if name in figures.deviations
    ]
    if known:
        yield f"fitted: {', '.join(known)}"


def _batch(one: Candidate) -> str:
    train = one.train
    return f"{train.micro_batch}" + (f" x {train.accumulate}" if train.accumulate > 1 else "")
