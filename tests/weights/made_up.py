"""Runs of which there is but one checkpoint, of made up weights, and the models that they hold."""

from pathlib import Path
from typing import Any

import torch

from hpcgeo.checkpoint.checkpoints import Checkpoints, reader_of
from hpcgeo.config import RunConfig, load
from hpcgeo.data.shards.dataset import open_dataset
from hpcgeo.job_options import Checkpoint
from hpcgeo.objectives.objective import Material
from hpcgeo.workloads.choice import objective_of
from hpcgeo.zoo import architecture
from tests.distributed import on_ranks

STEP = 7


def model_of(config: RunConfig) -> Any:
    bands = len(open_dataset(config.data).bands)
    material = Material(architecture(config.model.name), bands, config.data.chip)
    return objective_of(config).network(material)


def trained(run: Path, step: int = STEP) -> Any:
    """The model of a checkpoint, read whole."""
    mae = model_of(load(str(run / "config.yaml")))
    weights = {f"model.{name}": value for name, value in mae.state_dict().items()}
    reader_of(run / "checkpoints" / f"step-{step:08d}").fill(weights)  # in place
    return mae


def untrained(folder: Path, *options: str, scale: float = 1.0) -> Path:
    """A run of which there is but one checkpoint of made up weights."""
    config = load("mae_vit_tiny", [f"run.dir={folder}", *options])
    on_ranks(save_made_up, 1, folder, config, scale)
    (folder / "config.yaml").write_text(config.to_yaml())
    return folder


class MadeUp:
    """The part of an engine that a checkpoint sees."""

    def __init__(self, config: RunConfig, scale: float) -> None:
        with torch.device("meta"):
            empty = model_of(config).state_dict()
        generator = torch.Generator().manual_seed(0)
        self.weights = {
            name: scale * torch.randn(value.shape, generator=generator)
            for name, value in empty.items()
        }

    def state(self) -> dict[str, Any]:
        return {"model": self.weights}


def save_made_up(folder: Path, config: RunConfig, scale: float) -> None:
    engine: Any = MadeUp(config, scale)
    digest = open_dataset(config.data).fingerprint
    options = Checkpoint(asynchronous=False)
    Checkpoints(folder / "checkpoints", options, global_batch=1, data=digest).save(STEP, engine)
