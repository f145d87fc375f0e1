"""The readers of labelled data, by name: ours, and those of installed packages (entry points).

A public data set is a reader by its own name: a row of facts/benchmarks.yaml with the module of its
layout.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from hpcgeo.data.readers.benchmarks.facts import benchmarks
from hpcgeo.data.readers.collection import Collection, Frame
from hpcgeo.tables import find_open

_SUSTAINBENCH = ("dhs", "lsms", "land_cover", "brick_kilns", "crop_yield", "fields")

#: The module of each reader by its name; loaded when asked for, as some need GDAL.
READERS = {
    name: f"hpcgeo.data.readers.{name}"
    for name in ("scenes", "tile_masks", "pairs", "pixel_series", "histograms")
}
READERS |= {name: f"hpcgeo.data.readers.sustainbench.{name}" for name in _SUSTAINBENCH}
READERS |= {name: f"hpcgeo.data.readers.{name}" for name in ("rasters", "shards", "generated")}

#: The module of each layout of public data sets.
LAYOUTS = {
    name: f"hpcgeo.data.readers.benchmarks.{name}"
    for name in (
        *("class_folders", "label_tables", "masks", "super_resolution"),
        *("bigearthnet", "fmow", "geo_bench", "fuel_moisture"),
    )
}

#: Lists the samples of a path, for one of its targets, in a frame.
Collect = Callable[[Path, str | None, Frame], Collection]


def reader_of(name: str) -> Collect:
    """Return what lists the samples of a layout: ours, or that of an installed package.

    Raises:
        InputError: nobody has that name; the message lists the known ones.
    """
    if name in READERS:
        layout: Collect = import_module(READERS[name]).collect
        return layout
    if row := benchmarks().get(name):
        return partial(import_module(LAYOUTS[row.layout]).collect, row)
    known = (*READERS, *benchmarks())
    return find_open({}, "hpcgeo.readers", name, "reader", known=known)
