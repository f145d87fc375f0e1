"""Coordinates in real units, with real uncertainty, as features for a linear layer.

Every function takes the position and how far it may be off, and returns (..., F) in float32 with
F = `WIDTHS[its name]`. What is NaN is unknown and gives zeros; so does an infinite half-width.
`density` is one of `hpcgeo.models.fourier.encode`. There are no parameters and no buffers.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from hpcgeo.models.fourier import encode, frequencies

#: Mean radius of the Earth (IUGG R1), and the mean year of the Gregorian calendar.
EARTH_M = 6_371_008.8
YEAR_DAYS = 365.2425

#: The shortest wavelength that any band has: where the axis of `spectrum` begins.
SHORTEST_NM = 300.0

#: Dimensions, number of frequencies, lowest and highest (cycles per unit).
_GRIDS = {
    "place": (3, 96, 0.25, EARTH_M / 10_000),  # per Earth radius: half a turn to 10 km
    "spectrum": (1, 24, 1 / 44, 16.0),  # per octave: twice the axis to a red edge band
    "ground": (2, 80, 1 / 200_000, 1.0),  # per metre
    "frame": (2, 64, 0.5, 64.0),  # per frame
    "scale": (1, 12, 1 / 48, 1.0),  # per octave: twice 1 cm ... 100 km to one octave
    "height": (1, 16, 1 / 20_000, 1 / 20),  # per metre
}
#: Cycles per day: absolute time (64 to 2 years), day of year (8 harmonics), hour (2).
_MOMENTS = (
    *(1 / (years * YEAR_DAYS) for years in (64, 32, 16, 8, 4, 2)),
    *(harmonic / YEAR_DAYS for harmonic in range(1, 9)),
    *(1.0, 2.0),
)

#: Features of each function.
WIDTHS = {name: 2 * count for name, (_, count, _, _) in _GRIDS.items()} | {
    "moment": 2 * len(_MOMENTS)
}


@lru_cache(maxsize=64)
def _frequencies(name: str, device: torch.device) -> Tensor:
    if name == "moment":
        return torch.tensor(_MOMENTS, dtype=torch.float64, device="cpu")[:, None].to(device)
    return frequencies(*_GRIDS[name]).to(device)


def _features(name: str, x: Tensor, half_width: Tensor, density: str) -> Tensor:
    return encode(x, half_width, _frequencies(name, x.device), density)


def place(lonlat: Tensor, spread_m: Tensor, density: str = "uniform") -> Tensor:
    """Return features of places, as points on the unit sphere: no seam at 180 degrees.

    Args:
        lonlat: longitude and latitude (..., 2) in degrees.
        spread_m: how far each may be off (...), metres; also along the vertical, which matters
            only where it is no longer small against the Earth.
        density: as of `encode`.
    """
    longitude, latitude = lonlat.double().deg2rad().unbind(-1)
    point = [
        latitude.cos() * longitude.cos(),
        latitude.cos() * longitude.sin(),
        latitude.sin() + 0 * longitude,  # unknown if either is
    ]
    x = torch.stack(point, dim=-1)  # (..., 3)
    half_width = (spread_m.double() / EARTH_M)[..., None].expand(*spread_m.shape, 3)
    return _features("place", x, half_width, density)


def moment(time: Tensor, density: str = "uniform") -> Tensor:
    """Return features of times: absolute, day of year, hour (UTC).

    Args:
        time: centre and half-width (..., 2) in days since 2000-01-01, float64; a composite is as
            wide as it is long, so its hour vanishes.
        density: as of `encode`.
    """
    return _features("moment", time[..., :1], time[..., 1:], density)


def spectrum(wavelength_nm: Tensor, bandwidth_nm: Tensor, density: str = "uniform") -> Tensor:
    """Return features of bands, on an axis of octaves from 300 nm to 1 m.

    Args:
        wavelength_nm: of the middle (...); NaN has none (elevation, weather).
        bandwidth_nm: full width (...); NaN is none stated, taken as zero.
        density: as of `encode`.
    """
    wavelength = wavelength_nm.double()
    # A band that would reach to zero or beyond has its edge at a hundredth of its wavelength.
    edge = (bandwidth_nm.double().nan_to_num(0.0) / (2 * wavelength)).clamp(max=0.99)
    low, high = (wavelength * (1 - edge)).log2(), (wavelength * (1 + edge)).log2()
    octave = (low + high) / 2 - math.log2(SHORTEST_NM)
    return _features("spectrum", octave[..., None], (high - low)[..., None] / 2, density)


def ground(offset_m: Tensor, half_m: Tensor, density: str = "uniform") -> Tensor:
    """Return features of positions on the ground, from the middle of the sample.

    Args:
        offset_m: down and right of it (..., 2), metres.
        half_m: half the footprint of the pixel or token (..., 2), metres.
        density: as of `encode`.
    """
    return _features("ground", offset_m, half_m, density)


def frame(position: Tensor, half: Tensor, density: str = "uniform") -> Tensor:
    """Return features of positions in the frame.

    Args:
        position: down and right (..., 2) in [0, 1].
        half: half the footprint of the pixel or token (..., 2), in the same unit.
        density: as of `encode`.
    """
    return _features("frame", position, half, density)


def scale(gsd_m: Tensor, density: str = "uniform") -> Tensor:
    """Return features of ground sampling distances, on an axis of octaves.

    Args:
        gsd_m: ground sampling distance (...), metres.
        density: as of `encode`; taken so that all are called alike, a distance being exact.
    """
    octave = gsd_m.double().log2()[..., None]
    return _features("scale", octave, torch.zeros_like(octave), density)


def height(metres: Tensor, half: Tensor, density: str = "uniform") -> Tensor:
    """Return features of elevations.

    Args:
        metres: above the reference of the source (...).
        half: how far each may be off (...), metres.
        density: as of `encode`.
    """
    return _features("height", metres[..., None], half[..., None], density)
