"""What a run would do, said before it does: sizes, arithmetic of the global batch, memory."""

import math

import torch

from hpcgeo.config import RunConfig
from hpcgeo.data.loader import open_dataset
from hpcgeo.machines import machine
from hpcgeo.objectives.mae import MAE
from hpcgeo.plan.memory import predict
from hpcgeo.strategies import strategy
from hpcgeo.zoo import architecture

GIB = 2**30


def outlook(run: RunConfig, world_size: int) -> str:
    """Open the data, build the model without weights, and say what would happen.

    Raises:
        InputError: anything that would stop the run before its first step.
    """
    dataset = open_dataset(run.data)
    model = architecture(run.model.name)
    patches = model.num_patches(run.data.chip)
    visible = model.num_visible(run.data.chip, run.objective.mask_ratio)
    layout = strategy(run.parallel.strategy).layout(world_size, dict(run.parallel))
    model.refuse_cut(layout.tp)
    bands = len(dataset.bands)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in MAE(model, bands, run.objective).parameters())
    micro, accumulate = run.train.micro_batch, run.train.accumulate
    global_batch = micro * accumulate * layout.data_parallel
    samples = global_batch * run.train.steps
    flops = 3 * model.mae_forward_flops(bands, run.data.chip, run.objective.mask_ratio)
    memory = predict(run, bands, world_size)
    causes = ", ".join(f"{name} {value / GIB:.3g}" for name, value in vars(memory).items())
    height, width = run.data.chip
    return "\n".join(
        [
            f"run           {run.run.dir}",
            f"model         {model.name}, {parameters:,} parameters with the decoder",
            f"data          {run.data.path}: {len(dataset):,} samples, {bands} bands",
            f"chip          {height} x {width} pixels = {patches} patches of {model.patch} x "
            f"{model.patch}, {visible} visible",
            f"strategy      {run.parallel.strategy}: {world_size} ranks = "
            + " x ".join(f"{size} {axis}" for axis, size in layout._asdict().items()),
            f"global batch  {global_batch} = micro-batch {micro} x accumulate {accumulate} x "
            f"{layout.data_parallel} data-parallel ranks",
            f"steps         {run.train.steps:,} = {samples:,} samples = "
            f"{samples / len(dataset):.2f} epochs",
            f"FLOPs         {flops * global_batch:.3g} a step, forward and backward",
            f"memory        {memory.total / GIB:.3g} GiB a rank predicted ({causes})",
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
        f"queue         {name}: a job of {nodes} nodes may last {hours:g} h; start-up and a save "
        f"should stay below {6 * hours:g} minutes"
    ]
