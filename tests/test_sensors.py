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
    "modis_temperature": 2,
    "rgb": 3,
    "dem": 2,
    "agera5": 2,
    "dmsp": 1,
    "viirs": 1,
    "aerial": 4,
    "era5": 2,
    "worldview3": 8,
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
    assert [band.polarisation for band in sensor("sentinel1").bands] == ["VV", "VH", "HH", "HV"]
    assert sensor("modis").bands[1] == Band("B02", 858.5, 35, 250)
    assert sensor("dem").bands[0] == Band("elevation", None, None, 30)


def test_an_unknown_sensor_lists_the_known_ones():
    with pytest.raises(InputError, match=r"sentinel2'\?\); known: sentinel2, sentinel1, landsat5"):
        sensor("sentinel-2")


def test_a_file_of_the_users_adds_sensors_and_bands(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "drone: {title: a, source: b, bands: {edge: [717, 10, 0.1], mast: [null, null, 1]}}\n"
        "naip: {title: a, source: b, bands: {edge: {range: [700, 730], gsd: 1}}}\n"
    )
    assert sensor("drone", path).bands == (Band("edge", 717, 10, 0.1), Band("mast", None, None, 1))
    assert sensor("naip", path).bands == (*sensor("naip").bands, Band("edge", 715, 30, 1))
    assert sensors(path).keys() == {*sensors(), "drone"} and "drone" not in sensors()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("naip: {title: a, source: b, bands: {R: [650, null, 1]}}", "has a band R already"),
        ("drone: {title: a, source: b, bands: {R: [650, 1]}}", "band 'R': .wavelength nm"),
        ("drone: {title: a, source: b, bands: {R: [-650, 1, 1]}}", "band 'R': .wavelength nm"),
        ("drone: {title: a, source: b, bands: {R: [.inf, 1, 1]}}", "band 'R': .wavelength nm"),
        ("drone: {title: a, source: b, bands: {R: {range: [7, 6], gsd: 1}}}", "range: .low"),
        ("drone: {title: a, source: b, bands: {R: [5.5e+7, 1, 1, VX]}}", "VV, VH, HH, HV"),
        ("drone: {title: a, bands: {R: [650, null, 1]}}", "'drone': title, source and bands"),
        ("[drone]", "sensors by name"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_file_of_sensors_is_told(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        sensors(path)
    with pytest.raises(InputError, match=r"none\.yaml: No such file"):
        sensors(tmp_path / "none.yaml")
