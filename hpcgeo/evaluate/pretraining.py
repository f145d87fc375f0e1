"""What the training of a run took, up to a step, from what its folder says."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpcgeo.checkpoint.folders import MANIFEST
from hpcgeo.checkpoint.manifest import opened
from hpcgeo.errors import InputError
from hpcgeo.records import Record
from hpcgeo.scores import Pretraining
from hpcgeo.weights.export import chosen, config_of


def pretraining(folder: Path, step: int | None = None) -> Pretraining | None:
    """Return what a run took up to a step, by default that of its newest checkpoint.

    None: it left no record yet, or its metrics lack a step.
    """
    try:
        record = Record.model_validate_json((folder / "record.json").read_text("utf-8"))
        step, checkpoint = chosen(folder, step)
        rows = [row for row in _rows(folder) if row["step"] <= step]
    except (OSError, ValueError, InputError):
        return None
    if len(rows) < step or record.global_batch is None:
        return None
    samples, energy = step * record.global_batch, record.energy
    seconds = sum(row["step_s"] + row["checkpoint_s"] for row in rows)
    whole = energy is not None and energy.images == samples
    return Pretraining(
        objective=config_of(folder).objective.name,
        data=_data(checkpoint),
        steps=step,
        samples=samples,
        flops=None if record.model_flops is None else step * record.model_flops,
        node_hours=seconds * record.nodes / 3600,
        kwh=energy.joules / 3.6e6 if energy and whole else None,
        nodes=record.nodes,
        device=record.device,
        devices=record.world_size,
    )


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)


def _data(checkpoint: Path) -> str | None:
    with suppress(OSError, ValueError):
        return opened((checkpoint / MANIFEST).read_text("utf-8")).data
    return None
