"""A profile run: a recipe under the profiler's meter, and its record."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hpcgeo.config import RunConfig, load
from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.machines import grid, machine
from hpcgeo.profiling import memory
from hpcgeo.profiling.profiler import LATER, LONGEST, SHORTEST, Options, Profiler
from hpcgeo.profiling.summary import summary
from hpcgeo.records import Record, append
from hpcgeo.strategies import strategy
from hpcgeo.train.loop import pretrain
from hpcgeo.workloads.choice import forms_of


def profile_run(recipe: str, overrides: Sequence[str], options: Options, records: Path) -> Record:
    """Measure a recipe and append its record; every rank calls it.

    Args:
        records: the file of JSON lines.

    Raises:
        InputError: the recipe cannot be run like this.
    """
    with tempfile.TemporaryDirectory(prefix="hpcgeo-profile-") as folder:
        run = configure(recipe, overrides, options.steps, options.warmup, Path(folder))
        _refuse(run, options)
        if options.grid is None and (own := machine(run.launch.machine).grid):
            options = replace(options, grid=grid(own))
        meters: list[Profiler] = []

        def meter(*arguments: Any) -> Profiler:
            meters.append(Profiler(*arguments, options=options))
            return meters[0]

        try:
            record = pretrain(run, meter, work=f"profile {records}")
        except BaseException:
            if meters and meters[0].early:
                log.warning("it failed when all steps were measured: what was, is recorded")
                _keep(run, meters[0].early, records)
            raise
    return _keep(run, record, records)


def _keep(run: RunConfig, record: Record, records: Path) -> Record:
    """Append a record, with what the closed forms say; rank 0 does."""
    config = {part: options for part, options in (record.config or {}).items() if part != "run"}
    known: dict[str, Any] = {"config": config}
    if forms := forms_of(run, record.bands):
        executed = record.global_batch * forms.executed_flops(run.parallel.recompute)
        known |= {
            "predicted_memory": memory.predicted(run, forms, record.world_size),
            "executed_flops": executed,
        }
    record = record.model_copy(update=known)
    if dist.get_rank() == 0:
        append(records, record)
        log.info("%s\n  appended to %s", summary(record), records)
    return record


def configure(
    recipe: str, overrides: Sequence[str], steps: int, warmup: int, folder: Path
) -> RunConfig:
    """Return the configuration of a profile run: no checkpoints, no pictures, no warm-up of lr."""
    fixed = [
        f"run.dir={folder}",
        f"train.steps={max(warmup, SHORTEST) + LONGEST + steps + len(LATER)}",
        "train.eval_every=null",
        "checkpoint.every=0",
        "optim.warmup_steps=0",
        "optim.frozen_steps=0",
    ]
    return load(recipe, [*overrides, *fixed])


def _refuse(run: RunConfig, options: Options) -> None:
    chosen = strategy(run.parallel.strategy)
    if not options.communication and chosen.backend == "deepspeed" and chosen.parameters != "none":
        raise InputError(
            f"communication off: {chosen.name} compares its ranks by collectives in every step and "
            f"would stop; FULL_SHARD shards the same and can be measured without"
        )
