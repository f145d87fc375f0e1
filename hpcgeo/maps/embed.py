"""Features of whole scenes by a frozen encoder: a vector for each chip, or for each patch.

Letters: C bands, W width of the encoder, h x w cells of a tile; a cell is a chip, or a patch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hpcgeo import __version__
from hpcgeo.data.sample import Float32, Sample
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoders import open_encoder
from hpcgeo.evaluate.frozen import together
from hpcgeo.evaluate.image_encoder import DEVIATION, MEAN, ImageEncoder
from hpcgeo.kinds.target import Array, Target
from hpcgeo.maps.asking import Asking
from hpcgeo.maps.blending import Bool
from hpcgeo.maps.geotiff import RasterForm, limited, write_map
from hpcgeo.maps.layers import SceneWords
from hpcgeo.maps.mapper import Mapper, said
from hpcgeo.maps.picture import small
from hpcgeo.maps.reading import SceneReader
from hpcgeo.maps.scenes import scenes
from hpcgeo.maps.tables import VectorTable, refuse_missing, write_table
from hpcgeo.maps.tiles import MOST, USUAL, shared
from hpcgeo.parallel.device import usable_device
from hpcgeo.workloads.preparation import PreparedBand, PreparedTask

#: Pixels on a side of the small scene by which the unit of its numbers is judged.
GLANCE = 256
UNITS = {
    "row": "pixels from the top",
    "column": "pixels from the left",
    "lon": "degrees east, WGS 84",
    "lat": "degrees north, WGS 84",
    "gsd_m": "metres",
    "time": "days since 2000-01-01 UTC; NaN: unknown",
}


@dataclass(frozen=True)
class EmbedOptions:
    """How features are made.

    Attributes:
        per: a vector for each chip, or for each patch.
        form: of the file of chips: parquet or npz.
        block: after which they are taken; None: the last.
        pooling: of the patches of a chip: their mean, or the class token.
        overlap: fraction of a tile that neighbours share, of patches; None: a quarter.
        tile: side of a tile, of a chip; None: that of the encoder.
        batch: tiles of a forward.
        words: what the user says of bands.
        force: make anew what was made otherwise.
    """

    per: Literal["chip", "patch"] = "chip"
    form: Literal["parquet", "npz"] | None = None
    block: int | None = None
    pooling: Literal["mean", "class"] | None = None
    overlap: float | None = None
    tile: int | None = None
    batch: int = 16
    words: SceneWords = field(default_factory=SceneWords)
    force: bool = False


def embed(
    encoder: str,
    named: Sequence[str],
    out: Path,
    options: EmbedOptions,
    *,
    step: int | None = None,
    moved: Sequence[str] = (),
) -> bool:
    """Write features of scenes; every rank calls it. Return whether all could be read.

    Args:
        encoder: see `hpcgeo.evaluate.encoders.open_encoder`.
        named: scenes, see `hpcgeo.maps.scenes.scenes`.
        out: folder of the files.
        options: how they are made.
        step, moved: of a run.

    Raises:
        InputError: encoder, scenes, folder and options do not fit together.
    """
    _refuse_idle(options)
    found = scenes(named, out)
    together(str(out))
    frozen = open_encoder(encoder, step=step, moved=moved)
    if not isinstance(frozen, ImageEncoder):
        raise InputError(f"{encoder}: {frozen.title}; hpcgeo embed takes {ImageEncoder.title}")
    product = FeatureMap(frozen, options)
    with limited():
        return Mapper(out, product, force=options.force).map(found)


def _refuse_idle(options: EmbedOptions) -> None:
    """Refuse options that have no effect, or need what is not installed."""
    chips = options.per == "chip"
    if chips and options.overlap is not None:
        raise InputError(
            f"--overlap {options.overlap:g} has no effect on chips, which lie side by side"
        )
    for name, word in (("format", options.form), ("pool", options.pooling)):
        if not chips and word is not None:
            raise InputError(f"--{name} {word} has no effect on patches, which become a GeoTIFF")
    if options.overlap is not None and not 0 <= options.overlap <= MOST:
        raise InputError(f"--overlap {options.overlap:g}: a fraction from 0 to {MOST:g}")
    if chips:
        refuse_missing(f".{options.form or 'parquet'}")


class FeatureMap:
    """Features of cells; see `hpcgeo.maps.mapper.Product`."""

    every_date = False

    def __init__(self, encoder: ImageEncoder, options: EmbedOptions) -> None:
        """Take an encoder.

        Raises:
            InputError: it has no such block, or cannot read tiles of that size.
        """
        self._encoder, self._per = encoder, options.per
        side = encoder.size if options.tile is None else options.tile
        encoder.architecture.num_patches((side, side))
        self._block = encoder.depth if options.block is None else options.block
        encoder.refuse_block(self._block)
        patch, self.num_outputs = encoder.cell(self._block)
        self._pooling = options.pooling or "mean"
        if self._pooling not in encoder.poolings:
            known = " or ".join(encoder.poolings)
            raise InputError(f"--pool {self._pooling}: {encoder.title} has {known}")
        self.batch, self.words = options.batch, options.words
        if self._per == "chip":
            self.scale, self.tile, self.overlap = side, (1, 1), (0, 0)
            self.ending = f".{options.form or 'parquet'}"
        else:
            fraction = USUAL if options.overlap is None else options.overlap
            cells = side // patch
            both = shared(cells, fraction, 1)
            self.scale, self.tile, self.overlap = patch, (cells, cells), (both, both)
            self.ending = ".tif"
        self.prepared = _prepared(encoder, side)
        self._device = usable_device()
        self.ask = Asking(self._features, self._device)

    def _features(self, samples: Sequence[Sample]) -> Tensor:
        """Return the features of tiles, float32 (b, W, h, w), on the CPU."""
        images = []
        for sample in samples:
            [seen] = sample.observations
            order = [seen.channels.index(channel) for channel in self._encoder.channels]
            images.append(torch.from_numpy(seen.values[0, order]))
        batch = torch.stack(images).to(self._device)  # (b, C, height, width)
        if self._per == "patch":
            [grid] = self._encoder.grids(batch, [self._block])
            return grid.permute(0, 3, 1, 2).cpu()
        [kept] = self._encoder.vectors(batch, [self._block])
        return self._encoder.poolings[self._pooling](kept)[:, :, None, None].cpu()

    def made_with(self) -> dict[str, Any]:
        return (
            self._about() | {"batch": self.batch, "overlap": list(self.overlap)} | said(self.words)
        )

    def _about(self) -> dict[str, Any]:
        encoder = self._encoder
        return {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "per": self._per,
            "block": self._block,
            "pooling": self._pooling if self._per == "chip" else None,
            "tile": self.scale if self._per == "chip" else self.scale * self.tile[0],
            "bands_read": [f"{one.sensor}/{one.band}" for one in encoder.channels],
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "input_unit": encoder.unit,
        }

    def look(self, reader: SceneReader) -> None:
        """Refuse a scene of several images, or whose numbers have another unit."""
        if len(reader.layers) != 1 or len(reader.layers[0].parts) != 1:
            raise InputError(
                f"{self._encoder.name} reads one image, and this is several: give each"
            )
        (layer,) = reader.layers
        missing = [one.band for one in self._encoder.channels if one not in layer.channels]
        if missing:
            raise InputError(f"{self._encoder.name} reads {', '.join(missing)} too: name its bands")
        order = [layer.channels.index(one) for one in self._encoder.channels]
        sides = (min(side, GLANCE) for side in (reader.grid.height, reader.grid.width))
        values = small(
            layer.parts[0].path, layer.parts[0].numbers, order, (next(sides), next(sides))
        )
        moments = zip(self._encoder.mean, self._encoder.std, strict=True)
        for channel, band, (mean, std) in zip(self._encoder.channels, values, moments, strict=True):
            there = band[np.isfinite(band)]
            if not there.size:
                continue
            at, wide = (float(there.mean()) - mean) / std, float(there.std()) / std
            if abs(at) > MEAN or wide > DEVIATION[1]:
                raise InputError(
                    f"band {channel.band} has mean {there.mean():.4g} and deviation "
                    f"{there.std():.4g}, and {self._encoder.name} expects {mean:.4g} and {std:.4g} "
                    f"({self._encoder.unit or 'the unit of its own data'}): bring the scene to "
                    f"that unit (gdal_translate -scale)"
                )

    def encode(self, mean: Float32, there: Bool) -> Array:
        return np.where(there, mean, np.float32(np.nan)).astype(np.float32)

    def write(
        self, path: Path, reader: SceneReader, fingerprint: str, parts: Iterator[tuple[int, Array]]
    ) -> None:
        about = self._about() | {
            "hpcgeo": __version__,
            "scene": " ".join(one.name for one in reader.scene.paths),
            "scene_fingerprint": fingerprint,
        }
        if self._per == "chip":
            write_table(path, self._table(reader, parts, about))
            return
        tags = {f"HPCGEO_{name.upper()}": str(value) for name, value in about.items()}
        bands = tuple(f"feature {number}" for number in range(self.num_outputs))
        form = RasterForm("float32", float("nan"), bands, tags=tags)
        write_map(path, reader.grid.in_cells(self.scale), form, parts)

    def _table(
        self, reader: SceneReader, parts: Iterator[tuple[int, Array]], about: dict[str, Any]
    ) -> VectorTable:
        rows, columns, vectors = [], [], []
        for row, part in parts:  # (W, 1, chips across)
            (there,) = np.nonzero(np.isfinite(part[0, 0]))
            rows += [row] * len(there)
            columns += there.tolist()
            vectors.append(part[:, 0, there].T)
        time, half = reader.layers[0].parts[0].time
        top, left = (np.array(each, np.int64) * self.scale for each in (rows, columns))
        lon, lat, gsd_m = _places(reader, top, left, self.scale)
        count = len(rows)
        found = {"row": top, "column": left, "lon": lon, "lat": lat, "gsd_m": gsd_m}
        found["time"] = np.full(count, time if np.isfinite(half) else np.nan)
        found["scene"] = np.full(count, reader.scene.name)
        return VectorTable(found, np.concatenate(vectors), about, UNITS)


def _places(reader: SceneReader, top: Array, left: Array, side: int) -> tuple[Array, Array, Array]:
    """Return longitude, latitude and metres of a pixel of the middles of chips, (N,) each."""
    found = [
        spot
        for row in np.unique(top).tolist()
        for spot in reader.spots(row, left[top == row].tolist(), (side, side))
    ]
    lon, lat, gsd_m = np.array(found, np.float64).reshape(-1, 3).T
    return lon, lat, gsd_m


def _prepared(encoder: ImageEncoder, side: int) -> PreparedTask:
    """Return how an encoder wants pixels prepared."""
    moments = zip(encoder.channels, encoder.mean, encoder.std, strict=True)
    return PreparedTask(
        target=Target("unlabelled", ()),
        bands=tuple(PreparedBand(*channel, mean, std) for channel, mean, std in moments),
        patch=encoder.architecture.patch,
        chip=(side, side),
        dates=1,
        gsd_m=None,
        timed=True,
        placed=False,
    )
