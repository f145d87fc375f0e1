"""Places, times, bands, pixels and heights as features: units, seams, spreads, the unknown."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.models import coordinates
from hpcgeo.models.coordinates import (
    EARTH_M,
    WIDTHS,
    YEAR_DAYS,
    frame,
    ground,
    height,
    moment,
    place,
    scale,
    spectrum,
)
from hpcgeo.sensors import sensor

NAN = math.nan


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def at(longitude, latitude, spread_m=0.0):
    return place(values(longitude, latitude), values(spread_m)[0])


def time(centre, half=0.0):
    """Return features of absolute time, day of year and hour, each (sines, cosines)."""
    sine, cosine = moment(values(centre, half)).chunk(2)
    return [
        torch.cat([one, two])
        for one, two in zip(sine.split([6, 8, 2]), cosine.split([6, 8, 2]), strict=True)
    ]


#: A known position and its spread, and the same with parts unknown, for each function.
POSITIONS = {
    "place": ((values(8.5, 47.4), values(30.0)[0]), [(values(NAN, 47.4), values(30.0)[0])]),
    "moment": ((values(9000.3, 0.1),), [(values(NAN, 0.1),), (values(9000.3, math.inf),)]),
    "spectrum": ((values(665.0), values(30.0)), [(values(NAN), values(30.0))]),
    "ground": ((values(15.0, -25.0), values(5.0, 5.0)), [(values(NAN, NAN), values(5.0, 5.0))]),
    "frame": ((values(0.3, 0.6), values(0.01, 0.01)), [(values(NAN, NAN), values(0.01, 0.01))]),
    "scale": ((values(10.0),), [(values(NAN),)]),
    "height": ((values(812.0), values(15.0)), [(values(NAN), values(15.0))]),
}
POSITIONS["place"][1].extend(
    [(values(8.5, NAN), values(30.0)[0]), (values(8.5, 47.4), values(NAN)[0])]
)


@pytest.mark.parametrize("name", WIDTHS)
def test_shapes(name):
    """(..., F) in float32, whatever stands in front."""
    function, (known, _) = getattr(coordinates, name), POSITIONS[name]
    one = function(*known)
    assert one.dtype == torch.float32
    assert one.shape[-1] == WIDTHS[name]
    many = function(*(part.expand(4, 3, *part.shape) for part in known))
    assert many.shape == (4, 3, *one.shape)
    assert torch.equal(many[2, 1], one)
    assert (one != 0).any()


@pytest.mark.parametrize("name", WIDTHS)
def test_the_unknown_is_zero(name):
    for unknown in POSITIONS[name][1]:
        assert not getattr(coordinates, name)(*unknown).any()


@pytest.mark.parametrize("name", sorted(set(WIDTHS) - {"scale"}))
def test_the_spread_is_the_callers(name):
    function, (known, _) = getattr(coordinates, name), POSITIONS[name]
    found = [function(*known, density=density) for density in ("uniform", "normal", "1 + u")]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@given(latitude=st.floats(-90, 90))
def test_no_seam_at_180_degrees(latitude):
    assert torch.allclose(at(180.0, latitude), at(-180.0, latitude), atol=1e-6)
    step = (at(179.9999, latitude) - at(-179.9999, latitude)).abs().max()
    elsewhere = (at(89.9999, latitude) - at(90.0001, latitude)).abs().max()
    assert step < 0.2
    assert elsewhere < 0.2


@pytest.mark.parametrize("latitude", [-90.0, 90.0])
def test_a_pole_has_no_longitude(latitude):
    assert torch.allclose(at(0.0, latitude), at(123.0, latitude), atol=1e-6)
    assert not torch.allclose(at(0.0, latitude), at(0.0, -latitude), atol=0.1)


def test_the_coarsest_wave_is_half_a_turn():
    """From pole to pole the first feature rises from -1 to 1, as sin(pi / 2 sin(latitude))."""
    for latitude in (-90.0, -30.0, 0.0, 45.0, 90.0):
        expected = math.sin(math.pi / 2 * math.sin(math.radians(latitude)))
        assert at(77.0, latitude)[0].item() == pytest.approx(expected, abs=1e-6)


def test_places_are_told_apart():
    """Ten kilometres apart, and at the antipode; nearer than 100 m is nearly the same."""
    here = at(8.5, 47.4)
    degrees = 10_000 / EARTH_M * 180 / math.pi
    assert (here - at(8.5, 47.4 + degrees)).abs().max() > 1
    assert (here - at(-171.5, -47.4)).abs().max() > 1
    assert (here - at(8.5, 47.4 + degrees / 1000)).abs().max() < 0.01


def test_an_uncertain_place_keeps_its_region():
    """Known to 300 km: fine waves vanish, coarse ones are what they were."""
    sharp, vague = (at(8.5, 47.4, spread_m).view(2, -1) for spread_m in (0.0, 300_000.0))
    assert (sharp[:, :15] - vague[:, :15]).abs().max() < 0.05
    assert vague[:, -15:].abs().max() < 0.1 < sharp[:, -15:].abs().max()


def test_a_composite_has_no_hour():
    """Nor has a year a season; each keeps what it is long enough for."""
    noon = time(9000.5)
    month, year = time(9000.5, 365.2425 / 24), time(9000.5, YEAR_DAYS / 2)
    assert month[2].abs().max() < 0.011  # at most 1 / (2 pi half-width)
    assert time(9000.5, 15.0)[2].abs().max() < 1e-6  # whole days
    assert (month[1][:2] - noon[1][:2]).abs().max() < 0.06
    assert year[1].abs().max() < 1e-6
    assert (year[0][:5] - noon[0][:5]).abs().max() < 0.1
    assert noon[2].abs().max() == 1


@given(centre=st.floats(-20_000, 20_000), years=st.integers(-40, 40))
def test_a_year_later_is_the_same_day(centre, years):
    now, then = time(centre), time(centre + years * YEAR_DAYS)
    assert torch.allclose(now[1], then[1], atol=1e-6)
    if years % 64:
        assert not torch.allclose(now[0], then[0], atol=1e-3)


def test_a_day_later_is_the_same_hour_and_a_minute_is_seen():
    """Half a century from the origin, where float32 has lost the minutes."""
    day = 18_262.25
    assert torch.allclose(time(day)[2], time(day + 1)[2], atol=1e-6)
    minute = (time(day + 1 / 1440)[2] - time(day)[2]).abs().max()
    assert minute.item() == pytest.approx(math.sin(4 * math.pi / 1440), rel=1e-4)


def test_absolute_time_does_not_repeat_within_64_years():
    weeks = torch.arange(0, 64 * YEAR_DAYS, 7, dtype=torch.float64)
    features = moment(torch.stack([weeks, torch.zeros_like(weeks)], 1))
    sine, cosine = features.chunk(2, dim=1)
    absolute = torch.cat([sine[:, :6], cosine[:, :6]], 1)[::8]
    distances = torch.cdist(absolute, absolute) + torch.eye(len(absolute))
    assert distances.min() > 0.05


def test_a_band_is_the_average_over_its_octaves():
    """Against 20,000 narrow bands between its edges, evenly spaced on the logarithmic axis."""
    low, high = 500.0, 900.0
    steps = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    inside = low * (high / low) ** steps
    expected = spectrum(inside, torch.zeros_like(inside)).double().mean(0)
    found = spectrum(values((low + high) / 2), values(high - low))[0]
    assert (found - expected).abs().max() < 1e-6


def test_bands():
    """Neighbours of one sensor differ, a stated width blurs, a missing one is none."""
    red, edge = (sensor("sentinel2").bands[number] for number in (4, 5))
    one, two = (spectrum(values(band.wavelength_nm), values(15.0)) for band in (red, edge))
    assert (one - two).abs().max() > 0.3
    radar = values(5.5e7)
    assert torch.equal(spectrum(radar, values(NAN)), spectrum(radar, values(0.0)))
    assert spectrum(values(700.0), values(400.0)).norm() < 0.8 * spectrum(radar, values(0.0)).norm()
    # Wider than twice its middle: still a band.
    assert spectrum(values(1000.0), values(2500.0)).abs().max() > 0.5


@pytest.mark.parametrize("function", [ground, frame])
def test_the_footprint_is_the_spread(function):
    """A token's features are the mean of those of its 16 x 16 pixels."""
    side = 16.0 if function is ground else 0.25
    steps = side * ((torch.arange(16, dtype=torch.float64) + 0.5) / 16 - 0.5)
    pixels = torch.cartesian_prod(steps, steps) + side
    small = torch.full_like(pixels, side / 32)
    token = function(values(side, side), values(side / 2, side / 2))
    assert (function(pixels, small).double().mean(0) - token).abs().max() < 1e-6


def test_a_metre_is_seen_by_fine_pixels_only():
    spots = values(0.0, 1.0)[:, None] * values(0.3, 0.4)
    for half, seen in ((0.05, True), (30.0, False)):
        one, two = ground(spots, torch.full_like(spots, half))
        assert ((one - two).abs().max() > 0.1) == seen


def test_scales_and_heights():
    scales = scale(values(0.05, 0.3, 10.0, 20.0, 250.0))
    assert (torch.cdist(scales, scales) + 9 * torch.eye(5)).min() > 0.5
    heights = height(values(-400.0, 0.0, 20.0, 3000.0, 8000.0), torch.full((5,), 1.0))
    assert (torch.cdist(heights, heights) + 9 * torch.eye(5)).min() > 0.5
    vague = height(values(3000.0), values(1000.0))
    assert vague.norm() < 0.7 * heights[3].norm()
