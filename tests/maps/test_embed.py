"""`hpcgeo embed`: features of chips and patches are those of the encoder, and know their place."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.warp import transform

from hpcgeo.evaluate.encoders import open_encoder
from hpcgeo.evaluate.image_encoder import ImageEncoder
from tests.data.rasters import AFFINE, UTM, noise, write_tiff
from tests.evaluate.coloured import SMALL, weights
from tests.maps.test_geotiff import cloud_optimised
from tests.processes import hpcgeo
from tests.ranks import ended, launch

HEIGHT, WIDTH, TILE, PATCH = 75, 101, 32, 16
MISSING = slice(0, 40), slice(0, 40)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{SMALL}:{weights(tmp_path_factory.mktemp('w') / 'w.safetensors')}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    pixels = noise(3, HEIGHT, WIDTH, high=255)
    pixels[(slice(None), *MISSING)] = 0
    tags = {"ACQUISITIONDATETIME": "2000-01-03T12:00:00"}
    names = {"names": "RGB", "crs": UTM, "transform": AFFINE, "nodata": 0}
    write_tiff(folder / "a.tif", pixels, tags=tags, **names)
    return folder


def expected(encoder: ImageEncoder, folder: Path, top: int, left: int) -> torch.Tensor:
    """Return the tokens (R + N, W) of a chip of the scene."""
    with rasterio.open(folder / "a.tif") as file:
        pixels = file.read(masked=True).astype(np.float32).filled(np.nan)
    below, beside = (0, max(0, top + TILE - HEIGHT)), (0, max(0, left + TILE - WIDTH))
    chip = np.pad(pixels[:, top:, left:], ((0, 0), below, beside), mode="reflect")
    chip = chip[:, :TILE, :TILE]
    mean, std = (np.array(each)[:, None, None] for each in (encoder.mean, encoder.std))
    image = torch.from_numpy(((chip - mean) / std).astype(np.float32))[None]
    return encoder.tokens(image, [encoder.depth])[0][0]


def embed(encoder: str, folder: Path, out: Path, *more: object) -> list[object]:
    return ["embed", encoder, folder, "--out", out, "--tile", TILE, *more]


@pytest.fixture(scope="module")
def chips(encoder: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chips")
    found = hpcgeo(*embed(encoder, folder, out, "--format", "npz"))
    assert found.returncode == 0, found.stderr
    return out / "a.npz"


def test_a_chip_has_the_vector_of_the_encoder_and_its_place(encoder, folder, chips):
    opened = open_encoder(encoder)
    with np.load(chips) as file:
        found = dict(file)
    said = json.loads(str(found["about"]))
    assert said["about"]["fingerprint"] == opened.fingerprint
    assert (said["about"]["pooling"], said["about"]["block"]) == ("mean", opened.depth)
    assert said["units"]["gsd_m"] == "metres"
    corners = [*zip(found["row"].tolist(), found["column"].tolist(), strict=True)]
    # The chip at the corner is nodata, the last ones reach less than half into the scene.
    assert corners == [(0, 32), (0, 64), (32, 0), (32, 32), (32, 64)]
    for (top, left), vector in zip(corners, found["vector"], strict=True):
        tokens = expected(opened, folder, top, left)[opened.backbone.first :]
        np.testing.assert_allclose(vector, tokens.mean(0), atol=2e-5)
    x, y = AFFINE.c + (64 + 16) * AFFINE.a, AFFINE.f + (32 + 16) * AFFINE.e
    ((lon,), (lat,)) = transform(UTM, "EPSG:4326", [x], [y])
    assert (found["lon"][-1], found["lat"][-1]) == pytest.approx((lon, lat), abs=1e-9)
    assert found["gsd_m"] == pytest.approx(10, rel=1e-2) and (found["time"] == 2.5).all()


def test_patches_are_a_raster_on_their_grid(encoder, folder, tmp_path):
    opened = open_encoder(encoder)
    how = ["--per", "patch", "--overlap", "0"]
    found = hpcgeo(*embed(encoder, folder, tmp_path, *how))
    assert found.returncode == 0, found.stderr
    assert cloud_optimised(tmp_path / "a.tif") == []
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.shape == (5, 7) and file.count == 192 and file.crs == UTM
        assert file.transform[:6] == pytest.approx((160, 0, AFFINE.c, 0, -160, AFFINE.f))
        assert file.tags()["HPCGEO_FINGERPRINT"] == opened.fingerprint
        values = file.read()
    tokens = expected(opened, folder, 32, 64)[opened.backbone.first :].reshape(2, 2, -1)
    # The tile at (32, 64) is not shifted: patches 2 to 3 down, 4 to 5 across.
    np.testing.assert_allclose(values[:, 2, 4], tokens[0, 0], atol=2e-5)
    assert np.isnan(values[:, :2, :2]).all() and np.isfinite(values[:, 3:4, :6]).all()


def test_two_ranks_write_the_same_bytes(encoder, folder, chips, tmp_path):
    code, said = ended(launch(2, *embed(encoder, folder, tmp_path, "--format", "npz")))
    assert code == 0, said
    with np.load(tmp_path / "a.npz") as ours, np.load(chips) as theirs:
        for name in theirs.files:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_says_the_same(encoder, folder, chips, tmp_path):
    from pyarrow import parquet

    assert hpcgeo(*embed(encoder, folder, tmp_path)).returncode == 0
    table = parquet.read_table(tmp_path / "a.parquet")
    with np.load(chips) as file:
        for name in ("row", "column", "lon", "lat", "gsd_m", "time"):
            np.testing.assert_array_equal(table[name].to_numpy(), file[name])
        np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), file["vector"])
        assert json.loads(table.schema.metadata[b"hpcgeo"]) == json.loads(str(file["about"]))
    assert b"geo" in table.schema.metadata


WRONG = {
    "overlap": (["--format", "npz", "--overlap", "0.5"], "no effect on chips"),
    "format": (["--per", "patch", "--format", "npz"], "no effect on patches"),
    "pool": (["--per", "patch", "--pool", "mean"], "no effect on patches"),
    "block": (["--format", "npz", "--block", "13"], "block 13"),
    "tile": (["--format", "npz", "--tile", "30"], "30"),
}


@pytest.mark.parametrize(("more", "message"), WRONG.values(), ids=WRONG)
def test_what_has_no_effect_or_does_not_fit_is_refused(encoder, folder, tmp_path, more, message):
    found = hpcgeo(*embed(encoder, folder, tmp_path / "out", *more))
    assert found.returncode == 2 and message in found.stderr, found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_without_pyarrow_the_extra_is_named(encoder, folder, tmp_path):
    found = hpcgeo(*embed(encoder, folder, tmp_path / "out"))
    assert found.returncode == 2 and "pip install 'hpcgeo[tables]'" in found.stderr


def test_a_scene_in_another_unit_is_no_input(encoder, tmp_path):
    pixels = noise(3, HEIGHT, WIDTH, dtype="uint16", low=2000, high=9000)
    write_tiff(tmp_path / "in" / "a.tif", pixels, names="RGB", crs=UTM, transform=AFFINE)
    found = hpcgeo(*embed(encoder, tmp_path / "in", tmp_path / "out", "--format", "npz"))
    assert found.returncode == 1 and "bring the scene to that unit" in found.stderr
