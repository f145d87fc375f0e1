"""Sources and chips: whatever a raster is made of, its pixels and its place come out right."""

import math

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, xy
from rasterio.warp import transform

from hpcgeo.data.shards.chips import cut, num_windows
from hpcgeo.data.shards.settings import Settings
from hpcgeo.data.shards.skipped import Skipped, UnusableError
from hpcgeo.data.shards.sources import SourceFile, _of_sensor, find, inspect, passed_over
from hpcgeo.errors import InputError
from hpcgeo.sensors import sensor
from tests.data.rasters import AFFINE, UTM, noise, write_tiff


def ingest(path, **options):
    """Return the source and all its windows (None for those dropped)."""
    options = Settings(**{"chip": 32, **options})
    source = inspect(path.parent, path.name, options)
    assert isinstance(source, SourceFile), source
    windows = num_windows(source, options)
    return source, list(cut(path.parent, source, 0, windows, options))


def skipped(path, **options) -> str:
    result = inspect(path.parent, path.name, Settings(**options))
    assert isinstance(result, Skipped), result
    return result.reason


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32"])
def test_pixels_keep_their_data_type(tmp_path, dtype):
    pixels = noise(5, 70, 41, dtype=dtype)
    path = write_tiff(tmp_path / "a.tif", pixels, list("abcde"), crs=UTM, transform=AFFINE)
    source, chips = ingest(path, min_valid=0)
    assert (source.dtype, source.bands) == (dtype, tuple("abcde"))
    whole = np.zeros_like(pixels)
    for chip in chips:
        (row, column), (height, width) = chip.spot.offset, chip.spot.valid
        assert chip.pixels.dtype == pixels.dtype
        whole[:, row : row + height, column : column + width] = chip.pixels
    assert np.array_equal(whole, pixels)


@settings(max_examples=40)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    chip=st.integers(1, 64),
    overlap=st.integers(0, 63),
)
def test_windows_cover_every_pixel_and_none_is_needless(height, width, chip, overlap):
    options = Settings(chip=chip, overlap=min(overlap, chip - 1))
    source = SourceFile("a", None, height, width, ("x",), (1,), "uint8", None, None, 0)
    one = SourceFile("a", None, 1, width, ("x",), (1,), "uint8", None, None, 0)
    columns = num_windows(one, options)
    rows, rest = divmod(num_windows(source, options), columns)
    assert rest == 0
    for count, size in ((rows, height), (columns, width)):
        assert (count - 1) * options.stride + chip >= size
        assert count == 1 or (count - 2) * options.stride + chip < size


def test_border_chips_know_their_size_and_mostly_empty_ones_are_dropped(tmp_path):
    for size, expected in (((257, 256), [(256, 256), None]), ((242, 256), [(242, 256)])):
        path = tmp_path / f"{size[0]}.png"
        Image.fromarray(noise(*size, 3)).save(path)
        _, chips = ingest(path, chip=256)
        assert [chip and chip.spot.valid for chip in chips] == expected


def test_a_chip_of_one_pixel_and_a_tiny_image(tmp_path):
    Image.fromarray(noise(1, 1)).save(tmp_path / "dot.png")
    assert len(ingest(tmp_path / "dot.png", chip=1)[1]) == 1
    assert ingest(tmp_path / "dot.png", chip=8)[1] == [None]
    assert ingest(tmp_path / "dot.png", chip=8, min_valid=0)[1][0].spot.valid == (1, 1)


@pytest.mark.parametrize(
    ("epsg", "affine", "gsd_m"),
    [
        (32633, AFFINE, 10.0),
        (4326, Affine(1e-4, 0, 14.5, 0, -1e-4, 60.0), None),
        (3857, Affine(10, 0, 1_600_000, 0, -10, 8_399_000), 5.0),  # about 60 north: half as wide
        (2263, Affine(1, 0, 980_000, 0, -1, 200_000), 0.3048),  # feet
        (3031, Affine(1000, 0, -500_000, 0, -1000, 400_000), None),
        (8858, Affine(120, 0, -5_000_000, 0, -120, -3_000_000), 120.0),
        (32633, Affine(7.07, 7.07, 465_000, 7.07, -7.07, 5_080_000), 10.0),  # on its corner
    ],
)
def test_place_and_ground_sampling_agree_with_rasterio(tmp_path, epsg, affine, gsd_m):
    crs = CRS.from_epsg(epsg)
    path = write_tiff(tmp_path / "a.tif", noise(1, 40, 64), ["x"], crs=crs, transform=affine)
    _, chips = ingest(path, chip=32, min_valid=0.2)
    assert len(chips) == 4
    for chip in chips:
        (row, column), (height, width) = chip.spot.offset, chip.spot.valid
        x, y = xy(affine, row + height / 2 - 0.5, column + width / 2 - 0.5)
        (lon,), (lat,) = transform(crs, CRS.from_epsg(4326), [x], [y])
        assert (chip.spot.lon, chip.spot.lat) == pytest.approx((lon, lat), abs=1e-9)
        if gsd_m:
            assert chip.spot.gsd_m == pytest.approx(gsd_m, rel=5e-3)
        elif epsg == 4326:
            across, down = (111_412 * math.cos(math.radians(lat)), 111_412)
            assert chip.spot.gsd_m == pytest.approx(1e-4 * math.sqrt(across * down), rel=3e-3)


