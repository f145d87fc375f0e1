"""Pretraining on images of one layout: a vision transformer and its masked autoencoder."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hpcgeo.config import RunConfig
from hpcgeo.data.loader import ImageBatch, ImageBatches, Loader, open_dataset
from hpcgeo.data.sampling.order import shuffled
from hpcgeo.data.views import Views
from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.objectives.mae import MAE
from hpcgeo.objectives.masking import noise
from hpcgeo.options import Model
from hpcgeo.parallel.engine import Engine, Initial, Inputs
from hpcgeo.parallel.topology import Topology
from hpcgeo.phases import phase
from hpcgeo.plan.memory import predict
from hpcgeo.weights.initial import Start
from hpcgeo.workloads import pictures
from hpcgeo.workloads.workload import Alive, Step
from hpcgeo.zoo import architecture

NUM_PICTURES = 6
GIB = 2**30


class Imagery:
    """Masked autoencoding of images; see `hpcgeo.workloads.workload.Workload`."""

    done = False

    def __init__(self, run: RunConfig) -> None:
        """Open the data set.

        Raises:
            InputError: no such data set or model, or they do not fit together.
        """
        self.run = run
        self.data, self.mae = run.mae
        self.model = architecture(run.model.name)
        defaults = Model(name="")
        of_perceivers = [
            name
            for name in ("depth", "latents", "spread")
            if getattr(run.model, name) != getattr(defaults, name)
        ]
        if of_perceivers:
            raise InputError(
                f"model.{of_perceivers[0]} is an option of Perceivers, and {self.model.name} is a "
                f"ViT: choose another row of `hpcgeo list models`"
            )
        self.model.num_visible(self.data.chip, self.mae.mask_ratio)
        self.dataset = open_dataset(self.data)
        self.views = Views(self.dataset, self.data.chip, self.data.augment, run.seed)
        self.refuse_cut = self.model.refuse_cut

    def objective(self) -> MAE:
        return MAE(self.model, len(self.dataset.bands), self.mae)

    def initial(self, objective: MAE) -> Initial:
        if self.run.model.weights is None:
            return partial(draw, seed=self.run.seed)
        shapes = {name: parameter.shape for name, parameter in objective.named_parameters()}
        return Start(self.run.model.weights, self.model, shapes).rows

    def batches(self, topology: Topology, first_step: int) -> Loader[ImageBatch]:
        train = self.run.train
        world = topology.layout.data_parallel
        return Loader(
            ImageBatches(self.dataset, self.run.seed, train.micro_batch, topology.data_rank, world),
            accumulate=train.accumulate,
            workers=self.data.workers,
            first_step=first_step,
        )

    def step(self, batches: Iterator[ImageBatch], device: torch.device) -> Step:
        return Step((self._inputs(batch, device) for batch in batches), self.run.train.accumulate)

    def evaluate(
        self, engine: Engine, topology: Topology, folder: Path, step: int, alive: Alive
    ) -> None:
        """Picture the same samples every time, behind the same masks."""
        index = pictures.spread_out(NUM_PICTURES, len(self.dataset))
        pixels, valid = self.dataset.read(index)
        batch = ImageBatch(torch.from_numpy(pixels), valid, position=index, index=index)
        images = self.views.plain(batch, topology.device)
        mask = noise(self.run.seed, index, self.model.num_patches(self.data.chip))
        holes, whole = engine.evaluate(
            "reconstruct", {"images": images, "noise": mask.to(topology.device)}
        )
        if topology.rank == 0:
            titled = {"input": images, "masked": holes, "reconstruction": whole}
            columns = {name: self.views.denormalise(tensor) for name, tensor in titled.items()}
            path = folder / "reconstructions" / f"step-{step:08d}.png"
            visible = pictures.visible(self.dataset.bands, self.dataset.sensor)
            pictures.save(path, columns, visible)

    def ended(self, folder: Path, step: int) -> bool:
        return False

    def samples(self, position: Any) -> dict[str, Any]:
        return {"index": shuffled(position, len(self.dataset), self.run.seed).tolist()}

    def facts(self) -> dict[str, Any]:
        bands = len(self.dataset.bands)
        return {"parameters": self.model.mae_parameters(bands), "bands": bands}

    def model_flops(self, global_batch: int) -> float:
        """Forward once, backward twice as much (weights and inputs)."""
        forward = self.model.mae_forward_flops(
            len(self.dataset.bands), self.data.chip, self.mae.mask_ratio
        )
        return 3.0 * forward * global_batch

    def summary(self, rows: Sequence[str], world_size: int) -> str:
        model, bands, (height, width) = self.model, len(self.dataset.bands), self.data.chip
        patches = model.num_patches(self.data.chip)
        visible = model.num_visible(self.data.chip, self.mae.mask_ratio)
        memory = predict(self.run, bands, world_size)
        causes = ", ".join(f"{name} {value / GIB:.3g}" for name, value in vars(memory).items())
        return "\n".join(
            [
                f"model         {model.name}, {model.mae_parameters(bands):,} parameters with the "
                f"decoder",
                f"data          {self.data.path}: {len(self.dataset):,} samples, {bands} bands",
                f"chip          {height} x {width} pixels = {patches} patches of {model.patch} x "
                f"{model.patch}, {visible} visible",
                *rows,
                f"memory        {memory.total / GIB:.3g} GiB a rank predicted ({causes})",
            ]
        )

    def _inputs(self, batch: ImageBatch, device: torch.device) -> Inputs:
        num_patches = self.model.num_patches(self.data.chip)
        with phase("host_to_device"):
            return {
                "images": self.views(batch, device),
                "noise": noise(self.run.seed, batch.position, num_patches).to(device),
            }
