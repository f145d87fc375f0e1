"""Wealth of villages from histograms of Landsat and night lights, one npz file.

The layout is that of `lsms_image_hists.npz` of Yeh et al., "Using publicly available satellite
imagery and deep learning to understand economic well-being in Africa", Nature Communications 2020.
"""

from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    days,
    read_arrays,
    read_from,
    single_target,
)
from hpcgeo.data.sample import Channel, Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target

#: Blue, green, red, SWIR1, SWIR2, thermal, NIR: the order of the file; under the name of Landsat-7,
#: whichever satellite it was.
LANDSAT = tuple(Channel("landsat7", f"B{number}") for number in (1, 2, 3, 5, 7, 6, 4))
#: The last band: of DMSP in surveys before 2012, then of VIIRS. They do not compare.
LIGHTS = (Channel("dmsp", "lights"), Channel("viirs", "DNB"))
VIIRS_SINCE = 2012
FOLDS = {"A": "train", "B": "train", "C": "train", "D": "test"}
#: Places of surveys are moved by up to 5 km so that nobody is found by them.
SPREAD_M = 5_000.0


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the villages of a file; folds A, B and C are the training part, D the test part.

    It has image_hists (N, 8, V), labels (N,), locs (N, 2) as latitude and longitude, years (N,)
    and fold (N,). Imagery is a composite over three years, the survey's is one of them.

    Raises:
        InputError: another target than the one there is, or the file cannot be read.
    """
    single_target(target, "wealth")
    arrays = read_arrays(path, ("image_hists", "labels", "locs", "years", "fold"))
    counts, wealth = arrays["image_hists"], arrays["labels"].astype(np.float32)
    if counts.ndim != 3 or counts.shape[:2] != (len(wealth), 8):
        raise InputError(f"{path}: image_hists is {counts.shape}, not (N, 8, V)")
    unknown = sorted(set(arrays["fold"].tolist()) - set(FOLDS))
    if unknown:
        raise InputError(f"{path}: fold {', '.join(unknown)}; known: {', '.join(FOLDS)}")
    channels = tuple(each._replace(length=counts.shape[2]) for each in (*LANDSAT, *LIGHTS))
    values = np.sqrt(counts.astype(np.float32))
    where = arrays["locs"][:, ::-1].astype(np.float64)
    years = arrays["years"].astype(np.int64)
    return Collection(
        target=Target("regression", ("wealth",)),
        channels=channels,
        splits=np.array([FOLDS[fold] for fold in arrays["fold"].tolist()]),
        groups=np.array([f"{lon:.3f} {lat:.3f}" for lon, lat in where.tolist()]),
        labels=wealth[:, None],
        **read_from([path]),
        load=partial(_load, values, channels, years, where, wealth[:, None]),
        places=where,
    )


def _load(
    values: Float32,
    channels: tuple[Channel, ...],
    years: Int64,
    where: Float64,
    wealth: Float32,
    index: int,
) -> Sample:
    lights = channels[len(LANDSAT) + (years[index] >= VIIRS_SINCE)]
    seen = Observation(
        (*channels[: len(LANDSAT)], lights),
        values[index][None],  # (1, 8, V)
        np.array([composite(int(years[index]))]),
    )
    place = float(where[index, 0]), float(where[index, 1])
    return Sample((seen,), wealth[index], place=place, place_spread_m=SPREAD_M)


def composite(survey: int) -> tuple[float, float]:
    """Return the three years of imagery that a survey's year is one of: 2009 to 2011 and so on."""
    first = survey - (survey - 2009) % 3
    return days(date(first, 1, 1), date(first + 3, 1, 1))
