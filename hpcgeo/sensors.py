"""Sensors as data: what each band sees (wavelength, bandwidth) and how finely (ground sampling)."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from hpcgeo.tables import find, read


@dataclass(frozen=True)
class Band:
    """One band; what its source does not state, or what has no wavelength, is None."""

    name: str
    wavelength_nm: float | None
    bandwidth_nm: float | None
    gsd_m: float | None


@dataclass(frozen=True)
class Sensor:
    """A sensor, its bands in the order of the product, and where they were read."""

    name: str
    title: str
    source: str
    bands: tuple[Band, ...]


@cache
def sensors() -> dict[str, Sensor]:
    """Return every sensor by name."""
    return {
        name: Sensor(
            name=name,
            title=row["title"],
            source=row["source"],
            bands=tuple(_band(band, cells) for band, cells in row["bands"].items()),
        )
        for name, row in read("sensors").items()
    }


def sensor(name: str) -> Sensor:
    """Return one sensor; an unknown name is an InputError that lists the known ones."""
    return find(sensors(), name, "sensor")


def _band(name: str, cells: Any) -> Band:
    if isinstance(cells, dict):
        low, high = cells["range"]
        return Band(name, (low + high) / 2, high - low, cells["gsd"])
    wavelength, bandwidth, gsd = cells
    return Band(name, wavelength, bandwidth, gsd)