def test_a_scene_across_the_date_line(tmp_path):
    affine = Affine(10, 0, 832_000, 0, -10, 5_080_000)  # zone 60 reaches 180 degrees
    path = write_tiff(
        tmp_path / "a.tif", noise(1, 32, 32), ["x"], crs=CRS.from_epsg(32660), transform=affine
    )
    assert ingest(path)[1][0].spot.gsd_m == pytest.approx(10, rel=5e-3)


def test_degrees_from_0_to_360(tmp_path):
    affine = Affine(0.1, 0, 199.0, 0, -0.1, 10.0)
    write_tiff(tmp_path / "a.tif", noise(3, 8, 8), list("ABC"), crs="EPSG:4326", transform=affine)
    source = inspect(tmp_path, "a.tif", Settings(chip=8))
    (chip,) = cut(tmp_path, source, 0, 1, Settings(chip=8))
    assert chip.spot.lon == pytest.approx(199.4 - 360)


def test_ground_control_points_are_a_place(tmp_path):
    corners = [(0, 0, 14.0, 46.0), (0, 64, 14.1, 46.0), (64, 0, 14.0, 45.9), (64, 64, 14.1, 45.9)]
    points = [GroundControlPoint(row, col, x, y) for row, col, x, y in corners]
    path = tmp_path / "a.tif"
    shape = {"count": 1, "height": 64, "width": 64, "dtype": "uint16"}
    known = {"gcps": points, "crs": CRS.from_epsg(4326)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **known) as raster:
        raster.write(noise(1, 64, 64, dtype="uint16"))
        raster.set_band_description(1, "VV")
    _, (chip,) = ingest(path, chip=64)
    assert (chip.spot.lon, chip.spot.lat) == pytest.approx((14.05, 45.95), abs=1e-6)


def test_nodata_counts_as_empty_and_floats_get_nan(tmp_path):
    pixels = noise(2, 32, 96, dtype="float32")
    pixels[:, :, :32] = -9999
    pixels[0, 0, 64] = -9999
    pixels[1, 0, 64] = np.inf
    path = write_tiff(
        tmp_path / "a.tif", pixels, ["x", "y"], crs=UTM, transform=AFFINE, nodata=-9999
    )
    source, chips = ingest(path)
    assert source.nodata is None
    assert chips[0] is None and chips[1].mask.all()
    assert np.isnan(chips[2].pixels[:, 0, 0]).all() and chips[2].mask.sum() == 2 * 32 * 32 - 2
    pixels = noise(2, 32, 96, dtype="uint16")
    pixels[:, :, :32] = 0
    integers = write_tiff(tmp_path / "b.tif", pixels, ["x", "y"], nodata=0)
    source, chips = ingest(integers)
    assert source.nodata == 0 and [chip is None for chip in chips] == [True, False, False]


def test_nodata_may_be_told_but_the_file_comes_first(tmp_path):
    pixels = np.full((1, 32, 32), 7, np.uint8)
    assert ingest(write_tiff(tmp_path / "a.tif", pixels, ["x"]), nodata=7)[1] == [None]
    told = write_tiff(tmp_path / "b.tif", pixels, ["x"], nodata=0)
    assert ingest(told, nodata=7)[0].nodata == 0
    assert "nodata -1 is no uint8" in skipped(tmp_path / "a.tif", nodata=-1)


