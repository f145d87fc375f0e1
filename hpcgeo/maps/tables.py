"""Vectors of places as a file: Parquet, that GIS and data frames open, or plain arrays.

Letters: N places, W numbers of a vector.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcgeo.data.sample import Float32
from hpcgeo.errors import InputError
from hpcgeo.files import aside

#: A point in well-known binary: little-endian, of kind 1, x and y.
_POINT = struct.Struct("<BIdd")


@dataclass(frozen=True)
class VectorTable:
    """Vectors of places.

    Attributes:
        columns: by name, (N,) each; `lon` and `lat` in degrees are among them.
        vectors: (N, W).
        about: what they are of, as plain values.
        units: of columns, by name.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    vectors: Float32
    about: Mapping[str, Any]
    units: Mapping[str, str]


def write_table(path: Path, table: VectorTable) -> None:
    """Write a table, whole or not at all, in the form that its ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as partial:
        ENDINGS[path.suffix](partial, table)


def refuse_missing(ending: str) -> None:
    """Refuse a form whose package is not installed.

    Raises:
        InputError: it is not; the message names the extra.
    """
    if ending == ".parquet" and find_spec("pyarrow") is None:
        raise InputError(
            "--format parquet needs pyarrow: pip install 'hpcgeo[tables]', or choose --format npz"
        )


def _npz(path: Path, table: VectorTable) -> None:
    said = json.dumps({"about": table.about, "units": table.units})
    arrays: dict[str, Any] = {**table.columns, "vector": table.vectors, "about": np.array(said)}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _parquet(path: Path, table: VectorTable) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    count, width = table.vectors.shape
    flat = pa.array(np.ascontiguousarray(table.vectors).ravel())
    arrays = {name: pa.array(values) for name, values in table.columns.items()}
    arrays["vector"] = pa.FixedSizeListArray.from_arrays(flat, width)
    about = {"hpcgeo": json.dumps({"about": table.about, "units": table.units})}
    lon, lat = table.columns["lon"], table.columns["lat"]
    if count and np.isfinite(lon).all():
        points = [_POINT.pack(1, 1, *each) for each in zip(lon, lat, strict=True)]
        arrays["geometry"] = pa.array(points, pa.binary())
        about["geo"] = json.dumps(  # GeoParquet 1.1; without a CRS it is longitude and latitude
            {
                "version": "1.1.0",
                "primary_column": "geometry",
                "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
            }
        )
    made = pa.table(arrays).replace_schema_metadata(about)
    parquet.write_table(made, path, compression="zstd")


ENDINGS: dict[str, Callable[[Path, VectorTable], None]] = {".parquet": _parquet, ".npz": _npz}
