"""Sensors: complete, plausible, and equal to the figures their sources print."""

import pytest

from hpcgeo.errors import InputError
from hpcgeo.sensors import Band, sensor, sensors

COUNTS = {
    "sentinel2": 13,
    "sentinel1": 4,
    "landsat5": 7,
    "landsat7": 8,
    "landsat8": 11,
    "naip": 4,
    "modis": 7,
    "rgb": 3,
    "dem": 1,
}


def test_every_sensor_has_its_bands_and_a_source():
    assert {name: len(row.bands) for name, row in sensors().items()} == COUNTS
    for row in sensors().values():
        assert row.source and row.title
        names = [band.name for band in row.bands]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_numbers_are_numbers_in_nanometres_and_metres(name):
    for band in sensor(name).bands:
        for value in (band.wavelength_nm, band.bandwidth_nm, band.gsd_m):
            assert value is None or (isinstance(value, int | float) and value > 0), band
        if name == "sentinel1":
            assert band.wavelength_nm == pytest.approx(299792458 / 5.405e9 * 1e9, rel=0.01)
        elif band.wavelength_nm is not None:
            assert 400 < band.wavelength_nm < 13_000
            assert (band.bandwidth_nm or 0) < band.wavelength_nm


def test_figures_as_printed():
    bands = {band.name: band for band in sensor("sentinel2").bands}
    assert bands["B08"] == Band("B08", 842, 115, 10)
    assert [band.gsd_m for band in bands.values()].count(10) == 4
    assert [band.gsd_m for band in bands.values()].count(20) == 6
    assert sensor("landsat8").bands[3] == Band("B4", 655, 30, 30)
    assert sensor("modis").bands[1] == Band("B02", 858.5, 35, 250)
    assert sensor("dem").bands == (Band("elevation", None, None, 30),)


def test_an_unknown_sensor_lists_the_known_ones():
    with pytest.raises(InputError, match=r"sentinel2'\?\); known: sentinel2, sentinel1, landsat5"):
        sensor("sentinel-2")
