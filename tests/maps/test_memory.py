"""A scene of 20,000 x 20,000 pixels takes no more memory than a host of 2 GiB has."""

import os
import subprocess

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from tests.data.rasters import AFFINE, UTM
from tests.maps.test_predict import run  # noqa: F401
from tests.processes import EXEC

SIDE, GIB = 20_000, 2**20  #: of ru_maxrss, in KiB


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_memory_follows_the_width_of_a_scene(run, tmp_path):  # noqa: F811
    shape = {"height": SIDE, "width": SIDE, "count": 3, "dtype": "float32", "nodata": -99}
    blocks = {"tiled": True, "compress": "deflate", "SPARSE_OK": True, "BIGTIFF": "YES"}
    where = {"crs": UTM, "transform": AFFINE}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape, **blocks, **where) as file:
        file.descriptions = ("R", "G", "B")
        for corner in (0, 9_800, SIDE - 512):  # the rest is nodata, and read like the rest
            pixels = np.random.default_rng(corner).normal(size=(3, 512, 512)).astype(np.float32)
            file.write(pixels, window=Window(corner, corner, 512, 512))
    how = ["--task", "tiles", "--tile", "256", "--batch", "2", "--out", tmp_path / "out"]
    started = subprocess.Popen([*EXEC, "predict", run, tmp_path / "a.tif", *map(str, how)])
    _, status, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    assert started.returncode == 0
    print(f"\n{used.ru_maxrss / GIB:.2f} GiB")
    assert used.ru_maxrss < 2 * GIB
    with rasterio.open(tmp_path / "out" / "a.tif") as made:
        assert made.shape == (SIDE, SIDE)
        assert (made.read(1, window=Window(0, 0, 512, 512)) != 255).all()
