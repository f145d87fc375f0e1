"""Encoders of samples: a frozen backbone of a run, by the one vector of its features.

A Perceiver reads observations of any sensors. Other backbones read images of the bands of their
run; a ViT with one preparation of images is more (`hpcgeo.evaluate.image_encoder`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.sample import Channel, Sample
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoder import Encoder, Prepared
from hpcgeo.objectives.collate import moved, tokens, whole
from hpcgeo.options import Batching, Task
from hpcgeo.parallel.device import usable_device
from hpcgeo.workloads.mixture import band_of


@dataclass(frozen=True, kw_only=True)
class SampleEncoder(Encoder):
    """A frozen backbone, as it is trained on samples.

    Attributes:
        depth: number of its blocks.
        size: pixels on a side of its images; None: as the data has them.
        batching: how unequal samples share a forward.
        sensors: a file of further sensors (`data.sensors`).
    """

    title = "read as samples"
    keeps = ("vectors",)
    poolings: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"all": lambda kept: kept}

    depth: int
    size: int | None
    batching: Batching
    sensors: Path | None

    @property
    def blocks(self) -> tuple[int, ...]:
        return (self.depth,)

    def refuse_block(self, block: int) -> None:
        if block != self.depth:
            raise InputError(
                f"block {block}: {self.name} has features after its last block, {self.depth}"
            )

    def reading(self, task: Task, size: int | None) -> Task:
        size = size or self.size
        return task.model_copy(update={"size": size}) if size else task

    def flops(self, size: int | None) -> None:
        return None  # samples differ in their number of tokens

    def reads(self, part: LabelledSplit, *, normalise: str = "encoder") -> "PreparedSamples":
        """Return how samples are read: by the moments of their own data set, as in training."""
        if new := sorted(set(part.channels) - set(self.channels)):
            raise InputError(f"{self.name} never saw {_names(new)}: only data of its bands")
        if not self.architecture.any_sensor and part.channels != self.channels:
            raise InputError(
                f"{self.name} reads {_names(self.channels)}, and the data has "
                f"{_names(part.channels)}: only data of these, in that order"
            )
        moments = {channel: part.moments[channel] for channel in part.channels}
        return PreparedSamples(self, part.channels, moments, "data")


def _names(channels: Sequence[Channel]) -> str:
    return ", ".join(f"{channel.sensor}/{channel.band}" for channel in channels)


class PreparedSamples(Prepared):
    """How samples of a data set become tokens for a `SampleEncoder`."""

    encoder: SampleEncoder

    def frame(self, part: LabelledSplit) -> dict[str, Any]:
        seen = part.read(0).observations
        shapes = [[list(one.values.shape), one.patch] for one in seen]
        return {"observations": shapes, "place": part.place}

    @torch.no_grad()
    def features(self, samples: Sequence[Sample], blocks: Sequence[int], kept: str) -> list[Tensor]:
        """Return the vectors of samples; they are the same of every block that there is."""
        drawn = [plain(sample) for sample in samples]
        bands = partial(band_of, self.encoder.sensors)
        made = tokens(drawn, self.encoder.batching, bands, whole(drawn))[0]
        return [self.encoder.backbone.encode(moved(made, usable_device())).vector.float()]
