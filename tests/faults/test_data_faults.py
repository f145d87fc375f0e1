"""Data that make a step not finite are skipped and named; files that cannot be read end the run."""

import json
import os
import shutil
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio

from hpcgeo.data.sampling.order import shuffled
from tests.processes import hpcgeo
from tests.ranks import end, metrics, start, tell, train

SAMPLES, CHIP = 64, 32


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene in float32 as two data sets, one of them compressed."""
    folder = tmp_path_factory.mktemp("sets")
    (folder / "scenes").mkdir()
    pixels = np.random.default_rng(0).random((3, 8 * CHIP, 8 * CHIP), dtype=np.float32)
    with rasterio.open(
        folder / "scenes" / "one.tif",
        "w",
        driver="GTiff",
        count=3,
        height=8 * CHIP,
        width=8 * CHIP,
        dtype="float32",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000),
        crs="EPSG:32633",
    ) as file:
        file.write(pixels)
    for compression in ("none", "gzip"):
        words = [
            folder / "scenes",
            "--out",
            folder / compression,
            "--chip",
            str(CHIP),
            "--bands",
            "a,b,c",
        ]
        hpcgeo("data", "build", *words, "--compression", compression).check_returncode()
    return folder


def shard(folder: Path) -> Path:
    (path,) = folder.glob("**/*.h5")
    return path


def test_a_damaged_pixel_is_skipped_and_named(sets: Path, tmp_path: Path) -> None:
    """A value of 1e30 in one sample, as its file held it when the set was built."""
    shutil.copytree(sets / "none", tmp_path / "set")
    with h5py.File(shard(tmp_path / "set"), "r+") as file:
        file["pixels"][5] = np.float32(1e30)
        file["crc32"][5] = zlib.crc32(file["pixels"][5].data)
    options = [f"data.path={tmp_path / 'set'}", "train.steps=6", "train.max_skips=3"]
    code, said = train(tmp_path / "run", 2, *options)
    assert code == 0, said
    rows = metrics(tmp_path / "run")
    skipped = [row["step"] for row in rows if row["skipped"]]
    where = np.flatnonzero(shuffled(np.arange(6 * 16), SAMPLES, 0) == 5)
    assert skipped == sorted({position // 16 + 1 for position in where})
    for position in where:
        step = position // 16 + 1
        found = json.loads((tmp_path / "run" / "skipped" / f"step-{step:08d}.json").read_text())
        (one,) = found["ranks"]
        assert one["rank"] == position % 16 // 8
        assert one["index"][one["position"].index(position)] == 5
    # The other steps went on with parameters that are finite, and so did the checkpoint.
    assert all(np.isfinite(row["loss"]) for row in rows if not row["skipped"])
    resumed, said = train(tmp_path / "run", 1, *options[:1], "train.steps=6")
    assert resumed == 0 and "from step 6 of 6" in said, said


def test_a_diverging_run_ends_before_it_replaces_good_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = [
        "optim.base_lr=1e30",
        "optim.clip=null",
        "optim.warmup_steps=0",
        "checkpoint.every=1",
    ]
    began = time.monotonic()
    ranks = start(folder, 2, *options, "train.max_skips=3")
    said = end(ranks)
    tell("not finite", said[0], began, ranks[0].returncode)
    assert [rank.returncode for rank in ranks] == [1, 1]
    rows = metrics(folder)
    assert [row["skipped"] for row in rows[-4:]] == [0, 1, 2, 3]
    assert f"3 steps in a row, up to step {len(rows)}" in said[0]
    assert "hpcgeo: rank" not in said[1]  # rank 0 speaks for all
    saved = [int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*")]
    assert max(saved) == len(rows) - 3
    found = json.loads((folder / "skipped" / f"step-{len(rows):08d}.json").read_text())
    assert [one["rank"] for one in found["ranks"]] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "workers", "message"),
    [
        ("gzip", 0, "cannot be read"),
        pytest.param("gzip", 1, "cannot be read", marks=pytest.mark.long),
        ("none", 1, "data verify"),
    ],
)
def test_a_damaged_shard_file(
    sets: Path, tmp_path: Path, kind: str, workers: int, message: str
) -> None:
    """A byte flipped in a compressed sample; a file cut short."""
    shutil.copytree(sets / kind, tmp_path / "set")
    path = shard(tmp_path / "set")
    if kind == "gzip":
        with h5py.File(path) as file:
            chunk = file["pixels"].id.get_chunk_info(5)
        with path.open("r+b") as stream:
            stream.seek(chunk.byte_offset + chunk.size // 2)
            stream.write(b"\xff\x00\xff\x00")
    else:
        os.truncate(path, path.stat().st_size // 2)
    began = time.monotonic()
    ranks = start(tmp_path / "run", 2, f"data.path={tmp_path / 'set'}", f"data.workers={workers}")
    said = end(ranks)
    (line, *_) = [line for text in said for line in text.splitlines() if "data verify" in line]
    tell(f"damaged {kind}, {workers} workers", line, began, max(rank.returncode for rank in ranks))
    assert all(rank.returncode in (1, 2) for rank in ranks)
    assert message in line and str(path) in line and "hpcgeo: rank " in line
    if kind == "gzip":
        assert "sample 5 " in line
    assert not any("Traceback" in text for text in said), said
