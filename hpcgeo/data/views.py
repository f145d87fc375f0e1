"""Views of a batch on its device: random crops, flips and rotations, in normalised bands.

A resized crop is two small matrices per sample, one along the rows and one along the columns
(antialiased bilinear interpolation is separable); a flip reverses a matrix, a rotation by 90
degrees transposes the sample and reverses one or the other. So a batch of different views is two
batched matrix products.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hpcgeo.data.loader import ImageBatch
from hpcgeo.data.sampling.order import uniform
from hpcgeo.data.shards.dataset import Dataset
from hpcgeo.options import Augment

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

_TRIES = 10


@dataclass(frozen=True)
class Crops:
    """What is done to each sample; all (B,).

    The crop [top, top + height) x [left, left + width) of the sample is, in this order, transposed,
    resized, and mirrored up-down and left-right.
    """

    top: Int
    left: Int
    height: Int
    width: Int
    transposed: npt.NDArray[np.bool_]
    up_down: npt.NDArray[np.bool_]
    left_right: npt.NDArray[np.bool_]


class Views:
    """Turns batches into the normalised views that a model is fed."""

    def __init__(
        self, dataset: Dataset, chip: tuple[int, int], augment: Augment, seed: int
    ) -> None:
        """Prepare views.

        Args:
            dataset: whose mean, standard deviation and nodata normalise the bands.
            chip: height and width of a view.
            augment: ranges that random views are drawn from.
            seed: of the run.
        """
        self._chip, self._augment, self._seed = chip, augment, seed
        self._nodata = dataset.nodata
        std = np.where(dataset.std > 0, dataset.std, 1)
        self._mean = torch.tensor(dataset.mean, dtype=torch.float32)[:, None, None]  # (C, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32)[:, None, None]  # (C, 1, 1)

    def __call__(self, batch: ImageBatch, device: torch.device, view: int = 0) -> torch.Tensor:
        """Return random views (B, C, h, w), a function of (seed, position) of each sample.

        Args:
            batch: the samples.
            device: of the views.
            view: which of several independent views.
        """
        return self._resize(batch, self.draw(batch, view), device)

    def plain(self, batch: ImageBatch, device: torch.device) -> torch.Tensor:
        """Return the largest centred view (B, C, h, w) of each sample, without augmentation."""
        high, wide = batch.valid.T
        scale = np.minimum(high / self._chip[0], wide / self._chip[1])
        height = np.maximum(1, np.rint(self._chip[0] * scale).astype(np.int64))
        width = np.maximum(1, np.rint(self._chip[1] * scale).astype(np.int64))
        no = np.zeros(len(high), dtype=bool)
        crops = Crops((high - height) // 2, (wide - width) // 2, height, width, no, no, no)
        return self._resize(batch, crops, device)

    def draw(self, batch: ImageBatch, view: int = 0) -> Crops:
        """Return the crops of the random views: area and aspect ratio as in Szegedy et al. 2014,
        section 6, whole pixels, inside the valid part of the sample.
        """
        augment = self._augment
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

    def denormalise(self, views: torch.Tensor) -> torch.Tensor:
        """Return views (B, C, h, w) in the units of the pixels."""
        return views * self._std.to(views.device) + self._mean.to(views.device)

    def _resize(self, batch: ImageBatch, crops: Crops, device: torch.device) -> torch.Tensor:
        pixels = self._normalise(batch.pixels.to(device, non_blocking=True))  # (B, C, H, W)
        views = pixels.new_empty(*pixels.shape[:2], *self._chip)
        high, wide = pixels.shape[2:]
        for turned in (False, True):
            some = np.flatnonzero(crops.transposed == turned)
            if not len(some):
                continue
            rows = crops.top[some], crops.height[some], high
            columns = crops.left[some], crops.width[some], wide
            if turned:
                rows, columns = columns, rows
            down = _matrix(*rows, self._chip[0], crops.up_down[some], device)  # (b, h, H)
            across = _matrix(*columns, self._chip[1], crops.left_right[some], device)  # (b, w, W)
            which = torch.from_numpy(some).to(device)
            part = pixels[which].mT if turned else pixels[which]  # (b, C, H, W)
            views[which] = down[:, None] @ part @ across[:, None].mT  # (b, C, h, w)
        return views

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        values = pixels.to(torch.float32)
        normal = (values - self._mean.to(pixels.device)) / self._std.to(pixels.device)
        if pixels.dtype.is_floating_point:
            return torch.nan_to_num(normal, nan=0.0, posinf=0.0, neginf=0.0)
        if self._nodata is not None:
            normal = torch.where(values == self._nodata, 0.0, normal)
        return normal


def _stream(view: int) -> str:
    return f"crop {view}" if view else "crop"


def _between(drawn: Float, low: float, high: float) -> Float:
    return low + drawn * (high - low)


def _matrix(
    first: Int,
    length: Int,
    size: int,
    size_out: int,
    mirrored: npt.NDArray[np.bool_],
    device: torch.device,
) -> torch.Tensor:
    """Return the matrices (B, size_out, size) that resize [first, first + length) of each row.

    Antialiased bilinear interpolation, as ``interpolate(antialias=True, align_corners=False)``.
    """
    scale = length / size_out  # (B,)
    out = np.arange(size_out)
    out = np.where(mirrored[:, None], out[::-1], out)  # (B, size_out)
    centre = torch.tensor(first[:, None] + (out + 0.5) * scale[:, None], device=device)
    reach = torch.tensor(np.maximum(scale, 1), device=device)[:, None, None]
    begin, end = (
        torch.tensor(edge, device=device)[:, None, None] for edge in (first, first + length)
    )
    pixel = torch.arange(size, device=device)  # (size,)
    weight = 1 - (pixel + 0.5 - centre[:, :, None]).abs() / reach  # (B, size_out, size)
    weight = weight.clamp(min=0) * ((pixel >= begin) & (pixel < end))
    return (weight / weight.sum(dim=-1, keepdim=True)).to(torch.float32)
