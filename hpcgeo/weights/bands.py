"""Weights for other bands than they were trained on: which band stands for which, by wavelength."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hpcgeo.config import RunConfig
from hpcgeo.data.readers.shards import named
from hpcgeo.data.sample import Channel
from hpcgeo.data.shards.dataset import open_dataset
from hpcgeo.errors import InputError
from hpcgeo.options import Data
from hpcgeo.sensors import sensors
from hpcgeo.weights.export import config_of
from hpcgeo.weights.public import public

#: Wavelengths of a band that stands for another differ by less than this fraction.
NEAR = 0.1


def matching(wanted: Channel, there: Sequence[Channel]) -> Channel | None:
    """Return the band that is meant, or the one nearest to it in wavelength; None: none is near."""
    if wanted in there:
        return wanted
    length = _wavelength(wanted)
    off = {}
    for one in there:
        other = _wavelength(one)
        if length and other and one.length == 0:
            off[one] = abs(other - length) / length
    best = min(off, key=off.__getitem__, default=None)
    return best if best is not None and off[best] < NEAR else None


def differ(mine: Sequence[Channel], theirs: Sequence[Channel]) -> bool:
    """Whether a model reads other bands than a file: another number, or, where all wavelengths are
    known, other ones."""
    if len(mine) != len(theirs):
        return True
    known = all(_wavelength(band) for band in (*mine, *theirs))
    return known and [matching(band, theirs) for band in mine] != list(theirs)


def shares(mine: Sequence[Channel], theirs: Sequence[Channel]) -> Tensor:
    """Return how much of the kernel of each band of a file each band of a model takes, (C, C').

    A band takes the kernel of the one that `matching` finds, or else the mean of all; the whole is
    scaled by C' / C, so that what a patch becomes keeps its size (timm's rule for other numbers of
    bands, with wavelengths in the place of repetition).
    """
    found = torch.full((len(mine), len(theirs)), 1 / len(theirs))
    for row, band in enumerate(mine):
        if (one := matching(band, theirs)) is not None:
            found[row] = 0
            found[row, list(theirs).index(one)] = 1
    return found * len(theirs) / len(mine)


def told(mine: Sequence[Channel], theirs: Sequence[Channel]) -> str:
    """Say which band takes the kernel of which."""
    return ", ".join(
        f"{band.band} from {'the mean of all' if one is None else one.band}"
        for band in mine
        for one in [matching(band, theirs)]
    )


def bands_of(path: Path, model: str) -> tuple[Channel, ...]:
    """Return the bands that the weights of a file, an export or a run read; (): not known.

    Args:
        model: its name; of public weights, those of all rows with it.
    """
    if (path / "config.yaml").is_file():
        return _of_run(config_of(path))
    file = path / "model.safetensors" if path.is_dir() else path
    said = metadata(file)
    if "bands" in said:
        return named(said.get("sensor"), tuple(json.loads(said["bands"])))
    found = {(row.sensor, row.bands) for row in public().values() if row.model == model}
    if len(found) != 1 or "hpcgeo" in said:
        return ()
    [(sensor, bands)] = found
    return tuple(Channel(sensor, band) for band in bands)


def _of_run(run: RunConfig) -> tuple[Channel, ...]:
    if not isinstance(run.data, Data):
        return ()
    try:
        data = open_dataset(run.data)
    except InputError:  # it lies elsewhere now
        return ()
    return named(data.sensor, data.bands)


def metadata(file: Path) -> Mapping[str, str]:
    """Return what a file of safetensors says of itself; nothing, where it is none."""
    try:
        with safe_open(file, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _wavelength(channel: Channel) -> float | None:
    sensor = sensors().get(channel.sensor)
    bands = {band.name: band for band in sensor.bands} if sensor else {}
    return bands[channel.band].wavelength_nm if channel.band in bands else None
