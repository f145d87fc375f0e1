"""What a run will take, in lines of its dry-run summary: step time, micro-batches, checkpoints."""

from collections.abc import Iterator

from hpcgeo.config import RunConfig
from hpcgeo.machines import machine
from hpcgeo.plan.memory import checkpoint_bytes, predict
from hpcgeo.plan.steps import PredictedStep, predict_step
from hpcgeo.workloads.workload import GIB, Workload
from hpcgeo.zoo import Forms

#: The allocator reserved up to so many times what was allocated (arXiv 2404.11706, memory figures).
RESERVED = 1.57

#: Matrix units take so many numbers of two bytes at a time, and 64 is best (NVIDIA, Matrix
#: Multiplication Background User's Guide).
ALIGNED = 8


def estimates(run: RunConfig, workload: Workload, world_size: int) -> Iterator[str]:
    """Yield the lines; those of a device only where the machine has one."""
    forms = workload.forms
    if forms and machine(run.launch.machine).model:
        yield from _memory(forms, run, world_size)
        yield from _step(forms, run, world_size)
        yield from _unaligned(forms)
    if run.checkpoint.every:
        root, kept = forms.root_parameters if forms else 0, run.checkpoint.keep
        size = checkpoint_bytes(workload.facts()["parameters"], root, run.optim) / 1e9
        yield (
            f"checkpoint    {size:.3g} GB; {kept} are kept and one is written beside them: "
            f"{(kept + 1) * size:.3g} GB"
        )


def _memory(forms: Forms, run: RunConfig, world_size: int) -> Iterator[str]:
    """Warn where a rank may hold more than its device has."""
    device = machine(run.launch.machine).model
    assert device is not None
    memory = device.memory
    held = predict(forms, run.parallel, run.train, world_size, run.optim).total / GIB
    if held * RESERVED > memory:
        fits = "does not fit" if held > memory else "may not fit"
        yield (
            f"warning       {held:.3g} GiB allocated, up to {held * RESERVED:.3g} reserved, {fits} "
            f"in {memory:g} GiB: take a smaller train.micro_batch, or a strategy that shards more"
        )


def _step(forms: Forms, run: RunConfig, world_size: int) -> Iterator[str]:
    """Say how long a step takes, and what others of the same global batch would take and hold."""
    where = machine(run.launch.machine)
    device = where.model
    assert device is not None
    train, product = run.train, run.train.micro_batch * run.train.accumulate
    step = predict_step(forms, run.parallel, train, world_size, where)
    if step is None or device.reached is None:
        yield f"step time     not estimated: nothing is tabled for {device.name} or this layout"
        return
    hours = [train.steps * seconds / 3600 for seconds in (step.hidden_s, step.exposed_s)]
    yield (
        f"step time     {_range(step)} estimated, all steps {hours[0]:.3g} to {hours[1]:.3g} h: "
        f"arithmetic {step.compute_s:.3g} s at {device.reached.at(forms.parameters):.0%} of peak "
        f"({device.reached.source.partition(',')[0]}), collectives {step.wire_s:.3g} s at the "
        f"links' peak, all hidden or none, latency left out"
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
    if step.wire_s > step.compute_s and max(others, default=0) > train.micro_batch:
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
    return f"{step.hidden_s:.3g} to {step.exposed_s:.3g} s"
