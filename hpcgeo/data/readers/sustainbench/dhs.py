"""Surveys of SustainBench: wealth, health, education, water and sanitation of clusters (DHS).

The layout is the one that SustainBench packs: `dhs_final_labels.csv`, and beside it an npz file per
cluster in a folder per survey, `AL-2008-5#/AL-2008-5#-00000001.npz`, with x (8, 255, 255) whose
rows run from south to north. Read in dataset_preprocessing/dhs_lsms of its repository.
"""

import math
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    days,
    fit,
    read_arrays,
    read_from,
    read_table,
    reading,
    scaled_gsd,
)
from hpcgeo.data.readers.histograms import LANDSAT, LIGHTS, SPREAD_M, VIIRS_SINCE
from hpcgeo.data.sample import Float32, Float64, Observation, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

#: Columns of the table that may be predicted.
TARGETS = (
    *("asset_index", "under5_mort", "women_bmi"),
    *("women_edu", "water_index", "sanitation_index"),
)
#: Countries of each part (SustainBench, table of the DHS splits).
COUNTRIES = {
    "train": "AL BD CD CM GH GU HN IA ID JO KE KM LB LS MA MB MD MM MW MZ NG NI PE PH SN TG TJ UG "
    "ZM ZW",
    "validation": "BF BJ BO CO DR GA GN GY HT NM SL TD TZ",
    "test": "AM AO BU CI EG ET KH KY ML NP PK RW SZ",
}
#: Pixels are 30 m of the web's Mercator map: less on the ground, by the cosine of the latitude.
PIXEL_M = 30.0


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the clusters of a folder that have a label.

    The fingerprint leaves the images out: there are more than a hundred thousand.

    Raises:
        InputError: no such target, a country that is in no part, or the table cannot be read.
    """
    column = find({name: name for name in TARGETS}, target or "", "target")
    table = path / "dhs_final_labels.csv"
    rows = read_table(table, ("DHSID_EA", "year", "lat", "lon", column))
    rows = [row for row in rows if row[column] not in ("", "NA")]
    parts = {name: part for part, names in COUNTRIES.items() for name in names.split()}
    names = [row["DHSID_EA"] for row in rows]
    with reading(table):
        numbers = np.array([[float(row[column])] for row in rows], dtype=np.float32)
        places = np.array([[float(row["lon"]), float(row["lat"])] for row in rows])
        years = np.array([int(float(row["year"])) for row in rows])
    return Collection(
        target=Target("regression", (column,)),
        channels=(*LANDSAT, *LIGHTS),
        splits=np.array([find(parts, name[:2], f"country of {table}") for name in names]),
        groups=np.array(names),
        labels=numbers,
        **read_from([], [table]),
        load=partial(_load, path, names, places, years, numbers, frame),
    )


def _load(
    folder: Path,
    names: list[str],
    places: Float64,
    years: Int64,
    numbers: Float32,
    frame: Frame,
    index: int,
) -> Sample:
    path = folder / names[index][:10] / f"{names[index]}.npz"
    lon, lat = places[index].tolist()
    seen = observe(path, int(years[index]), lat, frame)
    return Sample((seen,), numbers[index], place=(lon, lat), place_spread_m=SPREAD_M)


def observe(path: Path, survey: int, lat: float, frame: Frame) -> Observation:
    """Return the image of a cluster: a composite of three years around that of its survey.

    Raises:
        InputError: it cannot be read, or is not (8, H, W).
    """
    image = read_arrays(path, ("x",))["x"].astype(np.float32)
    if image.ndim != 3 or len(image) != 8:
        raise InputError(f"{path}: x is {image.shape}, not (8, H, W)")
    north_up = np.ascontiguousarray(image[:, ::-1])
    gsd_m = PIXEL_M * math.cos(math.radians(lat))
    return Observation(
        (*LANDSAT, LIGHTS[survey >= VIIRS_SINCE]),
        fit(north_up, frame, path)[None],  # (1, 8, H, W)
        np.array([days(date(survey - 1, 1, 1), date(survey + 2, 1, 1))]),
        gsd_m=scaled_gsd(gsd_m, image.shape[1], frame),
        patch=frame.patch,
    )
