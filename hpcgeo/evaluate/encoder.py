"""Encoders of images: a frozen ViT of a run, an export or public weights, with its normalisation.

What is read of an image is part of an encoder: bands in their order, the unit of their numbers,
their mean and deviation. Data whose numbers are others is refused, not guessed.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.data.sample import Channel, Sample
from hpcgeo.errors import InputError
from hpcgeo.models.initialise import draw
from hpcgeo.models.patches import patchify
from hpcgeo.models.vit import ViT
from hpcgeo.parallel.device import usable_device
from hpcgeo.scores import Pretraining
from hpcgeo.sensors import sensors
from hpcgeo.weights.bands import NEAR, matching
from hpcgeo.weights.initial import BACKBONE
from hpcgeo.zoo import Architecture

#: Blocks that are tried where none are named.
BLOCKS = 6
#: Where normalised data may lie: its mean, and its deviation. Numbers of another unit lie outside.
MEAN, DEVIATION = 4.0, (0.02, 20.0)


@dataclass(frozen=True)
class Encoder:
    """A frozen ViT and how images are prepared for it.

    Attributes:
        name: as it was asked for.
        architecture: of the backbone.
        backbone: on the device, in evaluation mode.
        channels: what it reads, in its order.
        mean, std: of each, in the numbers of `unit`.
        unit: of the numbers (`hpcgeo.sensors.Sensor.unit`); None: those of its own data set.
        size: pixels on a side of the images it is given, unless another is asked for.
        native: the grid of patches it was trained on.
        origin: where it is from, for records.
        pretraining: what its run took, where it is of one.
    """

    name: str
    architecture: Architecture
    backbone: ViT
    channels: tuple[Channel, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unit: str | None
    size: int
    native: tuple[int, int]
    origin: Mapping[str, str | int | None]
    pretraining: Pretraining | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of architecture and weights."""
        return fingerprint(self.architecture, self.backbone.state_dict().items())

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.architecture.encoder.depth

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are tried where none are named: of the second half, the last too."""
        half, some = self.depth / 2, min(BLOCKS, max(1, self.depth // 2))
        return tuple(round(half + half * (n + 1) / some) for n in range(some))

    @torch.no_grad()
    def tokens(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the tokens of prepared images after some blocks, (B, R + N, W) float32 each.

        Args:
            images: (B, C, height, width), normalised, on the device; NaN is missing: the mean.
            blocks: their numbers, from 1; 0: what enters the first one.
        """
        patch = self.architecture.patch
        height, width = images.shape[-2:]
        self.architecture.num_patches((height, width))
        grid = height // patch, width // patch
        positions = self.backbone.positions(grid, images.device, self.native)
        patches = patchify(images.nan_to_num(0.0), patch)
        return [each.float() for each in self.backbone.after(patches, positions, blocks)]

    def grids(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return a vector for each patch of images, as of `tokens`, (B, h, w, W) of each block."""
        height, width = (size // self.architecture.patch for size in images.shape[-2:])
        patches = (each[:, self.backbone.first :] for each in self.tokens(images, blocks))
        return [each.reshape(len(each), height, width, -1) for each in patches]

    def random(self, seed: int) -> "Encoder":
        """Return this encoder with weights that were never trained."""
        weights = {
            name: draw(BACKBONE + name, value.shape, slice(None), seed)
            for name, value in self.backbone.state_dict().items()
        }
        backbone = filled(self.architecture, len(self.channels), lambda name, _: weights[name])
        origin: dict[str, str | int | None] = {
            "encoder": f"random weights, seed {seed}",
            "model": self.architecture.name,
        }
        return replace(self, name="random", backbone=backbone, origin=origin, pretraining=None)

    def reads(self, part: LabelledSplit, *, normalise: str = "encoder") -> "Prepared":
        """Return how samples of a data set are read, its bands matched and its numbers normalised.

        A band is the one of the same name, else the one nearest in wavelength (`NEAR`).

        Args:
            part: a split of the data set.
            normalise: "encoder": by its own moments, or "data": by those of the data set.

        Raises:
            InputError: a band is not there, or the numbers have another unit.
        """
        found = [matching(channel, part.channels) for channel in self.channels]
        for wanted, one in zip(self.channels, found, strict=True):
            if one is None:
                raise InputError(
                    f"{self.name} reads {_names(self.channels)}; the data has no "
                    f"{wanted.sensor} {wanted.band} and none within {NEAR:.0%} of its wavelength: "
                    f"it has {_names(part.channels)}"
                )
        channels = tuple(one for one in found if one is not None)
        if normalise == "data":
            moments = {one: part.moments[one] for one in channels}
        else:
            moments = dict(zip(channels, zip(self.mean, self.std, strict=True), strict=True))
            self._refuse_unit(channels, part)
        return Prepared(self, channels, moments, normalise)

    def _refuse_unit(self, channels: Sequence[Channel], part: LabelledSplit) -> None:
        """Refuse data whose numbers are not those that the encoder is normalised in."""
        way_out = (
            "bring the data to that unit, or normalise it by its own mean and deviation "
            "(--normalise data), which a table then says"
        )
        for mine, one in zip(self.channels, channels, strict=True):
            unit = _unit(one)
            if mine != one and (unit is None or unit != (self.unit or _unit(mine))):
                raise InputError(
                    f"{self.name} is normalised in numbers of {self.unit or _names([mine])}, and "
                    f"those of {_names([one])} are {unit or 'of no known unit'}: {way_out}"
                )
        for one, mean, std in zip(channels, self.mean, self.std, strict=True):
            theirs, deviation = part.moments[one]
            at, wide = (theirs - mean) / std, deviation / std
            if abs(at) > MEAN or not DEVIATION[0] < wide < DEVIATION[1]:
                raise InputError(
                    f"{_names([one])} of the data has mean {theirs:.4g} and deviation "
                    f"{deviation:.4g}, {self.name} expects {mean:.4g} and {std:.4g}: numbers of "
                    f"another unit than {self.unit or 'its own data'}; {way_out}"
                )


@dataclass(frozen=True)
class Prepared:
    """How samples of a data set become images for an encoder.

    Attributes:
        channels: of the data, one for each that the encoder reads, in its order.
        moments: mean and deviation that each is normalised by.
        normalise: whose they are: "encoder" or "data".
    """

    encoder: Encoder
    channels: tuple[Channel, ...]
    moments: Mapping[Channel, tuple[float, float]]
    normalise: str

    def split(self, part: LabelledSplit) -> LabelledSplit:
        """Return a split whose samples are normalised so."""
        return replace(part, moments={**part.moments, **self.moments})

    def images(self, samples: Sequence[Sample]) -> Tensor:
        """Return samples of `split` as images (B, T, C, height, width), NaN where missing.

        Raises:
            InputError: a sample has several observations, or they differ in dates or size.
        """
        found = []
        for sample in samples:
            [seen, *others] = sample.observations
            if others or seen.values.ndim != 4:
                raise InputError(
                    f"{self.encoder.name} reads one image a sample, and these hold "
                    f"{len(sample.observations)} observations or vectors: probe a Perceiver"
                )
            order = [seen.channels.index(channel) for channel in self.channels]
            found.append(torch.from_numpy(seen.values[:, order]))
        if len({each.shape for each in found}) > 1:
            sizes = sorted({tuple(each.shape) for each in found})
            raise InputError(f"images differ in dates or size ({sizes}): give --size")
        return torch.stack(found).to(usable_device())

    @property
    def transform(self) -> dict[str, Any]:
        """What is done to the numbers of an image, for records."""
        return {
            "bands": [f"{one.sensor}/{one.band}" for one in self.channels],
            "normalise": self.normalise,
            "mean": [self.moments[one][0] for one in self.channels],
            "std": [self.moments[one][1] for one in self.channels],
        }


def fingerprint(model: Any, weights: Iterable[tuple[str, Tensor]]) -> str:
    """Return the fingerprint of an architecture with weights of its backbone, by their names."""
    digest = hashlib.blake2b(repr(model).encode(), digest_size=16)
    for name, value in weights:
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def filled(model: Architecture, bands: int, weight: Callable[[str, Sequence[int]], Tensor]) -> ViT:
    """Return a backbone with given weights, on the device."""
    with torch.device("meta"):
        backbone = ViT(model, bands)
    device = usable_device()
    weights = {
        name: weight(name, value.shape).to(device) for name, value in backbone.named_parameters()
    }
    backbone.load_state_dict(weights, assign=True)
    return backbone.requires_grad_(False).eval()


def _unit(channel: Channel) -> str | None:
    """Return the unit of the numbers of a band, where its sensor has a usual one."""
    sensor = sensors().get(channel.sensor)
    return sensor.unit if sensor else None


def _names(channels: Sequence[Channel]) -> str:
    return ", ".join(f"{channel.sensor} {channel.band}" for channel in channels)
