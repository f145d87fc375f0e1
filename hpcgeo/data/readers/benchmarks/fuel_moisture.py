"""Live fuel moisture of single pixels: NumPy arrays of three months of four sensors in a folder."""

from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.benchmarks.facts import Benchmark, count, split_words
from hpcgeo.data.readers.collection import (
    ANY_TIME,
    Collection,
    Frame,
    Int64,
    days,
    read_from,
    reading,
    single_target,
)
from hpcgeo.data.sample import Channel, Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

#: The columns of `s1_s2_era5_srtm.npy` in their order, None where a column is not read: B9 is not
#: filled, NDVI follows from B4 and B8.
COLUMNS = (
    *(Channel("sentinel1", band) for band in ("VV", "VH")),
    *(Channel("sentinel2", band) for band in ("B02", "B03", "B04", "B05", "B06", "B07", "B08")),
    Channel("sentinel2", "B8A"),
    None,
    *(Channel("sentinel2", band) for band in ("B11", "B12")),
    *(Channel("era5", band) for band in ("temperature", "precipitation")),
    *(Channel("dem", band) for band in ("elevation", "slope")),
    None,
)
CHANNELS = tuple(channel for channel in COLUMNS if channel)
#: Metres of a pixel of each sensor.
GSD_M = {"sentinel1": 10.0, "sentinel2": 10.0, "era5": 27_830.0, "dem": 30.0}
#: Files have months without a year; labels are of 2015 to 2019 (Rao et al. 2020).
MIDDLE_YEAR = 2017
#: Absolute vertical accuracy of SRTM: below 16 m, linear error at 90 %.
ELEVATION_M = 16.0


def collect(row: Benchmark, path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the pixels of a folder, split by site.

    It has s1_s2_era5_srtm.npy (N, 3, 18), month.npy (N, 3) from 0, latlon.npy (N, 2), site.npy,
    is_test.npy and target.npy (N,), percent of dry weight. Months stand in the year 2017, the
    middle of those of the labels, as no file has the year; the land cover is not read.

    Raises:
        InputError: another target than the one there is, or an array that is not there, cannot be
            read or has another shape.
    """
    single_target(target, "moisture")
    names = ("s1_s2_era5_srtm", "month", "latlon", "site", "is_test", "target")
    files = {name: path / f"{name}.npy" for name in names}
    arrays = {}
    for name, file in files.items():
        with reading(file):
            arrays[name] = np.load(file, allow_pickle=False)
    number = len(arrays["target"])
    shapes = ((number, 3, len(COLUMNS)), (number, 3), (number, 2), *[(number,)] * 3)
    for (name, file), shape in zip(files.items(), shapes, strict=True):
        if arrays[name].shape != shape:
            raise InputError(f"{file}: {arrays[name].shape}, not {shape}")
    count(row, number, path)
    words = split_words(row, "folders")
    flags = [str(flag) for flag in arrays["is_test"].tolist()]
    if set(flags) - set(words):
        raise InputError(f"{files['is_test']}: is_test is one of {', '.join(words)}")
    kept = [column for column, channel in enumerate(COLUMNS) if channel]
    moisture = arrays["target"].astype(np.float32)[:, None]
    where = arrays["latlon"][:, ::-1].astype(np.float64)
    return Collection(
        target=Target(row.kind, ("moisture",)),
        channels=CHANNELS,
        splits=np.array([words[flag] for flag in flags]),
        groups=arrays["site"].astype(np.str_),
        labels=moisture,
        **read_from([], list(files.values())),
        load=partial(
            _load,
            _scaled(arrays["s1_s2_era5_srtm"][:, :, kept]),
            arrays["month"].astype(np.int64),
            where,
            moisture,
        ),
        places=where,
    )


def _scaled(values: Float64) -> Float32:
    """Return values (N, T, L) in units: reflectance is stored times 10,000."""
    optical = np.array([channel.sensor == "sentinel2" for channel in CHANNELS])
    return (values / np.where(optical, 10_000, 1)).astype(np.float32)


def months(numbers: list[int]) -> Float64:
    """Return centre and half-width of months (T,), counted from 0, in their order, (T, 2).

    >>> months([11, 0])[:, 1].tolist()
    [15.5, 15.5]
    """
    spans, year, last = [], MIDDLE_YEAR, numbers[0]
    for month in numbers:
        year += month < last
        last = month
        end = date(year + (month + 1) // 12, (month + 1) % 12 + 1, 1)
        spans.append(days(date(year, month + 1, 1), end))
    return np.array(spans)


def _load(values: Float32, when: Int64, where: Float64, moisture: Float32, index: int) -> Sample:
    series, time = values[index], months(when[index].tolist())  # (T, L)
    observations = []
    for sensor, gsd_m in GSD_M.items():
        mine = [number for number, channel in enumerate(CHANNELS) if channel.sensor == sensor]
        still = sensor == "dem"
        observations.append(
            Observation(
                tuple(CHANNELS[number] for number in mine),
                series[: 1 if still else None, mine, None, None],  # (T, L, 1, 1)
                ANY_TIME if still else time,
                gsd_m=gsd_m,
            )
        )
    elevation = float(series[0, CHANNELS.index(Channel("dem", "elevation"))])
    lon, lat = where[index].tolist()
    return Sample(
        tuple(observations), moisture[index], (lon, lat), elevation_m=(elevation, ELEVATION_M)
    )
