"""The answer of a plan in words and as values: what to run, how sure that is, and why."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hpcgeo.plan.calibration import FITTED, STREAMED, Calibration
from hpcgeo.plan.candidates import Candidate, PlanRequest
from hpcgeo.plan.costs import ALIGNED, STATE_TRAFFIC, TILE, UNALIGNED
from hpcgeo.plan.fit import GIB, RESERVED
from hpcgeo.plan.pretraining import Cost
from hpcgeo.strategies import strategy

#: Nodes of the largest measured step.
MEASURED_NODES = 128


def doubtful(found: Sequence[Candidate]) -> list[Candidate]:
    """Return those that cannot be told apart from the first: their intervals overlap."""
    best, *others = found
    return [one for one in others if one.word == best.word and one.interval[1] > best.interval[0]]


def named(one: Candidate) -> str:
    """Return a way in few words."""
    tensor = f" tensor {one.parallel.tensor}" if one.parallel.tensor > 1 else ""
    return f"{one.layout}{tensor}"


def headline(asked: PlanRequest, found: Sequence[Candidate]) -> list[str]:
    """Return what to run, in a line, what it takes, and how sure that is."""
    best, device = found[0], asked.where.model
    assert device is not None
    low, high = best.interval
    rest = list(dict.fromkeys(named(one) for one in doubtful(found)))
    more = f" and {len(rest) - 3} more" if len(rest) > 3 else ""
    sure = (
        f"not told apart from {', '.join(rest[:3])}{more}"
        if rest
        else "ahead of all others that fit by more than the interval"
    )
    lines = [
        f"take {' '.join(best.options)}: {best.images_per_s:,.0f} images/s ({low:,.0f} to "
        f"{high:,.0f}), MFU {best.mfu:.0%}",
        f"{best.memory.total / GIB:.3g} of {device.memory:g} GiB: {best.word}; a step is "
        f"{global_batch(best):,} images; {sure}",
    ]
    tight = max(
        (one for one in found if one.word == "tight"), key=lambda one: one.interval[0], default=best
    )
    if best.word == "fits" and tight.interval[0] > best.interval[0]:
        lines.append(
            f"tight: {named(tight)}, recompute {tight.parallel.recompute}, micro-batch "
            f"{_batch(tight)} may reach {tight.images_per_s:,.0f} images/s, if the allocator does "
            f"not take {RESERVED} x what tensors do: try it"
        )
    return lines


def global_batch(one: Candidate) -> int:
    """Return the images of a step, all ranks."""
    return round(one.images_per_s * one.step.seconds)


def row(one: Candidate) -> dict[str, str]:
    """Return a way as a line of the table."""
    low, high = one.interval
    return {
        "strategy": named(one),
        "recompute": str(one.parallel.recompute),
        "micro-batch": _batch(one),
        "images/s": f"{one.images_per_s:,.0f}",
        "8 of 10 in": f"{low:,.0f} to {high:,.0f}",
        "step s": f"{one.step.seconds:.3g}",
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
        "global_batch": global_batch(one),
        "pattern": one.step.pattern,
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
    said = f"{cost.images:,.0f} images: {_count(cost.hours)} h, "
    said += f"{_count(cost.node_hours)} node-hours"
    if cost.jobs is not None:
        said += f", {cost.jobs:,} jobs of {cost.job_hours:g} h"
    if cost.kwh is not None:
        said += f", about {_count(cost.kwh)} kWh of devices, by board power"
    if cost.kg_co2 is not None:
        said += f", {_count(cost.kg_co2)} kg CO2"
    return said


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def warnings(asked: PlanRequest, one: Candidate) -> Iterator[str]:
    """Yield what slows a way down for no good, and what its figures do not rest on."""
    figures = asked.figures
    if figures is not None and figures.probed and not figures.calibrated:
        yield (
            f"arithmetic of one measured step ({figures.probed}); the network of "
            f"{asked.where.name} was not measured"
        )
    elif figures is not None and not figures.calibrated:
        yield (
            f"{asked.where.name} was not measured: shares of data sheets, so the interval is wide; "
            f"--probe RECORD with one measured run of one node narrows it"
        )
    elif asked.nodes > MEASURED_NODES:
        yield f"beyond {MEASURED_NODES} nodes nothing was measured: the interval may be too narrow"
    if asked.dtype != "bfloat16":
        yield f"figures are fitted to bfloat16: in {asked.dtype} the interval is a guess"
    if one.parallel.tensor > 1:
        yield "no step with tensor parallelism was measured: its interval is a guess"
    if one.step.unaligned_s:
        sizes = sorted(
            {
                f"{name} {size}"
                for stack, _ in asked.forms.stacks
                for name, size in (("width", stack.width), ("hidden", stack.hidden))
                if size % ALIGNED
            }
        )
        cut = [f"what tensor {one.parallel.tensor} leaves of a product"]
        yield (
            f"{', '.join(sizes or cut)}: no multiple of {ALIGNED}: such products are taken to be "
            f"{UNALIGNED} x slower"
        )
    row_of = strategy(one.parallel.strategy)
    if one.parallel.recompute != "none" and "forward_prefetch" in row_of.takes:
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
