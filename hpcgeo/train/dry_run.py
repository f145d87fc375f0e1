"""The dry-run summary of a run: sizes, arithmetic of the global batch, memory."""

import math

import torch

from hpcgeo.config import RunConfig
from hpcgeo.machines import machine
from hpcgeo.optimizers.table import optimizer
from hpcgeo.strategies import strategy
from hpcgeo.train.estimates import estimates
from hpcgeo.workloads.choice import workload_of


def dry_run_summary(run: RunConfig, world_size: int) -> str:
    """Open the data, build the model without weights, and return the summary.

    Raises:
        InputError: anything that would stop the run before its first step.
    """
    workload = workload_of(run)
    layout = strategy(run.parallel.strategy).layout(world_size, dict(run.parallel))
    backend = strategy(run.parallel.strategy).backend
    optimizer(run.optim.name).refuse(run.optim, backend, run.parallel.offload)
    workload.refuse_cut(layout.tp)
    with torch.device("meta"):
        objective = workload.objective()
    workload.initial(objective)  # weights that do not fit are said now
    micro, accumulate = run.train.micro_batch, run.train.accumulate
    global_batch = micro * accumulate * layout.data_parallel
    samples = global_batch * run.train.steps
    flops = workload.model_flops(global_batch)
    rows = [
        f"strategy      {run.parallel.strategy}: {world_size} ranks = "
        + " x ".join(f"{size} {axis}" for axis, size in layout._asdict().items()),
        f"global batch  {global_batch} = micro-batch {micro} x accumulate {accumulate} x "
        f"{layout.data_parallel} data-parallel ranks",
        f"steps         {run.train.steps:,} = {samples:,} samples = "
        f"{samples / len(workload.dataset):.2f} epochs",
        f"FLOPs         {flops:.3g} a step, forward and backward"
        if flops
        else "FLOPs         not known in closed form; `hpcgeo-profile run` counts them",
    ]
    return "\n".join(
        [
            f"run           {run.run.dir}",
            workload.summary(rows, world_size),
            *estimates(run, workload, world_size),
            *_queue(run.launch.machine, world_size),
        ]
    )


def _queue(name: str, world_size: int) -> list[str]:
    """Say how long a job of so many ranks may last, where the machine's facts know it."""
    where = machine(name)
    nodes = math.ceil(world_size / where.devices_per_node.value)
    hours = where.hours(nodes)
    if hours is None:
        return []
    return [
        f"queue         {where.name}: a job of {nodes} nodes may last {hours:g} h; start-up and a "
        f"save should stay below {6 * hours:g} minutes"
    ]