def test_an_internal_mask_is_obeyed(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[:24] = 255
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tiff(tmp_path / "a.tif", noise(1, 32, 32), ["x"], mask=mask)
    _, (chip,) = ingest(path)
    assert np.array_equal(chip.mask[0], mask > 0) and not chip.pixels[0, 24:].any()


def test_alpha_is_validity_not_a_band(tmp_path):
    rgba = noise(32, 64, 4)
    rgba[..., 3] = 255
    rgba[:, :40, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    source, chips = ingest(tmp_path / "a.png")
    assert source.bands == ("red", "green", "blue") and chips[0] is None
    assert np.array_equal(chips[1].pixels[:, :, 8:], rgba.transpose(2, 0, 1)[:3, :, 40:])
    assert not chips[1].pixels[:, :, :8].any() and not chips[1].mask[:, :, :8].any()
    four, chips = ingest(tmp_path / "a.png", bands=("a", "b", "c", "d"))
    assert four.bands == ("a", "b", "c", "d")
    assert np.array_equal(chips[0].pixels, rgba.transpose(2, 0, 1)[:, :, :32])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "I;16"])
def test_grey_palette_and_deep_images(tmp_path, mode):
    grey = noise(32, 32, dtype="uint16", high=60_000) if mode == "I;16" else noise(32, 32)
    image = Image.fromarray(grey)
    image = image if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.png")
    said = {"bands": ("grey",)} if mode == "1" else {}  # else a mask
    source, (chip,) = ingest(tmp_path / "a.png", **said)
    if mode == "P":
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        assert source.bands == ("red", "green", "blue")
    else:
        expected = np.asarray(image.convert("L") if mode in ("LA", "1") else image)[None]
        assert source.bands == ("grey",)
    assert chip.pixels.dtype == expected.dtype
    if mode == "1":
        expected = expected > 0
    assert np.array_equal(chip.pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright_in_every_window(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    Image.fromarray(noise(50, 90, 3)).save(path, exif=exif, quality=95)
    source, chips = ingest(path, min_valid=0)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path))).transpose(2, 0, 1)
    assert (source.height, source.width) == expected.shape[1:]
    for chip in chips:
        (row, column), (height, width) = chip.spot.offset, chip.spot.valid
        part = expected[:, row : row + height, column : column + width]
        assert np.array_equal(chip.pixels, part)


def test_band_order(tmp_path):
    four = noise(4, 16, 16, dtype="uint16")
    path = write_tiff(tmp_path / "a.tif", four, crs=UTM, transform=AFFINE)
    assert skipped(path).startswith("band order unknown: 4 bands without descriptions; pass --sen")
    assert ingest(path, chip=16, sensor="naip")[0].bands == ("R", "G", "B", "NIR")
    assert ingest(path, chip=16, bands=tuple("abcd"))[0].bands == tuple("abcd")
    assert "it has 4, 3 are named" in skipped(path, bands=tuple("abc"))
    part = write_tiff(tmp_path / "b.tif", four, ["B04", "B03", "B02", "B08"])
    source = ingest(part, chip=16, sensor="sentinel2")[0]
    assert (source.sensor, source.bands) == ("sentinel2", ("B04", "B03", "B02", "B08"))
    rgb = write_tiff(tmp_path / "c.tif", noise(3, 16, 16), photometric="RGB")
    assert ingest(rgb, chip=16)[0].bands == ("red", "green", "blue")
    with pytest.raises(InputError, match="sentinel2 has B01"):
        Settings(sensor="sentinel2", bands=("B04", "red"))


def test_a_fourth_band_of_bytes_is_not_taken_for_alpha(tmp_path):
    """GDAL calls any fourth band of bytes alpha; a Landsat composite is not red, green, blue."""
    path = write_tiff(tmp_path / "a.tif", noise(4, 64, 64), crs=UTM, transform=AFFINE)
    with rasterio.open(path) as raster:
        assert raster.colorinterp[3] == ColorInterp.alpha
    assert "band order unknown" in skipped(path)
    pixels = noise(4, 64, 64)
    pixels[3] = 255
    path = write_tiff(tmp_path / "b.tif", pixels, crs=UTM, transform=AFFINE)
    assert ingest(path)[0].bands == ("red", "green", "blue")


