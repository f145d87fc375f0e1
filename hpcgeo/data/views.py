"""Views of a batch: random crops, flips and rotations, in normalised bands.

What is random is drawn where samples are read. A CPU resizes each crop there, alone: pixels of 8
bits to whole levels, as torchvision and Pillow do, others in float32. An accelerator resizes a
whole batch at once: antialiased bilinear interpolation is separable, so a resized crop is two small
matrices, one along the rows and one along the columns; a flip reverses a matrix, and a rotation by
90 degrees transposes the result. There, too, 8 bits are rounded after each matrix: both ways give
the same levels but for two in a hundred of white noise, near a half, which are one off.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from hpcgeo.data.loader import ImageBatch
from hpcgeo.data.sampling.order import uniform
from hpcgeo.data.shards.dataset import Dataset
from hpcgeo.data.transfer import sent
from hpcgeo.options import Augment
from hpcgeo.phases import phase

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

_TRIES = 10
#: Bands of 8 bits that torch resizes by instructions made for it; more at once, it does slowly.
_BANDS = 4


class RandomView(NamedTuple):
    """A kind of random views: height and width of them, and the ranges they are drawn from."""

    chip: tuple[int, int]
    augment: Augment


@dataclass(frozen=True)
class Crops:
    """What is done to each sample; all (B,).

    The crop [top, top + height) x [left, left + width) of the sample is, in this order, resized,
    transposed, and mirrored up-down and left-right.
    """

    top: Int
    left: Int
    height: Int
    width: Int
    transposed: npt.NDArray[np.bool_]
    up_down: npt.NDArray[np.bool_]
    left_right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ViewBatch:
    """A micro-batch of which views can be made on a device.

    `pixels` are samples (B, C, H, W), alone, or once they are cut V finished views (B, C, h, w);
    `crops` (V, B, 7) the fields of `Crops`; `layout` (B,) rows of the moments; `position` (B,)
    counts over the run.
    """

    pixels: tuple[torch.Tensor, ...]
    crops: torch.Tensor
    layout: torch.Tensor
    position: Int
    is_cut: bool = False

    def pin_memory(self) -> "ViewBatch":
        """Return the batch in memory that a device copies from without waiting."""
        pinned = {name: getattr(self, name).pin_memory() for name in ("crops", "layout")}
        return replace(self, pixels=tuple(each.pin_memory() for each in self.pixels), **pinned)


class Views:
    """Turns samples into the normalised views that a model is fed: `prepare` where they are read,
    `finish` on the device.
    """

    def __init__(
        self,
        dataset: Dataset,
        kinds: Sequence[RandomView],
        seed: int,
        *,
        cut: bool = True,
    ) -> None:
        """Prepare views.

        Args:
            dataset: whose mean, standard deviation and nodata normalise the bands.
            kinds: of the independent views of a sample, one each; some may be alike.
            seed: of the run.
            cut: resize where samples are read; false: on the device.
        """
        self._kinds, self._seed, self._cut = kinds, seed, cut
        std = np.where(dataset.std != 0, dataset.std, 1)
        known = {"mean": dataset.mean, "std": std, "nodata": dataset.nodata[:, None]}
        table = {
            name: torch.tensor(values, dtype=torch.float32)[:, :, None, None]  # (L, C or 1, 1, 1)
            for name, values in known.items()
        }
        self._tables = {torch.device("cpu"): table}
        self._has_nodata = not np.isnan(dataset.nodata).all()

    def __getstate__(self) -> dict[str, object]:
        """Reader processes have no device."""
        cpu = torch.device("cpu")
        return vars(self) | {"_tables": {cpu: self._tables[cpu]}}

    def __call__(self, batch: ImageBatch, device: torch.device) -> list[torch.Tensor]:
        """Return random views (B, C, h, w), functions of (seed, position) of each sample."""
        return self.finish(self.prepare(batch), device)

    def plain(self, batch: ImageBatch, device: torch.device) -> torch.Tensor:
        """Return the largest centred view (B, C, h, w) of each sample, of the size of the first
        kind of views, without augmentation."""
        high, wide = batch.valid.T
        rows, columns = self._kinds[0].chip
        scale = np.minimum(high / rows, wide / columns)
        height = np.maximum(1, np.rint(rows * scale).astype(np.int64))
        width = np.maximum(1, np.rint(columns * scale).astype(np.int64))
        no = np.zeros(len(high), dtype=bool)
        crops = Crops((high - height) // 2, (wide - width) // 2, height, width, no, no, no)
        return self.finish(self._prepared(batch, [crops]), device)[0]

    def prepare(self, batch: ImageBatch) -> ViewBatch:
        """Draw the random views, and cut them where that is done by whoever reads."""
        with phase("augmentation"):
            crops = [self.draw(batch, view) for view in range(len(self._kinds))]
            return self._prepared(batch, crops)

    def finish(self, batch: ViewBatch, device: torch.device) -> list[torch.Tensor]:
        """Return the normalised views (B, C, h, w) on their device."""
        with phase("host_to_device"):
            *pixels, layout, crops = sent((*batch.pixels, batch.layout, batch.crops), device)
        if batch.is_cut:
            return pixels
        with phase("augmentation"):
            mean, std = self._of("mean", layout), self._of("std", layout)
            [samples] = pixels
            filled = self._filled(samples, layout, mean)
            views = (
                self._resized(filled, each, samples.dtype, kind.chip)
                for each, kind in zip(crops, self._kinds, strict=False)
            )
            return [view.sub_(mean).div_(std) for view in views]

    def denormalise(self, views: torch.Tensor, layout: torch.Tensor) -> torch.Tensor:
        """Return views (B, C, h, w) in the units of the pixels of their layouts (B,)."""
        layout = layout.to(views.device)
        return views * self._of("std", layout) + self._of("mean", layout)

    def draw(self, batch: ImageBatch, view: int = 0) -> Crops:
        """Return the crops of the random views: area and aspect ratio as in Szegedy et al. 2014,
        section 6, whole pixels, inside the valid part of the sample.
        """
        augment = self._kinds[view].augment
        high, wide = batch.valid.T[:, :, None]  # (B, 1)
        drawn = uniform(self._seed, batch.position, _stream(view), 2 * _TRIES + 5)
        area = high * wide * _between(drawn[:, :_TRIES], *augment.scale)
        ratio = np.exp(_between(drawn[:, _TRIES : 2 * _TRIES], *np.log(augment.ratio)))
        height, width = np.sqrt(area / ratio), np.sqrt(area * ratio)  # (B, tries)
        fits = (np.rint(height) <= high) & (np.rint(width) <= wide)
        first = np.arange(len(fits)), fits.argmax(axis=1)  # none fits: the first, cut to size
        height = np.clip(np.rint(height[first]).astype(np.int64), 1, high[:, 0])
        width = np.clip(np.rint(width[first]).astype(np.int64), 1, wide[:, 0])
        down, right, turn, up_down, left_right = drawn[:, 2 * _TRIES :].T
        turns = np.floor(4 * turn) * augment.rotate  # of 90 degrees, clockwise
        return Crops(
            top=np.floor(down * (high[:, 0] - height + 1)).astype(np.int64),
            left=np.floor(right * (wide[:, 0] - width + 1)).astype(np.int64),
            height=height,
            width=width,
            transposed=turns % 2 == 1,
            up_down=(turns >= 2) ^ ((up_down < 0.5) & augment.flip),
            left_right=((turns == 1) | (turns == 2)) ^ ((left_right < 0.5) & augment.flip),
        )

    def _prepared(self, batch: ImageBatch, crops: Sequence[Crops]) -> ViewBatch:
        table = np.stack([np.stack([*vars(each).values()], axis=-1) for each in crops])  # (V, B, 7)
        layout = torch.from_numpy(batch.layout)
        found = ViewBatch(
            (batch.pixels,), torch.from_numpy(table.astype(np.float64)), layout, batch.position
        )
        if not self._cut:
            return found
        # Memory of numpy lies in large pages, the first touch of which takes a third of the time.
        views = []
        for each, kind in zip(crops, self._kinds, strict=False):
            shape = *batch.pixels.shape[:2], *kind.chip
            views.append(torch.from_numpy(np.empty(shape, dtype=np.float32)))
            self._cut_out(batch.pixels, layout, each, views[-1])
        return replace(found, pixels=tuple(views), is_cut=True)

    def _cut_out(
        self, pixels: torch.Tensor, layout: torch.Tensor, crops: Crops, views: torch.Tensor
    ) -> None:
        """Write normalised views (B, C, h, w), one by one: what a cache holds is not read again."""
        mean, std = (
            self._of(name, layout).expand(len(pixels), -1, 1, 1) for name in ("mean", "std")
        )
        # What is missing becomes the mean; that of layouts of several scales may be no level.
        small = pixels.dtype == torch.uint8 and not bool(((mean < 0) | (mean > 255)).any())
        rows = zip(*(values.tolist() for values in vars(crops).values()), strict=True)
        for i, (top, left, height, width, transposed, up_down, left_right) in enumerate(rows):
            crop = pixels[i : i + 1, :, top : top + height, left : left + width]
            crop = self._filled(crop, layout[i : i + 1], mean[i : i + 1])
            high, wide = views.shape[2:]
            size = (wide, high) if transposed else (high, wide)
            parts = torch.split(crop.to(torch.uint8), _BANDS, dim=1) if small else (crop,)
            resized = [_interpolated(part, size) for part in parts]
            view = (resized[0] if len(resized) == 1 else torch.cat(resized, dim=1))[0]
            view = view.mT if transposed else view
            mirrored = [axis for axis, yes in ((-2, up_down), (-1, left_right)) if yes]
            out = views[i].copy_(view.flip(mirrored) if mirrored else view)
            out.sub_(mean[i]).div_(std[i])

    def _filled(
        self, pixels: torch.Tensor, layout: torch.Tensor, mean: torch.Tensor
    ) -> torch.Tensor:
        """Return pixels whose missing ones are the mean of their band, of 8 bits a whole level."""
        if pixels.dtype.is_floating_point:
            values = pixels.to(torch.float32)
            return torch.where(torch.isfinite(values), values, mean)
        small = pixels.dtype == torch.uint8
        values = pixels if small else pixels.to(torch.float32)
        if not self._has_nodata:
            return values
        missing = values == self._of("nodata", layout)  # of NaN: none
        return torch.where(missing, mean.round() if small else mean, values)

    def _resized(
        self,
        pixels: torch.Tensor,
        crops: torch.Tensor,
        dtype: torch.dtype,
        chip: tuple[int, int],
    ) -> torch.Tensor:
        """Return resized crops (B, C, h, w), float32, of a whole batch at once; crops (B, 7)."""
        top, left, height, width, transposed, up_down, left_right = crops.unbind(1)
        turned = transposed > 0
        high, wide = chip
        side = max(chip)
        rows, columns = (torch.where(turned, *each) for each in ((wide, high), (high, wide)))
        mirrored_rows = torch.where(turned, left_right, up_down) > 0
        mirrored_columns = torch.where(turned, up_down, left_right) > 0
        down = _matrix(top, height, pixels.shape[2], rows, side, mirrored_rows)  # (B, side, H)
        across = _matrix(left, width, pixels.shape[3], columns, side, mirrored_columns)
        views = pixels.to(torch.float32) @ across[:, None].mT  # (B, C, H, side)
        views = down[:, None] @ (_levels(views) if dtype == torch.uint8 else views)
        views = _levels(views) if dtype == torch.uint8 else views
        return torch.where(turned[:, None, None, None], views.mT, views)[..., :high, :wide]

    def _of(self, name: str, layout: torch.Tensor) -> torch.Tensor:
        """Return what a table says of layouts, (B, ...); of the only layout there is, (1, ...)."""
        here = layout.device
        if here not in self._tables:
            known = self._tables[torch.device("cpu")].items()
            self._tables[here] = {each: values.to(here) for each, values in known}
        table = self._tables[here][name]
        return table if len(table) == 1 else table[layout]


def _stream(view: int) -> str:
    return f"crop {view}" if view else "crop"


def _between(drawn: Float, low: float, high: float) -> Float:
    return low + drawn * (high - low)


def _levels(values: torch.Tensor) -> torch.Tensor:
    """Round to whole levels in place, halves up."""
    return values.add_(0.5).floor_()


def _interpolated(crop: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return interpolate(crop, size, mode="bilinear", antialias=True, align_corners=False)


def _matrix(
    first: torch.Tensor,
    length: torch.Tensor,
    size: int,
    count: torch.Tensor,
    most: int,
    mirrored: torch.Tensor,
) -> torch.Tensor:
    """Return the matrices (B, most, size) that resize [first, first + length) of each row.

    Antialiased bilinear interpolation, as ``interpolate(antialias=True, align_corners=False)``, to
    `count` (B,) values; rows of the matrices beyond it mean nothing.
    """
    first, length, count, mirrored = (
        value[:, None, None] for value in (first, length, count, mirrored)
    )
    scale = length / count  # (B, 1, 1)
    out = torch.arange(most, device=first.device)[:, None]  # (most, 1)
    out = torch.where(mirrored, count - 1 - out, out)  # (B, most, 1)
    centre = first + (out + 0.5) * scale
    pixel = torch.arange(size, device=first.device)  # (size,)
    weight = 1 - (pixel + 0.5 - centre).abs() / scale.clamp(min=1)  # (B, most, size)
    weight = weight.clamp(min=0) * ((pixel >= first) & (pixel < first + length))
    tiny = torch.finfo(weight.dtype).tiny
    return (weight / weight.sum(dim=-1, keepdim=True).clamp(min=tiny)).to(torch.float32)
