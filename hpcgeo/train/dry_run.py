"""The dry-run summary of a run: first whether it fits and how long it takes, then its terms."""

from dataclasses import dataclass

import torch

from hpcgeo.config import RunConfig
from hpcgeo.machines import machine
from hpcgeo.optimizers.table import optimizer
from hpcgeo.plan.fit import GIB, Fit, fit, fit_of_states
from hpcgeo.strategies import strategy
from hpcgeo.train.estimates import duration, estimates, frozen_parameters
from hpcgeo.train.schedule import extent
from hpcgeo.workloads.choice import workload_of
from hpcgeo.workloads.workload import Workload


@dataclass(frozen=True)
class DryRun:
    """What a run would do; `fits` is the verdict, as a text the answer comes first."""

    fits: Fit
    duration: str
    terms: tuple[str, ...]

    def __str__(self) -> str:
        lines = (f"verdict       {self.fits}", f"time          {self.duration}", *self.terms)
        return "\n".join(lines)


def dry_run(run: RunConfig, world_size: int) -> DryRun:
    """Open the data, build the model without weights, and return what the run would do.

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
    flops = workload.model_flops(global_batch)
    terms = (
        f"run           {run.run.dir}",
        *workload.about(),
        f"strategy      {run.parallel.strategy}: {world_size} ranks = "
        + " x ".join(f"{size} {axis}" for axis, size in layout._asdict().items()),
        f"global batch  {global_batch} = micro-batch {micro} x accumulate {accumulate} x "
        f"{layout.data_parallel} data-parallel ranks",
        f"steps         {extent(run.train.steps, global_batch, len(workload.dataset))}",
        f"FLOPs         {flops:.3g} a step, forward and backward"
        if flops
        else "FLOPs         not known in closed form; `hpcgeo-profile run` counts them",
        *estimates(run, workload, world_size),
    )
    return DryRun(_fit(run, workload, world_size), duration(run, workload, world_size), terms)


def _fit(run: RunConfig, workload: Workload, world_size: int) -> Fit:
    memory = _memory_gib(run)
    if memory is None:
        name = machine(run.launch.machine).name
        return Fit("not known", f"{name} names no device; a machine that does: launch.machine")
    if workload.forms:
        return fit(workload.forms, run.parallel, run.train, world_size, run.optim, memory)
    parameters = workload.facts()["parameters"]
    frozen = frozen_parameters(workload)
    return fit_of_states(parameters, run.parallel, world_size, run.optim, memory, frozen)


def _memory_gib(run: RunConfig) -> float | None:
    """Return the memory of a device: the machine's, else of one that is here; None: neither."""
    if model := machine(run.launch.machine).model:
        return model.memory
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory / GIB)
    return None
