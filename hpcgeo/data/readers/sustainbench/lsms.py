"""Change of wealth between two surveys of a place (LSMS), SustainBench's poverty over time.

Read in its repository: the two tables of labels (dataset_preprocessing/dhs_lsms/lsms_utils). Not
documented there, so chosen here: where the images lie, `et_2011/<ea_id>.npz`, each as in `dhs`, and
the parts, three, one and one fifth of the places in an order without meaning.
"""

from functools import partial
from pathlib import Path

import numpy as np

from hpcgeo.data.readers.collection import (
    Collection,
    Frame,
    Int64,
    read_from,
    read_table,
    reading,
    without_meaning,
)
from hpcgeo.data.readers.histograms import LANDSAT, LIGHTS, SPREAD_M
from hpcgeo.data.readers.sustainbench.dhs import observe
from hpcgeo.data.sample import Float32, Float64, Sample
from hpcgeo.errors import InputError
from hpcgeo.kinds.target import Target
from hpcgeo.tables import find

#: SustainBench's names of the labels, and the columns they are.
TARGETS = {"indexOfDiff": "asset_index_diff", "diffOfIndex": "asset_index"}
#: Fewer households than this are no label.
HOUSEHOLDS = 3

_PARTS = ("train", "train", "train", "validation", "test")


def collect(path: Path, target: str | None, frame: Frame) -> Collection:
    """Return the pairs of surveys of a folder; the place is known to `SPREAD_M`.

    Raises:
        InputError: no such target, or a table cannot be read.
    """
    name = target or "indexOfDiff"
    column = find(TARGETS, name, "target")
    changes = path / "asset_infrstructure_indicies_lsms_over_time.csv"
    surveys = path / "asset_infrstructure_indicies_lsms.csv"
    key = ("country", "ea_id")
    rows = read_table(changes, (*key, "year.x", "year.y", column, "n"))
    with reading(changes):
        rows = [row for row in rows if int(row["n"]) >= HOUSEHOLDS]
        numbers = np.array([[float(row[column])] for row in rows], dtype=np.float32)
        years = np.array([[int(row["year.x"]), int(row["year.y"])] for row in rows])
    where = {
        (row["country"], row["ea_id"]): (row["lon"], row["lat"])
        for row in read_table(surveys, (*key, "lon", "lat"))
    }
    areas = [(row["country"], row["ea_id"]) for row in rows]
    for country, area in areas:
        if (country, area) not in where:
            raise InputError(f"{surveys}: no row of {country} {area}, which {changes.name} has")
    with reading(surveys):
        places = np.array([where[area] for area in areas], dtype=np.float64)
    groups = [f"{country} {area}" for country, area in areas]
    part = {
        group: _PARTS[number % len(_PARTS)]
        for number, group in enumerate(without_meaning(sorted(set(groups))))
    }
    return Collection(
        target=Target("regression", (name,)),
        channels=(*LANDSAT, *LIGHTS),
        splits=np.array([part[group] for group in groups]),
        groups=np.array(groups),
        labels=numbers,
        **read_from([], [changes, surveys]),
        load=partial(_load, path, areas, years, places, numbers, frame),
    )


def _load(
    folder: Path,
    areas: list[tuple[str, str]],
    years: Int64,
    places: Float64,
    numbers: Float32,
    frame: Frame,
    index: int,
) -> Sample:
    country, area = areas[index]
    lon, lat = places[index].tolist()
    seen = tuple(
        observe(folder / f"{country}_{year}" / f"{area}.npz", year, lat, frame)
        for year in years[index].tolist()
    )
    return Sample(seen, numbers[index], place=(lon, lat), place_spread_m=SPREAD_M)
