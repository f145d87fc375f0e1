"""Series of single pixels in one npz file: Sentinel-2, Sentinel-1, weather and elevation together.

Digital numbers are those of WorldCereal: reflectance = DN / 10000, dB = 20 log10(DN) - 83,
precipitation in 0.01 mm, temperature in 0.01 K; 65535 is missing.
"""

import math
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    days,
    numbered,
    one_of_splits,
    read_arrays,
    read_from,
    reading,
)
from hpcgeo.data.sample import Channel, Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

NODATA = 65535
TARGETS = ("landcover10", "croptype24")
#: Metres of a pixel; 10 m where not named.
GSD_M = {"agera5": 11_132.0, "dem": 30.0}
#: Absolute vertical accuracy of Copernicus DEM GLO-30: below 4 m, linear error at 90 %.
ELEVATION_M = 4.0

_OPTICAL = {
    f"S2-L2A-{band}": Channel("sentinel2", band)
    for band in ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
}
_SAR = {f"S1-SIGMA0-{band}": Channel("sentinel1", band) for band in ("VV", "VH")}
_WEATHER = {
    "AGERA5-PRECIP": Channel("agera5", "precipitation"),
    "AGERA5-TMEAN": Channel("agera5", "temperature"),
}
_TERRAIN = {name: Channel("dem", name) for name in ("elevation", "slope")}


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the pixels of a file whose label is known.

    It has X (N, T, L), bands (L,), time (T,) as first days of months or of ten-day steps, lon, lat,
    block (what shares ground), split, landcover10 and croptype24, where "ignore" is no label.

    Raises:
        InputError: no such target, or the file cannot be read.
    """
    label = find({name: name for name in TARGETS}, target or "", "target")
    names = ("X", "bands", "time", "lon", "lat", "block", "split", label)
    arrays = read_arrays(path, names)
    known = np.flatnonzero(arrays[label] != "ignore")
    classes, labels = numbered(arrays[label][known].tolist())
    channels = {**_OPTICAL, **_SAR, **_WEATHER, **_TERRAIN}
    bands = [find(channels, name, f"band of {path}") for name in arrays["bands"].tolist()]
    with reading(path):
        if arrays["X"].shape[1:] != (len(arrays["time"]), len(bands)):
            raise InputError(f"{path}: X is {arrays['X'].shape}, not (N, time, bands)")
        time = steps([date.fromisoformat(day) for day in arrays["time"].tolist()])
        values = _physical(arrays["X"][known], bands)
        where = np.stack([arrays["lon"][known], arrays["lat"][known]], axis=1).astype(np.float64)
    return Collection(
        target=Target("classification", classes),
        channels=tuple(bands),
        splits=one_of_splits(arrays["split"][known].tolist(), path),
        groups=arrays["block"][known].astype(np.str_),
        labels=labels,
        **read_from([path]),
        load=partial(_load, values, tuple(bands), time, where, labels),
        places=where,
    )


def steps(starts: list[date]) -> Float64:
    """Return centre and half-width of composites by their first days, (T, 2).

    Months where all begin on the first of one, else ten-day steps (1st, 11th, and 21st to the end).

    >>> steps([date(2001, 2, 1), date(2001, 2, 21)])[:, 1]
    array([5., 4.])
    """
    monthly = all(day.day == 1 for day in starts)
    spans = []
    for day in starts:
        if not monthly and day.day not in (1, 11, 21):
            raise InputError(f"time {day}: the first day of a month, or of a ten-day step")
        following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        end = following if monthly or day.day == 21 else day.replace(day=day.day + 10)
        spans.append(days(day, end))
    return np.array(spans)


def _physical(numbers: npt.NDArray[np.generic], bands: list[Channel]) -> Float32:
    """Return digital numbers (N, T, L) in units, NaN where missing."""
    values = np.where(numbers == NODATA, np.nan, numbers).astype(np.float32)
    for number, channel in enumerate(bands):
        column = values[..., number]
        if channel.sensor == "sentinel1":
            column[column <= 0] = np.nan
            column[...] = 20 * np.log10(column) - 83
        elif channel.sensor == "sentinel2":
            column /= 10_000
        elif channel.sensor == "agera5":
            column /= 100
            if channel.band == "temperature":
                column[column == 0] = np.nan  # 0 K: filled, next to missing precipitation
    return values


def _load(
    values: Float32,
    bands: tuple[Channel, ...],
    time: Float64,
    where: Float64,
    labels: Int64,
    index: int,
) -> Sample:
    series = values[index]  # (T, L)
    observations = []
    elevation = math.nan
    for sensor in dict.fromkeys(channel.sensor for channel in bands):
        mine = [number for number, channel in enumerate(bands) if channel.sensor == sensor]
        seen, when = series[:, mine], time
        if sensor == "dem":
            seen, when = _first_known(seen), np.array([[0.0, np.inf]])
        observations.append(
            Observation(
                tuple(bands[number] for number in mine),
                seen[:, :, None, None],  # (T, L, 1, 1)
                when,
                gsd_m=GSD_M.get(sensor, 10.0),
            )
        )
        if sensor == "dem" and Channel("dem", "elevation") in observations[-1].channels:
            elevation = float(seen[0, observations[-1].channels.index(Channel("dem", "elevation"))])
    return Sample(
        tuple(observations),
        labels[index],
        place=(float(where[index, 0]), float(where[index, 1])),
        elevation_m=(elevation, ELEVATION_M),
    )


def _first_known(series: Float32) -> Float32:
    """Return (1, L): the first value of each band (T, L) that is not missing."""
    first = np.isfinite(series).argmax(axis=0)
    return series[first, np.arange(series.shape[1])][None]
