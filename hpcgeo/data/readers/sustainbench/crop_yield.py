"""Soybean yield of counties from MODIS histograms over a season, SustainBench's crop yield task.

The layout is the one SustainBench packs: a folder of a country with `train_`, `dev_` and `test_`
`hists.npz` (N, bins, dates, 9), `yields.npz` and `years.npz`, each with one array "data". That bins
come before dates was read in the code that wrote the files; that the two last of the bands are
surface temperature by day and by night, in the documentation but for their order.
"""

from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    days,
    read_arrays,
    read_from,
    reading,
    single_target,
)
from hpcgeo.data.sample import Channel, Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

BANDS = (
    *(Channel("modis", f"B0{number}") for number in range(1, 8)),
    *(Channel("modis_temperature", name) for name in ("day", "night")),
)
FILES = {"train": "train", "validation": "dev", "test": "test"}
#: First days of the seasons in the year before the harvest, by the code that wrote the files.
STARTS = {"argentina": date(2001, 9, 17), "brazil": date(2001, 8, 24)}
STEP_DAYS = 8


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the counties of a folder, whose name is that of the country.

    Raises:
        InputError: another target than the one there is, or a file cannot be read.
    """
    single_target(target, "yield")
    counts, yields, years, splits = [], [], [], []
    files = []
    for part, file in FILES.items():
        paths = [path / f"{file}_{what}.npz" for what in ("hists", "yields", "years")]
        hists, tonnes, harvests = (read_arrays(each, ("data",))["data"] for each in paths)
        if hists.ndim != 4 or hists.shape[3] != len(BANDS) or len(hists) != len(tonnes):
            raise InputError(f"{paths[0]}: data is {hists.shape}, not ({len(tonnes)}, V, T, 9)")
        counts.append(hists.astype(np.float32))
        with reading(paths[1]):
            yields.append(tonnes.astype(np.float32).reshape(-1, 1))
        with reading(paths[2]):
            years.append(harvests.astype(np.int64))
        splits += [part] * len(hists)
        files += paths
    values = np.concatenate(counts)
    numbers = np.concatenate(yields)
    channels = tuple(each._replace(length=values.shape[1]) for each in BANDS)
    return Collection(
        target=Target("regression", ("yield",)),
        channels=channels,
        splits=np.array(splits),
        groups=np.arange(len(values)).astype(np.str_),
        labels=numbers,
        **read_from(files),
        load=partial(_load, values, channels, np.concatenate(years), numbers, path.name),
    )


def season(country: str, harvest: int, num_steps: int) -> Float64:
    """Return centre and half-width of the steps of a season, (num_steps, 2).

    When a season begins in the United States is not stated: the steps are laid around the middle of
    the harvest's year, with a half-width of two months more.
    """
    spread = 0.0
    if country in STARTS:
        first = STARTS[country].replace(year=harvest - 1)
    else:
        first = date(harvest, 7, 2) - timedelta(days=num_steps * STEP_DAYS // 2)
        spread = 60.0
    step = timedelta(days=STEP_DAYS)
    spans = [
        days(first + number * step, first + (number + 1) * step) for number in range(num_steps)
    ]
    return np.array(spans) + np.array([0.0, spread])


def _load(
    values: npt.NDArray[np.float32],
    channels: tuple[Channel, ...],
    years: Int64,
    yields: Float32,
    country: str,
    index: int,
) -> Sample:
    series = np.sqrt(values[index]).transpose(1, 2, 0)  # (V, T, L) to (T, L, V)
    time = season(country, int(years[index]), len(series))
    return Sample((Observation(channels, series, time),), yields[index])
