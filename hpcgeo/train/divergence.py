"""Steps whose loss or gradient is not finite: which samples and ranks, and when to give up."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from hpcgeo.config import RunConfig
from hpcgeo.data.loader import positions
from hpcgeo.errors import FaultError
from hpcgeo.files import write_text
from hpcgeo.log import log
from hpcgeo.parallel.topology import Topology
from hpcgeo.workloads.workload import Workload


def keep(
    row: dict[str, Any],
    loss: torch.Tensor,
    run: RunConfig,
    topology: Topology,
    workload: Workload,
    folder: Path,
) -> None:
    """Leave skipped/step-N.json for a step that was skipped; every rank calls it.

    It names the ranks whose own loss was not finite (all of them where it was the gradient alone)
    with their samples: `position` counts over the run, `index` is the sample in its data set.

    Args:
        row: the metrics of the step.
        loss: mean over the samples of this rank.
    """
    losses = torch.zeros(topology.world_size, dtype=torch.float64, device=loss.device)
    losses[topology.rank] = loss
    dist.all_reduce(losses)
    if topology.rank:
        return
    step, accumulate = row["step"] - 1, run.train.accumulate
    bad = [rank for rank, value in enumerate(losses.tolist()) if not math.isfinite(value)]
    ranks = []
    for one in bad or range(topology.world_size):
        numbers = range(step * accumulate, (step + 1) * accumulate)
        reads = topology.data_rank_of(one), topology.layout.data_parallel
        position = np.concatenate(
            [positions(number, run.train.micro_batch, *reads) for number in numbers]
        )
        ranks.append(
            {
                "rank": one,
                "loss": str(losses[one].item()),
                "position": position.tolist(),
                **workload.samples(position),
            }
        )
    found = {
        "step": row["step"],
        "in_a_row": row["skipped"],
        "loss": str(row["loss"]),
        "grad_norm": str(row["grad_norm"]),
        "seed": run.seed,
        "ranks": ranks,
    }
    path = folder / "skipped" / f"step-{row['step']:08d}.json"
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(found) + "\n")
    names = ", ".join(str(one) for one in bad[:8]) or "none"
    log.warning(
        "step %d skipped: loss %s, gradient norm %s; ranks whose own loss is not finite: %s; "
        "samples in %s",
        *(row["step"], row["loss"], row["grad_norm"], names, path),
    )


def refuse(row: dict[str, Any], max_skips: int, folder: Path, saved: Sequence[int]) -> None:
    """End a run that has skipped too many steps in a row; the numbers are equal on all ranks.

    Raises:
        FaultError: on every rank alike.
    """
    if row["skipped"] < max_skips:
        return
    error = FaultError(
        f"{max_skips} steps in a row, up to step {row['step']}, had a loss or gradient that is not "
        f"finite (train.max_skips); their samples are in {folder / 'skipped'}, checkpoints before "
        f"them: {list(saved) or 'none'}; lower optim.base_lr, set optim.clip or lengthen "
        f"optim.warmup_steps; if the ranks named there are few, run `hpcgeo data verify`"
    )
    error.shared = True
    raise error
