"""Encoders: a frozen backbone, what it reads, and how samples are prepared for it.

A further kind of encoder is one module, and a row where `hpcgeo.evaluate.encoders` opens runs.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.data.sample import Channel, Sample
from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.options import Task
from hpcgeo.scores import Pretraining
from hpcgeo.weights.initial import BACKBONE


@dataclass(frozen=True, kw_only=True)
class Encoder(ABC):
    """A frozen backbone.

    Attributes:
        title: what it is, for messages.
        keeps: what features can be kept of a sample: "vectors", "tokens", "grids".
        poolings: what of `vectors` is one vector of a sample: columns of them, by name.
        name: as it was asked for.
        architecture: of the backbone.
        backbone: on the device, in evaluation mode.
        channels: what it reads.
        origin: where it is from, for records.
        pretraining: what its run took, where it is of one.
    """

    title: ClassVar[str]
    keeps: ClassVar[tuple[str, ...]]
    poolings: ClassVar[Mapping[str, Callable[[Any], Any]]]

    name: str
    architecture: Any
    backbone: Any
    channels: tuple[Channel, ...]
    origin: Mapping[str, str | int | None]
    pretraining: Pretraining | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of architecture and weights."""
        return fingerprint(self.architecture, self.backbone.state_dict().items())

    @property
    def parameters(self) -> int:
        """Number of parameters of the backbone."""
        return sum(weight.numel() for weight in self.backbone.parameters())

    @property
    @abstractmethod
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are tried where none are named."""

    @abstractmethod
    def refuse_block(self, block: int) -> None:
        """Refuse a block that it has no features after."""

    @abstractmethod
    def reading(self, task: Task, size: int | None) -> Task:
        """Return how a data set is opened for it; `size` pixels on a side, where one is asked for.

        Raises:
            InputError: it reads no images of that size.
        """

    @abstractmethod
    def reads(self, part: LabelledSplit, *, normalise: str = "encoder") -> "Prepared":
        """Return how samples of a data set are read.

        Args:
            part: a split of the data set.
            normalise: "encoder": by its own moments, or "data": by those of the data set.

        Raises:
            InputError: a band is not there, or the numbers have another unit.
        """

    @abstractmethod
    def flops(self, size: int | None) -> int | None:
        """Return the FLOPs of a forward of one sample; None: they are not known."""

    def random(self, seed: int) -> "Encoder":
        """Return this encoder with weights that were never trained."""
        backbone = deepcopy(self.backbone)
        with torch.no_grad():
            for name, weight in backbone.named_parameters():
                weight.copy_(draw(BACKBONE + name, weight.shape, slice(None), seed))
        origin: dict[str, str | int | None] = {
            "encoder": f"random weights, seed {seed}",
            "model": self.architecture.name,
        }
        return replace(self, name="random", backbone=backbone, origin=origin, pretraining=None)

    def refuse_kept(self, kept: str, protocol: str) -> None:
        """Refuse a protocol that reads what there is not."""
        if kept not in self.keeps:
            raise InputError(
                f"protocol {protocol} reads {kept}, and {self.name} is {self.title}, of which "
                f"there are {', '.join(self.keeps)}; `hpcgeo list protocols`"
            )


@dataclass(frozen=True)
class Prepared(ABC):
    """How samples of a data set are prepared for an encoder.

    Attributes:
        channels: of the data, that are read.
        moments: mean and deviation that each is normalised by.
        normalise: whose they are: "encoder" or "data".
    """

    encoder: Any
    channels: tuple[Channel, ...]
    moments: Mapping[Channel, tuple[float, float]]
    normalise: str

    def split(self, part: LabelledSplit) -> LabelledSplit:
        """Return a split whose samples are normalised so."""
        return replace(part, moments={**part.moments, **self.moments})

    @property
    def transform(self) -> dict[str, Any]:
        """What is done to the numbers of a sample, for records."""
        return {
            "bands": [f"{one.sensor}/{one.band}" for one in self.channels],
            "normalise": self.normalise,
            "mean": [self.moments[one][0] for one in self.channels],
            "std": [self.moments[one][1] for one in self.channels],
        }

    @abstractmethod
    def frame(self, part: LabelledSplit) -> dict[str, Any]:
        """Return what features depend on beside weights, data and `transform`: sizes."""

    @abstractmethod
    def features(self, samples: Sequence[Sample], blocks: Sequence[int], kept: str) -> list[Tensor]:
        """Return what is kept of samples of `split`, (B, ...) float32 of each block."""


def fingerprint(model: Any, weights: Iterable[tuple[str, Tensor]]) -> str:
    """Return the fingerprint of an architecture with weights of its backbone, by their names."""
    digest = hashlib.blake2b(repr(model).encode(), digest_size=16)
    for name, value in weights:
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