def test_what_cannot_be_used_says_why(tmp_path):
    pixels = noise(1, 16, 16)
    no_crs = write_tiff(tmp_path / "a.tif", pixels, ["x"], transform=AFFINE)
    assert "scene without CRS" in skipped(no_crs)
    complex_ = write_tiff(tmp_path / "b.tif", pixels.astype("complex64"), ["x"])
    assert "complex64 pixels" in skipped(complex_)
    (tmp_path / "c.tif").write_bytes(b"II*\0 nothing")
    assert "broken" in skipped(tmp_path / "c.tif")
    (tmp_path / "d.png").write_bytes(b"")
    assert "broken" in skipped(tmp_path / "d.png")
    local = 'LOCAL_CS["building site",UNIT["metre",1]]'
    site = write_tiff(tmp_path / "e.tif", pixels, ["x"], crs=CRS.from_wkt(local), transform=AFFINE)
    assert "longitude and latitude" in skipped(site)
    for reason in map(skipped, sorted(tmp_path.glob("*"))):
        assert "\n" not in reason and str(tmp_path) not in reason


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_broken_pixels_are_unusable(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        write_tiff(path, noise(3, 256, 256), ["r", "g", "b"], compress="deflate")
    else:
        Image.fromarray(noise(256, 256, 3)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(UnusableError, match="broken"):
            ingest(path)
    except AssertionError:  # the header was lost with the tail: skipped even earlier
        assert "broken" in skipped(path)


def test_find_is_sorted_and_leaves_other_files_out(tmp_path):
    for name in ("b/2.PNG", "a/1.jpeg", "c.tiff", "notes.txt", ".hidden/x.png", "a/._1.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [file.path for file in find(tmp_path).images] == ["a/1.jpeg", "b/2.PNG", "c.tiff"]
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "x").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "y").symlink_to(tmp_path / "a")
    assert [file.path for file in find(tmp_path).images] == ["a/1.jpeg", "b/2.PNG", "c.tiff"]
    for folder in (tmp_path / "none", tmp_path / ".hidden" / "deeper"):
        with pytest.raises(InputError, match="no such folder"):
            find(folder)


def test_what_is_passed_over_is_counted_by_ending(tmp_path):
    for name in ("a.jpg", "b.webp", "sub/c.WEBP", "d.bmp", "README", ".hidden.bmp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for number in range(3):
        (tmp_path / f"{number}.png").symlink_to(tmp_path / "nowhere.png")
    others = find(tmp_path).others
    assert passed_over(others) == "3 dangling links, 2 .webp, 1 .bmp, 1 without ending"
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(
        InputError, match=r"no image in it, but 3 dangling links, 2 \.webp.*known: "
    ):
        find(tmp_path)


def test_links_to_other_folders_are_followed_once(tmp_path):
    """Also where those link to each other, or back."""
    for name in ("in", "out/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out" / "deep" / "1.png").touch()
    (tmp_path / "in" / "a").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "out" / "self").symlink_to(tmp_path / "out")
    assert [file.path for file in find(tmp_path / "in").images] == ["a/deep/1.png"]


def test_settings_name_value_and_rule():
    for wrong in (
        {"chip": 0},
        {"overlap": 256},
        {"min_valid": 2},
        {"shard_mib": 0},
        {"bands": ("",)},
    ):
        with pytest.raises(InputError, match=next(iter(wrong)).replace("_", "-")):
            Settings(**wrong)
    with pytest.raises(InputError, match="did you mean 'naip'"):
        Settings(sensor="nap")


def test_real_scenes_keep_what_they_know(real):
    folder = real / "multispectral" / "sentinel2_l1c_13band"
    path = folder / "S2_L1C_20150711.tif"
    if not path.exists():
        pytest.skip("no Sentinel-2 scene in the folder of real imagery")
    source, chips = ingest(path, sensor="sentinel2")
    with rasterio.open(path) as raster:
        assert np.array_equal(chips[0].pixels, raster.read()[:, :32, :32])
        lon, lat = raster.lnglat()
    assert (chips[0].spot.lon, chips[0].spot.lat) == pytest.approx((lon, lat), abs=0.01)
    assert np.datetime64(source.time, "s") == np.datetime64("2015-07-11T10:00:08")
    assert len(source.bands) == 13 and chips[0].spot.gsd_m == pytest.approx(10, rel=1e-2)


S2 = tuple(band.name for band in sensor("sentinel2").bands)


@pytest.mark.parametrize(
    ("described", "found"),
    [
        (("B1", "B9", "B8A", "b12"), ("B01", "B09", "B8A", "B12")),
        (("SR_B4", "SR_B3", "SR_B2"), ("B04", "B03", "B02")),
        (("Band 1", "band_2"), S2),
        (("", ""), S2),
    ],
)
def test_a_sensor_knows_its_bands_by_other_spellings(described, found):
    assert _of_sensor(described, S2, "sentinel2") == found


@pytest.mark.parametrize("described", [("B1", "nir"), ("B1", "B01")])
def test_other_bands_are_not_those_of_a_sensor(described):
    with pytest.raises(UnusableError, match=r"are called B1,.*say with --bands"):
        _of_sensor(described, S2, "sentinel2")
