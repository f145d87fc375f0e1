"""What a whole pretraining costs at a rate: node-hours, jobs, energy and carbon."""

import math
from dataclasses import dataclass

from hpcgeo.machines import Machine, grid


@dataclass(frozen=True)
class Cost:
    """Of all samples and epochs.

    Attributes:
        hours: of steps alone.
        jobs, job_hours: how many of the longest that so many nodes may have; None: not known.
        kwh: of the devices alone, by the power of their boards; None: not known.
        kg_co2: of that energy from the machine's grid; None: not known.
    """

    images: float
    hours: float
    node_hours: float
    jobs: int | None
    job_hours: float | None
    kwh: float | None
    kg_co2: float | None


def cost(images: float, images_per_s: float, where: Machine, nodes: int) -> Cost:
    """Return what so many images cost.

    Args:
        images: samples x epochs.
        images_per_s: of the whole job.
        where: the machine.
        nodes: of the job.
    """
    hours = images / images_per_s / 3600
    limit = where.hours(nodes)
    watts = where.model.watts if where.model else None
    kwh = None
    if watts is not None:
        kwh = hours * watts * nodes * where.devices_per_node.value / 1000
    carbon = None
    if kwh is not None and where.grid:
        carbon = kwh * grid(where.grid).g_per_kwh.value / 1000
    return Cost(
        images=images,
        hours=hours,
        node_hours=hours * nodes,
        jobs=None if limit is None else math.ceil(hours / limit),
        job_hours=limit,
        kwh=kwh,
        kg_co2=carbon,
    )
