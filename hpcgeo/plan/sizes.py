"""The best way of every size of model on every number of nodes: what a map of a machine shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcgeo.errors import InputError
from hpcgeo.machines import Machine
from hpcgeo.objectives.mae.objective import forms
from hpcgeo.plan.calibration import calibration_of
from hpcgeo.plan.candidates import Candidate, PlanRequest, candidates
from hpcgeo.plan.pretraining import Cost, cost
from hpcgeo.stacks import Recompute, Stack
from hpcgeo.zoo import Architecture

#: Width and depth of ViTs from 0.09 to 100 billion parameters: our choice, heads of 128, near those
#: of facts/models.yaml where there are some.
LADDER = (
    *((768, 12), (1024, 24), (1280, 32), (1792, 40), (2560, 48), (3584, 56), (5120, 64)),
    *((7168, 72), (10240, 80)),
)
NODES = tuple(2**power for power in range(14))
#: What is tried in a cell: few of each, so that a map takes seconds.
MICRO_BATCHES = (8, 32, 128)
RECOMPUTES: tuple[Recompute, ...] = ("none", "full")
#: Images whose cost is told, and their chips.
IMAGES, BANDS, CHIP = 1e8, 3, (224, 224)
#: What the choice is held against.
ALWAYS = "FULL_SHARD"


@dataclass(frozen=True)
class PlanCell:
    """One size on so many nodes.

    Attributes:
        parameters: of the encoder.
        best: the way to take; None: nothing fits.
        lost: of its images/s, what FULL_SHARD at its best would lose; None: it does not fit.
        cost: of `IMAGES`.
    """

    parameters: int
    nodes: int
    best: Candidate | None
    lost: float | None
    cost: Cost | None


def cells(
    where: Machine,
    ladder: Sequence[tuple[int, int]] = LADDER,
    counts: Sequence[int] = NODES,
) -> Iterator[PlanCell]:
    """Yield the cells of a machine, MAE of 75 % in bfloat16, by size, then nodes.

    Args:
        where: the machine; no cell has more nodes than it.
        ladder: width and depth of each size.
        counts: of nodes.

    Raises:
        InputError: no peak of its device is known.
    """
    figures, most = calibration_of(where), where.nodes.value if where.nodes else max(counts)
    per_node = int(where.devices_per_node.value)
    for width, depth in ladder:
        stack = Stack(width=width, depth=depth, heads=width // 128, hidden=4 * width)
        row = Architecture(name=f"ViT {width} x {depth}", encoder=stack, patch=14, source="ours")
        for nodes in (count for count in counts if count <= most):
            asked = PlanRequest(
                forms(row, BANDS, CHIP, 0.75),
                where,
                nodes,
                figures=figures,
                micro_batches=MICRO_BATCHES,
                recomputes=RECOMPUTES,
                tensors=(1, per_node),
            )
            yield _cell(asked, row.parameters(BANDS))


def _cell(asked: PlanRequest, parameters: int) -> PlanCell:
    try:
        found = candidates(asked)
    except InputError:
        device = asked.where.model
        if device is None or device.peak(asked.dtype) is None:
            raise
        return PlanCell(parameters, asked.nodes, None, None, None)
    best = found[0]
    always = next((one for one in found if one.parallel.strategy == ALWAYS), None)
    return PlanCell(
        parameters,
        asked.nodes,
        best,
        1 - always.images_per_s / best.images_per_s if always else None,
        cost(IMAGES, best.images_per_s, asked.where, asked.nodes),
    )
