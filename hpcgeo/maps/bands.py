"""Which bands of a file are those that a model was trained on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rasterio.io import DatasetReader

from hpcgeo.data.sample import UNKNOWN_SENSOR, Channel
from hpcgeo.errors import InputError
from hpcgeo.sensors import spelled
from hpcgeo.tables import brief, find

#: What --bands calls a band that is not read.
LEFT_OUT = "-"
#: What files call the bands of a photograph, by those of the sensor of photographs.
COLOURS = {"R": "red", "G": "green", "B": "blue"}
#: A description that names no band, but counts it.
NUMBERED = re.compile(r"(band|layer|channel)?[ _-]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class BandNames:
    """What the user says of the bands of files.

    Attributes:
        sensor: whose they are; None: of the only sensor of the task.
        names: in the order of the file, `LEFT_OUT` for one that is not read; None: as it says.
    """

    sensor: str | None = None
    names: tuple[str, ...] | None = None


def sensor_channels(channels: Sequence[Channel], said: BandNames) -> tuple[Channel, ...]:
    """Return the images of one sensor that a task knows.

    Raises:
        InputError: the task knows several sensors, or not the one that is named.
    """
    images = [channel for channel in channels if not channel.length]
    known = list(dict.fromkeys(channel.sensor for channel in images))
    if not known:
        raise InputError("the task was trained on vectors, not on images: there is nothing to map")
    if said.sensor is None and len(known) > 1:
        raise InputError(
            f"the task was trained on {', '.join(known)}: say whose bands the scenes hold "
            f"(--sensor), or name all rasters of a place in a samples.yaml"
        )
    wanted = said.sensor or known[0]
    find(dict.fromkeys(known), wanted, "sensor of the task")
    return tuple(channel for channel in images if channel.sensor == wanted)


def numbers(raster: DatasetReader, channels: Sequence[Channel], said: BandNames) -> tuple[int, ...]:
    """Return the number of each channel of a sensor in a file, from 1.

    Raises:
        InputError: bands are missing, or nothing says which they are.
    """
    wanted = [channel.band for channel in channels]
    found = _said(raster, wanted, said.names) if said.names else _described(raster, channels)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(_refusal(raster, channels, missing))
    return tuple(found[name] for name in wanted)


def _said(raster: DatasetReader, wanted: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    if len(names) != raster.count:
        raise InputError(
            f"{raster.name}: {raster.count} bands, and --bands names {len(names)} "
            f"({','.join(names)}): name all in their order, {LEFT_OUT} for one that is not read"
        )
    short = {colour: name for name, colour in COLOURS.items() if name in wanted}
    names = [short.get(name, name) for name in names]
    for name in names:
        if name != LEFT_OUT:
            find(dict.fromkeys([*wanted, LEFT_OUT]), name, "band of the task")
    return {name: number for number, name in enumerate(names, 1) if name != LEFT_OUT}


def _described(raster: DatasetReader, channels: Sequence[Channel]) -> dict[str, int]:
    """Return the bands that descriptions name, or the colours of a photograph."""
    wanted = [channel.band for channel in channels]
    found: dict[str, int] = {}
    for number, text in enumerate(raster.descriptions, 1):
        for word in (text or "", *re.split(r"[^0-9A-Za-z]+", text or "")):
            name = spelled(word, wanted) if word else None
            if name:
                found.setdefault(name, number)
                break
    named = any(text and not NUMBERED.fullmatch(text) for text in raster.descriptions)
    if named or channels[0].sensor not in ("rgb", UNKNOWN_SENSOR):
        return found
    colours = [colour.name for colour in raster.colorinterp]
    for name in wanted:
        colour = COLOURS.get(name, name)
        if colours.count(colour) == 1:
            found[name] = colours.index(colour) + 1
    return found


def _refusal(raster: DatasetReader, channels: Sequence[Channel], missing: Sequence[str]) -> str:
    there = [text or f"band {number}" for number, text in enumerate(raster.descriptions, 1)]
    wanted = ",".join(channel.band for channel in channels)
    way_out = f"name its {raster.count} bands in their order with --bands (of {wanted}; "
    way_out += f"{LEFT_OUT} for one that is not read)"
    if raster.count == len(channels):
        way_out = f"--bands {wanted}, if that is their order"
    elif raster.count < len(channels):
        way_out = "the model needs them all"
    return (
        f"{raster.name}: no band {', '.join(missing)} of {channels[0].sensor} among its "
        f"{brief(', '.join(there))}: {way_out}"
    )
