"""What a run will take, in its dry-run summary: time, memory, micro-batches, checkpoints."""

import math
from collections.abc import Iterator

import torch

from hpcgeo.config import RunConfig
from hpcgeo.machines import machine
from hpcgeo.plan.calibration import calibration_of
from hpcgeo.plan.costs import ALIGNED
from hpcgeo.plan.fit import GIB, RESERVED, states_bytes
from hpcgeo.plan.memory import checkpoint_bytes, predict
from hpcgeo.plan.steps import PredictedStep, predict_step
from hpcgeo.workloads.workload import Workload
from hpcgeo.zoo import Forms


def duration(run: RunConfig, workload: Workload, world_size: int) -> str:
    """Return hours and node-hours of all steps, and the jobs they take, as far as known."""
    where, steps = machine(run.launch.machine), run.train.steps
    step = workload.forms and predict_step(
        workload.forms, run.parallel, run.train, world_size, where
    )
    nodes = math.ceil(world_size / where.devices_per_node.value)
    limit = where.hours(nodes)
    if not step:
        # Of CPUs nothing is tabled, nor of most devices.
        said = "not known: `hpcgeo-profile run` measures a step"
        if limit is None:
            return said
        return f"{said}; a job of {nodes} nodes on {where.name} may last {limit:g} h"
    hours = [steps * seconds / 3600 for seconds in step.interval]
    low, high = (f"{value:.3g}" for value in hours)
    said = f"{low} to {high} h in all, {nodes * hours[0]:.3g} to {nodes * hours[1]:.3g} node-hours"
    said += f" on {nodes} nodes, estimated"
    if limit is None:
        return said
    jobs = math.ceil(hours[0] / limit)
    return (
        f"{said}; at least {jobs:,} jobs of {limit:g} h, the longest of {nodes} nodes; start-up "
        f"and a save should stay below {6 * limit:g} minutes"
    )


def estimates(run: RunConfig, workload: Workload, world_size: int) -> Iterator[str]:
    """Yield the lines; those of a device only where the machine has one."""
    forms = workload.forms
    parameters, frozen = workload.facts()["parameters"], frozen_parameters(workload)
    if forms:
        memory = predict(forms, run.parallel, run.train, world_size, run.optim)
        causes = ", ".join(
            f"{name} {value / GIB:.3g}"
            for name, value in vars(memory).items()
            if value or name != "frozen"
        )
        yield f"memory        {memory.total / GIB:.3g} GiB a rank predicted ({causes})"
    else:
        held = states_bytes(parameters, run.parallel, world_size, run.optim, frozen)
        yield (
            f"memory        {held / GIB:.3g} GiB a rank for parameters, gradients and optimizer; "
            f"activations are not predicted (objective {run.objective.name} has no closed form)"
        )
    if forms and machine(run.launch.machine).model:
        yield from _step(forms, run, world_size)
        yield from _unaligned(forms)
    if run.checkpoint.every:
        root, kept = forms.root_parameters if forms else 0, run.checkpoint.keep
        size = (checkpoint_bytes(parameters - frozen, root, run.optim) + 4 * frozen) / 1e9
        yield (
            f"checkpoint    {size:.3g} GB; {kept} are kept and one is written beside them: "
            f"{(kept + 1) * size:.3g} GB"
        )


def frozen_parameters(workload: Workload) -> int:
    """Return how many parameters are not trained."""
    with torch.device("meta"):
        parameters = workload.objective().parameters()
    return sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)


def _step(forms: Forms, run: RunConfig, world_size: int) -> Iterator[str]:
    """Say how long a step takes, and what others of the same global batch would take and hold."""
    where = machine(run.launch.machine)
    device = where.model
    assert device is not None
    train, product = run.train, run.train.micro_batch * run.train.accumulate
    step = predict_step(forms, run.parallel, train, world_size, where)
    if step is None:
        yield f"step time     not estimated: no peak of {device.name} is tabled, or it is offloaded"
        return
    measured = calibration_of(where).calibrated
    yield (
        f"step time     {step.seconds:.3g} s ({_range(step)}) estimated: compute "
        f"{step.compute_s:.3g}, exposed communication {step.exposed_s:.3g}, optimizer "
        f"{step.optimizer_s:.2g}; {'figures fitted to' if measured else 'no measurement of'} "
        f"{where.name} (hpcgeo plan --explain)"
    )
    others: dict[int, str] = {}
    for accumulate in (count for count in (8, 4, 2, 1) if product % count == 0):
        micro = product // accumulate
        changed = train.model_copy(update={"micro_batch": micro, "accumulate": accumulate})
        other = predict_step(forms, run.parallel, changed, world_size, where)
        held = predict(forms, run.parallel, changed, world_size, run.optim).total / GIB
        if other and held < device.memory:
            others[micro] = f"{micro} x {accumulate}: {_range(other)}, {held:.3g} GiB"
    if others:
        yield (
            f"micro-batch   {'; '.join(others.values())}; the allocator may reserve {RESERVED} x "
            f"as much of {device.memory:g} GiB"
        )
    if step.exposed_s > step.compute_s and max(others, default=0) > train.micro_batch:
        yield (
            "warning       bound by communication: take a larger train.micro_batch and a smaller "
            "train.accumulate"
        )


def _unaligned(forms: Forms) -> Iterator[str]:
    sizes = {
        f"{name} {size}": None  # once, in their order
        for stack, _ in forms.stacks
        for name, size in (
            *(("width", stack.width), ("head", stack.width // stack.heads)),
            ("hidden", stack.hidden),
        )
        if size % ALIGNED
    }
    if sizes:
        yield (
            f"warning       {', '.join(sizes)}: no multiple of {ALIGNED}, matrix units run slower; "
            f"multiples of 64 are best"
        )


def _range(step: PredictedStep) -> str:
    low, high = step.interval
    return f"{low:.3g} to {high:.3g} s"
