"""Sensors as data: what each band sees (wavelength, bandwidth) and how finely (ground sampling)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hpcgeo.errors import InputError
from hpcgeo.tables import brief, find, own, read

POLARISATIONS = ("VV", "VH", "HH", "HV")

_EXAMPLE = "'drone: {title: Drone, source: its handbook, bands: {red_edge: [717, 10, 0.1]}}'"


@dataclass(frozen=True)
class Band:
    """One band; what its source does not state, or what has no wavelength, is None.

    `polarisation` is that of a radar band, sent and received.
    """

    name: str
    wavelength_nm: float | None
    bandwidth_nm: float | None
    gsd_m: float | None
    polarisation: str | None = None


@dataclass(frozen=True)
class Sensor:
    """A sensor, its bands in the order of the product, and where they were read.

    `unit` is that of the numbers in its usual products; None: there is no usual one.
    """

    name: str
    title: str
    source: str
    bands: tuple[Band, ...]
    unit: str | None = None


@cache
def sensors(extra: Path | None = None) -> dict[str, Sensor]:
    """Return every sensor by name.

    Args:
        extra: a YAML file of the form of `facts/sensors.yaml` with sensors of the user's own, or
            with further bands of known ones.

    Raises:
        InputError: `extra` cannot be read, a row in it is not of that form, or a band is known.
    """
    known = {name: _sensor(name, row) for name, row in read("sensors").items()}
    if extra is None:
        return known
    for name, row in _rows(extra).items():
        mine = _sensor(name, row)
        if name in known:
            taken = {band.name for band in known[name].bands} & {band.name for band in mine.bands}
            if taken:
                raise InputError(
                    f"{extra}: {name} has a band {', '.join(sorted(taken))} already: name the "
                    "sensor otherwise"
                )
            mine = replace(known[name], bands=known[name].bands + mine.bands)
        known[name] = mine
    return known


def sensor(name: str, extra: Path | None = None) -> Sensor:
    """Return one sensor; an unknown name is an InputError that lists the known ones."""
    return find(sensors(extra), name, "sensor")


def spelled(text: str, names: Iterable[str]) -> str | None:
    """Return which of the names of bands a text means; None: none of them.

    Names are known in any case, without zeros (B1 is B01), and as of surface reflectance (SR_B4).

    >>> spelled("sr_b4", ["B04", "B8A"])
    'B04'
    """
    known = {name.lower(): name for name in names}
    short = text.lower().removeprefix("sr_")
    for each in (text.lower(), short, re.sub(r"^b(\d)$", r"b0\1", short)):
        if each in known:
            return known[each]
    return None


def _sensor(name: str, row: Any) -> Sensor:
    bands = tuple(_band(band, cells) for band, cells in row["bands"].items())
    return Sensor(name, row["title"], row["source"], bands, row.get("unit"))


def _band(name: str, cells: Any) -> Band:
    if isinstance(cells, dict):
        low, high = cells["range"]
        return Band(name, (low + high) / 2, high - low, cells["gsd"])
    return Band(name, *cells)


def _rows(path: Path) -> dict[str, Any]:
    """Return the rows of a user's file, each of them of the form that `_sensor` takes."""
    rows = own(path, "sensors")
    if not isinstance(rows, dict):
        raise InputError(f"{path}: sensors by name, e.g. {_EXAMPLE}")
    for name, row in rows.items():
        keys = {"title": str, "source": str, "bands": dict}
        if (
            not isinstance(name, str)
            or not isinstance(row, dict)
            or row.keys() - {"unit"} != keys.keys()
            or not all(isinstance(row[key], kind) for key, kind in keys.items())
            or not isinstance(row.get("unit", ""), str)
        ):
            raise InputError(
                f"{path}: {brief(name)}: title, source and bands, and if you like unit, e.g. "
                f"{_EXAMPLE}"
            )
        for band, cells in row["bands"].items():
            if not isinstance(band, str) or not _is_band(cells):
                raise InputError(
                    f"{path}: {name}: band {brief(band)}: [wavelength nm, bandwidth nm, ground "
                    "sampling m], each above 0 or null, of radar with the polarisation ("
                    f"{', '.join(POLARISATIONS)}) as a fourth, or {{range: [low, high], gsd: m}}"
                )
    return rows


def _is_band(cells: Any) -> bool:
    def length(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value is None or (number and 0 < value < float("inf"))

    if isinstance(cells, dict):
        if cells.keys() != {"range", "gsd"} or not length(cells["gsd"]):
            return False
        limits = cells["range"]
        two = isinstance(limits, list) and len(limits) == 2 and None not in limits
        return two and all(map(length, limits)) and limits[0] < limits[1]
    if not isinstance(cells, list) or len(cells) not in (3, 4):
        return False
    return all(map(length, cells[:3])) and all(cell in POLARISATIONS for cell in cells[3:])
