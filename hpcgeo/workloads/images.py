"""Training on images of one layout (`data.path`): random views, any objective that takes images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpcgeo.config import RunConfig
from hpcgeo.data.loader import ImageBatch, ImageBatches, Loader
from hpcgeo.data.readers.shards import named
from hpcgeo.data.sampling.order import shuffled
from hpcgeo.data.shards.dataset import open_dataset
from hpcgeo.data.views import RandomView, ViewBatch, Views
from hpcgeo.errors import InputError
from hpcgeo.objectives.objective import Inputs, Material, Objective
from hpcgeo.options import BY_OBJECTIVE, Data, Model
from hpcgeo.parallel.engine import Engine, Initial
from hpcgeo.parallel.topology import Topology
from hpcgeo.phases import phase
from hpcgeo.pictures import pages
from hpcgeo.weights.initial import initial
from hpcgeo.workloads.workload import Alive, Step
from hpcgeo.zoo import architecture

NUM_PICTURES = 6


class Images:
    """Images of one layout; see `hpcgeo.workloads.workload.Workload`."""

    done = False

    def __init__(self, run: RunConfig, objective: Objective) -> None:
        """Open the data set.

        Raises:
            InputError: no such data set or model, or they do not fit together.
        """
        assert isinstance(run.data, Data)
        self.run, self.data, self._objective = run, run.data, objective
        self.model = architecture(run.model.name)
        refuse_idle_options(run.model, self.model.family)
        self.model.num_patches(self.data.chip)
        self.dataset = open_dataset(self.data)
        self.material = Material(self.model, len(self.dataset.bands), self.data.chip)
        self.forms = objective.forms(self.model, self.material.bands, self.data.chip)
        self.views = Views(
            self.dataset,
            [
                RandomView(*each)
                for each in objective.random_views(self.data.chip, self.data.augment)
            ],
            run.seed,
            cut=not torch.cuda.is_available(),
        )
        self.refuse_cut = self.model.refuse_cut

    def objective(self) -> nn.Module:
        return self._objective.network(self.material)

    def initial(self, objective: nn.Module) -> Initial:
        channels = named(self.dataset.sensor, self.dataset.bands)
        return initial(
            self.run.model, self.model, objective, self.run.seed, self._objective, channels
        )

    def batches(self, topology: Topology, first_step: int) -> Loader[ViewBatch]:
        train = self.run.train
        batches = ImageBatches(
            self.dataset,
            self.run.seed,
            train.micro_batch,
            topology.data_rank,
            topology.layout.data_parallel,
            self.views.prepare,
        )
        return Loader(
            batches,
            accumulate=train.accumulate,
            workers=self.data.workers,
            first_step=first_step,
            ranks=topology.local_size,
        )

    def step(self, batches: Iterator[ViewBatch], device: torch.device) -> Step:
        return Step((self._inputs(batch, device) for batch in batches), self.run.train.accumulate)

    def evaluate(
        self, engine: Engine, topology: Topology, folder: Path, step: int, alive: Alive
    ) -> None:
        """Picture the same samples every time, behind the same masks, if there is what to show."""
        if "reconstruct" not in getattr(engine.objective, "methods", ()):
            return
        index = pages.spread_out(NUM_PICTURES, len(self.dataset))
        batch = ImageBatch.read(self.dataset, index, position=index)
        images = self.views.plain(batch, topology.device)
        patches = self.model.num_patches(self.data.chip)
        inputs = self._objective.image_inputs([images], index, patches)
        holes, whole = engine.evaluate("reconstruct", inputs)
        if topology.rank == 0:
            titled = {"input": images, "masked": holes, "reconstruction": whole}
            layout = torch.from_numpy(batch.layout)
            columns = {
                name: self.views.denormalise(tensor, layout) for name, tensor in titled.items()
            }
            path = folder / "reconstructions" / f"step-{step:08d}.png"
            visible = pages.visible(self.dataset.bands, self.dataset.sensor)
            pages.save(path, columns, visible)

    def keep(self, folder: Path) -> None:
        """Leave nothing: means and deviations are those that the data set itself holds."""

    def ended(self, folder: Path, step: int) -> bool:
        return False

    def samples(self, position: Any) -> dict[str, Any]:
        return {"index": shuffled(position, len(self.dataset), self.run.seed).tolist()}

    def facts(self) -> dict[str, Any]:
        with torch.device("meta"):
            parameters = self.objective().parameters()
        bands = self.material.bands
        return {"parameters": sum(p.numel() for p in parameters), "bands": bands}

    def model_flops(self, global_batch: int) -> float | None:
        return float(self.forms.model_flops * global_batch) if self.forms else None

    def about(self) -> list[str]:
        data, facts, (height, width) = self.data, self.facts(), self.data.chip
        becomes = f" = {self.forms.summary}" if self.forms else ""
        return [
            f"model         {self.model.name}, {facts['parameters']:,} parameters, those of "
            f"objective {self.run.objective.name} included",
            f"data          {data.path}: {len(self.dataset):,} samples, {facts['bands']} bands",
            f"chip          {height} x {width} pixels{becomes}",
        ]

    def commands(self) -> list[str]:
        encoder, (height, width) = getattr(self.model, "encoder", None), self.data.chip
        known = encoder is not None and encoder.mlp == "plain" and height == width
        to = next(iter(self._objective.exports if known else ()), "safetensors")
        probe = ["hpcgeo probe RUN"] if len(self.dataset.classes) > 1 and height == width else []
        return [f"hpcgeo export RUN --to {to}", *probe]

    def _inputs(self, batch: ViewBatch, device: torch.device) -> Inputs:
        views = self.views.finish(batch, device)
        with phase("augmentation"):
            num_patches = self.model.num_patches(self.data.chip)
            return self._objective.image_inputs(views, batch.position, num_patches)


def refuse_idle_options(model: Model, family: str) -> None:
    """Refuse options that this family of backbones has none of; an InputError names the first."""
    for name, only in Model.marked("only").items():
        by_family = only != BY_OBJECTIVE["only"]
        if (
            by_family
            and only != family
            and getattr(model, name) != Model.model_fields[name].default
        ):
            raise InputError(
                f"model.{name} is an option of a {only}, and {model.name} is a {family}: choose "
                f"another row of `hpcgeo list models`"
            )
