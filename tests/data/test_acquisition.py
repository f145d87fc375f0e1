"""Time and place: tags, EXIF, file names."""

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcgeo.data.shards.acquisition import NO_TIME, Exif, exif_of, time_of


def seconds(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=timezone.utc).timestamp())


@pytest.mark.parametrize(
    ("tags", "name", "expected"),
    [
        ({"TIFFTAG_DATETIME": "2024:06:01 10:20:30"}, "a.tif", seconds(2024, 6, 1, 10, 20, 30)),
        ({"timestamp": "2015-07-11T10:00:08Z"}, "a.tif", seconds(2015, 7, 11, 10, 0, 8)),
        ({"timestamp": "2015-07-11T10:00:08+02:00"}, "a.tif", seconds(2015, 7, 11, 8, 0, 8)),
        ({"TIFFTAG_DATETIME": "2024:06:01 10:20:30"}, "S2_20090818.tif", seconds(2009, 8, 18)),
        ({"TIFFTAG_DATETIME": "rubbish"}, "x_20090818.tif", seconds(2009, 8, 18)),
        ({}, "S1A__IW___A_20150309T173017_VV.tif", seconds(2015, 3, 9, 17, 30, 17)),
        ({}, "LE07_L2SP_225078_20110306_02_T1_B1.tif", seconds(2011, 3, 6)),
        ({}, "site-2020-02-29.tif", seconds(2020, 2, 29)),
        ({}, "site-2021-02-29.tif", NO_TIME),
        ({}, "19901332.tif", NO_TIME),
        ({}, "tile_120200101.tif", NO_TIME),
        ({}, "1985.tif", NO_TIME),
        ({}, "s2s1_202011.tif", NO_TIME),
    ],
)
def test_time(tags, name, expected):
    assert time_of(tags, Path(name)) == expected


def test_no_time_is_nat():
    assert np.isnat(np.array([NO_TIME]).astype("datetime64[s]"))[0]


def test_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9003] = "2021:03:04 05:06:07"
    exif.get_ifd(0x8769)[0x9011] = "-01:30"
    exif.get_ifd(0x8825).update({1: "S", 2: (45.0, 30.0, 36.0), 3: "W", 4: (14.0, 15.0, 0.0)})
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    found = exif_of(path)
    assert (found.orientation, found.time) == (6, seconds(2021, 3, 4, 6, 36, 7))
    assert (found.lon, found.lat) == pytest.approx((-14.25, -45.51))


def test_exif_of_a_png_is_read_without_decoding(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / "photo.png"
    Image.effect_noise((64, 64), 50).save(path, exif=exif)
    path.write_bytes(path.read_bytes()[:1000])
    assert exif_of(path).orientation == 3


def test_no_exif_is_unknown_not_zero(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name in ("plain.png", "broken.jpg"):
        found = exif_of(tmp_path / name)
        assert np.isnan([found.lon, found.lat]).all()
        assert (found.orientation, found.time) == (1, Exif().time)
