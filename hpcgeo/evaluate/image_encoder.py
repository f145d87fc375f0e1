"""Encoders of images: a frozen ViT or Swin of a run, an export or public weights, normalised.

What is read of an image is part of an encoder: bands in their order, the unit of their numbers,
their mean and deviation. Data whose numbers are others is refused, not guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor

from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.data.sample import Channel, Sample
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoder import Encoder, Prepared
from hpcgeo.models.backbone import backbone
from hpcgeo.models.patches import patchify
from hpcgeo.options import Task
from hpcgeo.parallel.device import usable_device
from hpcgeo.sensors import sensors
from hpcgeo.weights.bands import NEAR, matching

#: Blocks that are tried where none are named.
BLOCKS = 6
#: Where normalised data may lie: its mean, and its deviation. Numbers of another unit lie outside.
MEAN, DEVIATION = 4.0, (0.02, 20.0)


@dataclass(frozen=True, kw_only=True)
class ImageEncoder(Encoder):
    """A frozen ViT, or what is like it, and how images are prepared for it.

    Attributes:
        mean, std: of each channel, in the numbers of `unit`.
        unit: of the numbers (`hpcgeo.sensors.Sensor.unit`); None: those of its own data set.
        size: pixels on a side of the images it is given, unless another is asked for.
        native: the grid of patches it was trained on.
    """

    title = "a ViT"
    keeps: ClassVar[tuple[str, ...]] = ("vectors", "tokens", "grids")
    poolings: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "class": lambda kept: kept[:, : kept.shape[1] // 2],
        "mean": lambda kept: kept[:, kept.shape[1] // 2 :],
        "all": lambda kept: kept,
    }

    mean: tuple[float, ...]
    std: tuple[float, ...]
    unit: str | None
    size: int
    native: tuple[int, int]

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.architecture.encoder.depth

    def cell(self, block: int) -> tuple[int, int]:
        """Return pixels on a side, and numbers, of a cell of `grids` after a block."""
        return self.architecture.patch, self.backbone.width

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are tried where none are named: of the second half, the last too."""
        half, some = self.depth / 2, min(BLOCKS, max(1, self.depth // 2))
        return tuple(round(half + half * (n + 1) / some) for n in range(some))

    def refuse_block(self, block: int) -> None:
        if not 0 <= block <= self.depth:
            raise InputError(f"block {block}: {self.name} has {self.depth}, from 1; 0: its input")

    def reading(self, task: Task, size: int | None) -> Task:
        size = size or self.size
        if size % (patch := self.architecture.patch):
            fits = " or ".join(str(n * patch) for n in (size // patch, size // patch + 1) if n)
            raise InputError(f"--size {size}: {self.name} reads patches of {patch}: {fits}")
        self.architecture.num_patches((size, size))
        frame = next(n for n in (32, 16, 8, 4, 2, 1) if size % n == 0)
        return task.model_copy(update={"patch": frame, "size": size})

    def flops(self, size: int | None) -> int:
        return self.architecture.forward_flops(len(self.channels), (size or self.size,) * 2)

    def vectors(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return class token and mean of the patches, side by side, (B, 2 W) of each block."""
        first = self.backbone.first
        return [
            torch.cat([tokens[:, 0], tokens[:, first:].mean(1)], dim=1)
            for tokens in self.tokens(images, blocks)
        ]

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
        patches = patchify(images.nan_to_num(0.0, 0.0, 0.0), patch)
        return [each.float() for each in self.backbone.after(patches, positions, blocks)]

    def grids(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return a vector for each patch of images, as of `tokens`, (B, h, w, W) of each block."""
        height, width = (size // self.architecture.patch for size in images.shape[-2:])
        patches = (each[:, self.backbone.first :] for each in self.tokens(images, blocks))
        return [each.reshape(len(each), height, width, -1) for each in patches]

    def reads(self, part: LabelledSplit, *, normalise: str = "encoder") -> "PreparedImages":
        """Return how samples are read: a band is the one of the same name, else the one nearest in
        wavelength (`NEAR`)."""
        found = [matching(channel, part.channels) for channel in self.channels]
        for wanted, one in zip(self.channels, found, strict=True):
            if one is None:
                raise InputError(
                    f"{self.name} reads {_names(self.channels)}; the data has no "
                    f"{wanted.sensor} {wanted.band} and none within {NEAR:.0%} of its wavelength: "
                    f"it has {_names(part.channels)}"
                )
        channels = tuple(one for one in found if one is not None)
        if twice := {one for one in channels if channels.count(one) > 1}:
            raise InputError(
                f"{self.name} reads {_names(self.channels)}; of the data {_names(sorted(twice))} "
                f"is the nearest to several of them: it has {_names(part.channels)}"
            )
        if normalise == "data":
            moments = {one: part.moments[one] for one in channels}
        else:
            moments = dict(zip(channels, zip(self.mean, self.std, strict=True), strict=True))
            self._refuse_unit(channels, part)
        return PreparedImages(self, channels, moments, normalise)

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


@dataclass(frozen=True, kw_only=True)
class SwinEncoder(ImageEncoder):
    """A frozen Swin: its blocks are stages, each as the next one reads it, the last with its norm;
    the vector of an image is the mean of its places."""

    title = "a Swin"
    keeps = ("vectors", "grids")
    poolings: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"mean": lambda kept: kept}

    @property
    def depth(self) -> int:
        """Number of stages."""
        return len(self.architecture.depths)

    @property
    def blocks(self) -> tuple[int, ...]:
        """All stages."""
        return tuple(range(1, self.depth + 1))

    def refuse_block(self, block: int) -> None:
        if not 1 <= block <= self.depth:
            raise InputError(f"block {block}: {self.name} has {self.depth} stages, from 1")

    def cell(self, block: int) -> tuple[int, int]:
        last = min(block, self.depth - 1)
        return self.architecture.patch * 2**last, self.backbone.widths[block - 1]

    def vectors(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the mean of the places, (B, C) of each stage."""
        return [each.mean((1, 2)) for each in self.grids(images, blocks)]

    @torch.no_grad()
    def grids(self, images: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Return the places of images after stages, (B, h, w, C) float32 of each."""
        self.architecture.num_patches(images.shape[-2:])
        places = islice(self.backbone.places(images.nan_to_num(0.0, 0.0, 0.0)), max(blocks))
        found = {number: each.float() for number, each in enumerate(places, 1) if number in blocks}
        return [found[number] for number in blocks]


#: What encodes images, by the family of its backbone.
IMAGE_ENCODERS: dict[str, type[ImageEncoder]] = {"swin": SwinEncoder, "vit": ImageEncoder}


class PreparedImages(Prepared):
    """How samples of a data set become images for an `ImageEncoder`."""

    encoder: ImageEncoder

    def frame(self, part: LabelledSplit) -> dict[str, Any]:
        first = self.images([self.split(part).read(0)])
        return {"image": list(first.shape[2:]), "native": list(self.encoder.native)}

    def features(self, samples: Sequence[Sample], blocks: Sequence[int], kept: str) -> list[Tensor]:
        """Return what is kept of samples, means over their dates."""
        images = self.images(samples)  # (B, T, C, H, W)
        B, T = images.shape[:2]
        found = getattr(self.encoder, kept)(images.flatten(0, 1), blocks)
        return [each.reshape(B, T, *each.shape[1:]).mean(1) for each in found]

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


@torch.no_grad()
def filled(model: Any, bands: int, weight: Callable[[str, Sequence[int]], Tensor]) -> Any:
    """Return a backbone with given weights, on the device."""
    with torch.device("meta"):
        made = backbone(model, (), bands, "uniform")
    device = usable_device()
    weights = {
        name: weight(name, value.shape).to(device) for name, value in made.named_parameters()
    }
    made.load_state_dict(weights, assign=True)
    return made.requires_grad_(False).eval()


def _unit(channel: Channel) -> str | None:
    """Return the unit of the numbers of a band, where its sensor has a usual one."""
    sensor = sensors().get(channel.sensor)
    return sensor.unit if sensor else None


def _names(channels: Sequence[Channel]) -> str:
    return ", ".join(f"{channel.sensor} {channel.band}" for channel in channels)
