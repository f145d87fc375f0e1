"""Data sets on disk: the same bytes whoever builds them, whole or absent, checked by their sums."""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image

from hpcgeo.data.shards.build import build
from hpcgeo.data.shards.dataset import ShardDataset
from hpcgeo.data.shards.executors import run
from hpcgeo.data.shards.index import load, verify
from hpcgeo.data.shards.settings import Settings
from hpcgeo.errors import InputError
from tests.data.rasters import AFFINE, UTM, noise, write_tiff
from tests.processes import hpcgeo

HPCGEO = [sys.executable, "-c", "from hpcgeo.cli.main import hpcgeo; hpcgeo()"]


def make(folder: Path, out: Path, **options):
    """Build serially and return the index."""
    options = Settings(**{"chip": 32, "shard_mib": 1, **options})
    outcomes = []
    run(lambda over: outcomes.append(build(folder, out, options, over)) or 0, workers=1)
    return outcomes[0].index


def command(*arguments: object, **options) -> subprocess.CompletedProcess:
    return hpcgeo("data", *arguments, **options)


def sums(folder: Path) -> dict[str, str]:
    """Return the checksum of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def mixed(photos, tmp_path) -> Path:
    """Photographs in classes, a scene, and files that must be skipped."""
    folder = photos(10)
    write_tiff(
        folder / "scene_20200102.tif",
        noise(2, 100, 70, dtype="uint16"),
        ["B04", "B08"],
        crs=UTM,
        transform=AFFINE,
    )
    write_tiff(folder / "unknown.tif", noise(6, 40, 40, dtype="uint16"))
    write_tiff(folder / "nowhere.tif", noise(1, 40, 40), ["x"], transform=AFFINE)
    Image.fromarray(noise(64, 64, 3)).save(folder / "class1" / "broken.jpg")
    content = (folder / "class1" / "broken.jpg").read_bytes()
    (folder / "class1" / "broken.jpg").write_bytes(content[: len(content) // 2])
    return folder


def test_a_sample_keeps_what_the_file_knew(mixed, tmp_path):
    out = tmp_path / "set"
    index = make(mixed, out)
    assert set(index.layouts) == {"rgb-uint8", "b04-b08-uint16"}
    assert index.classes == {"class0": 5, "class1": 5}
    assert (index.sources, index.skipped) == (14, 3)
    with h5py.File(out / index.layouts["b04-b08-uint16"].shards[0].name) as file:
        assert file["pixels"].chunks == (1, 2, 32, 32) and file["pixels"].dtype == "uint16"
        assert list(file.attrs["bands"]) == ["B04", "B08"]
        with rasterio.open(mixed / "scene_20200102.tif") as raster:
            whole = raster.read()
            lon, lat = raster.lnglat()
        for row, (down, right) in enumerate(file["offset"][:]):
            height, width = file["valid"][row]
            part = whole[:, down : down + height, right : right + width]
            assert np.array_equal(file["pixels"][row, :, :height, :width], part)
            assert not file["pixels"][row, :, height:].any()
        assert file["lon"][:] == pytest.approx(lon, abs=0.01)
        assert file["lat"][:] == pytest.approx(lat, abs=0.01)
        assert file["gsd_m"][:] == pytest.approx(10, rel=1e-3)
        assert (file["time"][:].astype("datetime64[s]") == np.datetime64("2020-01-02")).all()
        assert (file["label"][:] == -1).all()
        assert file["sources"][:].tolist() == [b"scene_20200102.tif"]
    with h5py.File(out / index.layouts["rgb-uint8"].shards[0].name) as file:
        names = file["sources"][:]
        for pixels, label, source in zip(
            file["pixels"][:], file["label"][:], file["source"][:], strict=True
        ):
            path = mixed / names[source].decode()
            assert np.array_equal(pixels, np.asarray(Image.open(path)).transpose(2, 0, 1))
            assert path.parent.name == f"class{label}"
        assert np.isnan(file["lon"][:]).all() and np.isnat(file["time"][:].view("M8[s]")).all()


def test_mean_and_deviation_are_those_of_the_valid_pixels(tmp_path):
    pixels = noise(2, 75, 140, dtype="float32")
    pixels[0, :, :50] = np.nan
    write_tiff(tmp_path / "in" / "a.tif", pixels, ["x", "y"], crs=UTM, transform=AFFINE)
    (layout,) = make(tmp_path / "in", tmp_path / "out", min_valid=0).layouts.values()
    assert layout.mean == pytest.approx(np.nanmean(pixels, axis=(1, 2), dtype=float))
    assert layout.std == pytest.approx(np.nanstd(pixels, axis=(1, 2), dtype=float))


def test_what_was_skipped_is_listed(mixed, tmp_path):
    make(mixed, tmp_path / "set")
    with (tmp_path / "set" / "skipped.csv").open() as file:
        rows = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    assert set(rows) == {"unknown.tif", "nowhere.tif", "class1/broken.jpg"}
    assert rows["class1/broken.jpg"].startswith("broken")


@pytest.mark.parametrize("compression", ["none", "gzip", "lzf"])
def test_reading_gives_back_every_pixel(photos, tmp_path, compression):
    folder = photos(9)
    make(folder, tmp_path / "set", compression=compression)
    dataset = ShardDataset(tmp_path / "set")
    order = np.random.default_rng(0).permutation(9)
    pixels, valid = dataset.read(order)
    paths = sorted(folder.rglob("*.png"))
    expected = np.stack([np.asarray(Image.open(paths[i])).transpose(2, 0, 1) for i in order])
    assert np.array_equal(pixels, expected) and (valid == 32).all()


def test_several_shard_files_and_few_open_ones(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("hpcgeo.data.shards.dataset._OPEN_FILES", 3)
    folder = photos(11, size=300)
    index = make(folder, tmp_path / "set", chip=300)
    assert len(index.layouts["rgb-uint8"].shards) == 4
    dataset = ShardDataset(tmp_path / "set")
    whole, _ = dataset.read(np.arange(11))
    for i in (10, 0, 5, 10):
        assert np.array_equal(dataset.read(np.array([i]))[0][0], whole[i])
    assert len(dataset._open) <= 3


def test_workers_build_the_same_bytes(mixed, tmp_path):
    make(mixed, tmp_path / "serial")
    done = command(
        *("build", mixed, "--out", tmp_path / "two", "--chip", 32, "--shard-mib", 1),
        *("--workers", 2),
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("skipped ") == 3 and "3 of 14 files skipped" in done.stdout
    assert sums(tmp_path / "two") == sums(tmp_path / "serial")


@pytest.mark.mpi
def test_mpi_builds_the_same_bytes(mixed, tmp_path):
    pytest.importorskip("mpi4py", exc_type=ImportError)
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        pytest.skip("no mpirun")
    make(mixed, tmp_path / "serial")
    launch = [mpirun, "-n", "3", "--oversubscribe", "--allow-run-as-root", *HPCGEO]
    arguments = ["data", "build", mixed, "--chip", "32", "--shard-mib", "1", "--out"]
    done = subprocess.run([*launch, *arguments, tmp_path / "mpi"], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stdout.count("samples in") == 1
    assert sums(tmp_path / "mpi") == sums(tmp_path / "serial")
    other = [*launch, "data", "build", mixed, "--chip", "33", "--out", tmp_path / "mpi"]
    refused = subprocess.run(other, capture_output=True, text=True)
    assert refused.returncode == 2 and "chip was 32, is 33" in refused.stderr


def test_launched_wrongly(monkeypatch):
    with pytest.raises(InputError, match="--workers 2: 4 MPI ranks"):
        run(lambda over: 0, workers=2, started=4)
    monkeypatch.setenv("PMI_SIZE", "3")
    with pytest.raises(InputError, match="--workers 2: 3 MPI ranks"):
        run(lambda over: 0, workers=2)


def test_killed_in_the_middle_it_goes_on(photos, tmp_path):
    folder, out = photos(48, size=256), tmp_path / "set"
    options = ("--shard-mib", "1", "--compression", "gzip")
    process = subprocess.Popen(
        [*HPCGEO, "data", "build", folder, "--out", out, *options], stderr=subprocess.DEVNULL
    )
    while len(list(out.glob("*.h5"))) < 3:
        assert process.poll() is None, "it was too fast to be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_ino for path in out.glob("*.h5")}
    assert 3 <= len(kept) < 10 and not (out / "index.json").exists()
    with pytest.raises(InputError, match="not finished: run the same command again"):
        load(out)
    assert command("build", folder, "--out", out, *options).returncode == 0
    assert kept == {path: path.stat().st_ino for path in kept}
    make(folder, tmp_path / "whole", chip=256, compression="gzip")
    assert sums(out) == sums(tmp_path / "whole")


def test_a_full_disk_is_one_line_and_the_rest_goes_on(photos, tmp_path):
    folder, out = photos(4, size=256), tmp_path / "set"
    Image.fromarray(noise(256, 256)).save(folder / "grey.png")
    arguments = ["data", "build", str(folder), "--out", str(out), "--shard-mib", "1"]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 300; exec "$@"', "bash", *HPCGEO, *arguments],
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 1
    (line,) = [line for line in limited.stderr.splitlines() if "failed" in line]
    assert "rgb-uint8-00000.h5: File too large" in line
    assert "Traceback" not in limited.stderr and "same command goes on" in limited.stderr
    assert {path.name for path in out.iterdir()} == {
        "plan.json",
        "skipped.csv",
        "grey-uint8-00000.h5",
        "grey-uint8-00000.h5.sha256",
    }
    assert subprocess.run([*HPCGEO, *arguments], capture_output=True).returncode == 0
    make(folder, tmp_path / "whole", chip=256)
    assert sums(out) == sums(tmp_path / "whole")


def test_a_full_file_system(photos, tmp_path):
    folder, small = photos(4, size=256), tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        done = command("build", folder, "--out", small / "set")
        assert done.returncode == 1 and "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(small.glob("set/*.h5*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_another_plan_is_refused_with_the_difference(photos, tmp_path):
    folder, out = photos(4), tmp_path / "set"
    first = make(folder, out)
    assert make(folder, out) == first
    with pytest.raises(InputError, match=r"overlap was 0, is 8; .*--out"):
        make(folder, out, overlap=8)
    (folder / "class0" / "000.png").touch()
    (folder / "class0" / "002.png").unlink()
    with pytest.raises(InputError, match=r"000.png is changed; class0/002.png is gone"):
        make(folder, out)


def test_a_shard_file_of_another_disk_is_not_half_read(photos, tmp_path):
    make(photos(6), tmp_path / "set")
    (shard,) = (tmp_path / "set").glob("*.h5")
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(InputError, match="hpcgeo data verify"):
        ShardDataset(tmp_path / "set").read(np.arange(6))


def test_verify_names_what_is_damaged_or_missing(mixed, tmp_path):
    out = tmp_path / "set"
    index = make(mixed, out)
    assert verify(out, index) == {}
    one, two = sorted(out.glob("*.h5"))
    content = bytearray(two.read_bytes())
    content[len(content) // 2] ^= 1
    two.write_bytes(content)
    one.unlink()
    (out / "skipped.csv").write_text("")
    problems = command("verify", out)
    assert problems.returncode == 1
    for name, what in ((one, "No such file"), (two, "damaged"), (out / "skipped.csv", "0 bytes")):
        assert f"{name}: {what}" in problems.stderr
    text = (out / "index.json").read_text()
    (out / "index.json").write_text(text.replace('"samples": 10', '"samples": 11', 1))
    with pytest.raises(InputError, match="damaged"):
        load(out)


def test_nothing_of_use_is_said_so(tmp_path):
    write_tiff(tmp_path / "in" / "a.tif", noise(6, 40, 40, dtype="uint16"))
    with pytest.raises(InputError, match=r"no sample in 1 files; see .*skipped.csv"):
        make(tmp_path / "in", tmp_path / "out")


def test_a_build_without_a_sample_does_not_block_another(tmp_path):
    write_tiff(tmp_path / "in" / "a.tif", noise(2, 40, 40), ["x", "y"])
    out = tmp_path / "out"
    for wrong in ({"bands": ("a", "b", "c")}, {"chip": 1000}):
        with pytest.raises(InputError, match="no sample in 1 files"):
            make(tmp_path / "in", out, **wrong)
        assert [path.name for path in out.iterdir()] == ["skipped.csv"]
    (out / "plan.json").write_text('{"settings": {"chip": 7}, "sour')  # cut off before any shard
    assert make(tmp_path / "in", out).samples == 1


def test_equal_reasons_are_one_line(photos, tmp_path, caplog):
    folder = photos(1)
    for number in range(20):
        (folder / f"{number:02d}.jpg").write_bytes(b"\xff\xd8\xff no image")
        Image.fromarray(noise(5, 5 + number, 3)).save(folder / f"small{number:02d}.png")
    assert make(folder, tmp_path / "set").skipped == 40
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2 and lines[0].startswith("skipped 20 files (00.jpg, 01.jpg, 02.jpg, ...)")
    assert lines[1].startswith("skipped small00.png: 5 x 5 pixels")
    assert lines[1].endswith("likewise 19 more (small01.png, small02.png, small03.png, ...)")


def test_masks_and_labels_are_no_images_unless_it_is_said(tmp_path):
    folder = tmp_path / "in"
    for number in range(3):
        for name, pixels in (
            (f"images/{number}.png", noise(64, 64, 3)),
            (f"grey/{number}.png", noise(64, 64)),
            (f"classes/{number}.png", noise(64, 64, high=5)),  # by what is in it
            (f"{number}_cloudmask.png", noise(64, 64, 3)),  # by its name
            (f"Labels/{number}.png", noise(64, 64)),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
    index = make(folder, tmp_path / "set")
    assert {name: row.samples // 4 for name, row in index.layouts.items()} == {
        "rgb-uint8": 3,
        "grey-uint8": 3,
    }
    with (tmp_path / "set" / "skipped.csv").open() as file:
        skipped = {row["source"].rstrip("012.png"): row["reason"] for row in csv.DictReader(file)}
    assert {path: reason[:17] for path, reason in skipped.items()} == {
        "classes/": "a mask or labels:",
        "0_cloudmask": "a mask or labels,",
        "1_cloudmask": "a mask or labels,",
        "2_cloudmask": "a mask or labels,",
        "Labels/": "a mask or labels,",
    }
    assert make(folder, tmp_path / "said", bands=("grey",)).samples == 4 * 9
    alone = make(folder / "Labels", tmp_path / "alone")  # a folder of nothing else
    assert alone.samples == 4 * 3


def test_a_name_in_another_encoding_is_skipped(photos, tmp_path, caplog):
    folder = photos(2)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes((folder / "class0/000.png").read_bytes())
    assert make(folder, tmp_path / "set").skipped == 1
    assert "caf\\udce9.png" in (tmp_path / "set" / "skipped.csv").read_text()
    assert "skipped caf\\udce9.png: broken" in caplog.text


VRT = """<VRTDataset rasterXSize="10" rasterYSize="5">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><ColorInterp>Gray</ColorInterp>
<SourceFilename relativetoVRT="0">{secret}</SourceFilename></VRTRasterBand></VRTDataset>"""
WMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service>
<DataWindow><SizeX>64</SizeX><SizeY>64</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"""


def test_a_file_is_read_for_its_own_bytes(photos, tmp_path):
    """What names other files or addresses is no image, whatever it is called; nor do sidecars."""
    (tmp_path / "secret.txt").write_text("secret " * 20)
    folder = photos(2)
    (folder / "vrt.tif").write_text(VRT.format(secret=tmp_path / "secret.txt"))
    (folder / "wms.png").write_text(WMS)
    (folder / "class0" / "000.png.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="Subdatasets"><MDI key="a">{tmp_path}/secret.txt</MDI>'
        "</Metadata></PAMDataset>"
    )
    index = make(folder, tmp_path / "out")
    assert index.skipped == 2
    rows = (tmp_path / "out" / "skipped.csv").read_text()
    assert 'vrt.tif,"broken: neither' in rows and 'wms.png,"broken: neither' in rows
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "out").glob("*.h5"))


def test_a_terminal_does_not_obey_a_name(photos, tmp_path):
    folder = photos(1)
    (folder / "a\x1b[2J.png").write_text("x")
    (folder / "b\n12:00:00 all is well.png").write_text("x")
    said = command("build", folder, "--out", tmp_path / "out", "--chip", 32).stderr
    assert "\x1b" not in said and "skipped 2 files (a\\x1b[2J.png, b\\n12:00:00 all" in said
    assert not any(line.startswith("12:00:00 all") for line in said.splitlines())


def test_layouts_must_be_chosen_and_names_are_distinct(tmp_path):
    for number, bands in enumerate((list("ABCDEFGHIJ"), list("KLMNOPQRST"))):
        write_tiff(tmp_path / "in" / f"{number}.tif", noise(10, 32, 32), bands)
    index = make(tmp_path / "in", tmp_path / "out")
    assert list(index.layouts) == ["10bands-uint8", "10bands-uint8-v2"]
    with pytest.raises(InputError, match=r"scale: 10bands-uint8, 10bands-uint8-v2"):
        ShardDataset(tmp_path / "out")
    assert ShardDataset(tmp_path / "out", "10bands-uint8-v2").bands == tuple("KLMNOPQRST")
    with pytest.raises(InputError, match="unknown layout"):
        ShardDataset(tmp_path / "out", "10bands")


def test_info(mixed, tmp_path):
    index = make(mixed, tmp_path / "set")
    told = json.loads(command("info", tmp_path / "set", "--json").stdout)
    assert told == json.loads(index.model_dump_json())
    shown = command("info", tmp_path / "set").stdout
    for word in (
        "rgb-uint8",
        "B08",
        "class1",
        "3 skipped",
        f"{index.layouts['rgb-uint8'].mean[0]:.6g}",
    ):
        assert word in shown
    missing = command("info", tmp_path)
    assert missing.returncode == 2 and "hpcgeo data build" in missing.stderr


def test_synthesized_scenes_build_without_a_word(tmp_path):
    assert command("synthesize", tmp_path / "in", "--scenes", 2, "--size", 96).returncode == 0
    done = command("build", tmp_path / "in", "--out", tmp_path / "out", "--chip", 32)
    assert (done.returncode, done.stderr) == (0, "")
    (layout,) = load(tmp_path / "out").layouts.values()
    assert (layout.samples, layout.bands) == (18, ("red", "green", "blue"))
    with h5py.File(tmp_path / "out" / layout.shards[0].name) as file:
        assert file["gsd_m"][:] == pytest.approx(1, rel=1e-3)
        assert not np.isnat(file["time"][:].view("M8[s]")).any()


def test_building_needs_no_torch():
    code = "import sys, hpcgeo.cli.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


NAMES = ("red", "green", "blue")


def test_a_scene_is_there_whole_or_not_at_all(tmp_path):
    """Cut at 60 %, however many shard files its chips would lie in."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    profile = {"driver": "COG", "blocksize": 256, "compress": "DEFLATE", "overviews": "NONE"}
    write_tiff(tmp_path / "whole.tif", noise(3, 1024, 1024), NAMES, crs=UTM, transform=AFFINE)
    rasterio.shutil.copy(tmp_path / "whole.tif", folder / "a.tif", **profile)
    os.truncate(folder / "a.tif", (folder / "a.tif").stat().st_size * 6 // 10)
    write_tiff(folder / "b.tif", noise(3, 64, 64), NAMES, crs=UTM, transform=AFFINE)
    for mib in (1, 64):
        index = make(folder, tmp_path / f"out{mib}", shard_mib=mib)
        assert sum(layout.samples for layout in index.layouts.values()) == 4
        assert (tmp_path / f"out{mib}" / "skipped.csv").read_text().count("\na.tif") == 1
    before = sums(tmp_path / "out1")
    (tmp_path / "out1" / "index.json").unlink()
    make(folder, tmp_path / "out1", shard_mib=1)
    assert sums(tmp_path / "out1") == before


def test_what_was_damaged_while_a_build_stood_still_is_written_anew(photos, tmp_path):
    make(photos(), tmp_path / "out")
    before = sums(tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    (shard,) = (tmp_path / "out").glob("*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    make(tmp_path / "photos", tmp_path / "out")
    assert sums(tmp_path / "out") == before
    check = ["sha256sum", "--check", f"{shard.name}.sha256"]
    assert subprocess.run(check, cwd=tmp_path / "out", capture_output=True).returncode == 0


def test_two_builds_never_share_a_folder(photos, tmp_path):
    folder, out = photos(2), tmp_path / "out"
    out.mkdir()
    held = os.open(out, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    done = command("build", folder, "--out", out, "--chip", 32)
    assert done.returncode == 2 and f"{out} is being built by another process" in done.stderr
    os.close(held)
    assert command("build", folder, "--out", out, "--chip", 32).returncode == 0


def test_an_image_beyond_the_memory_is_skipped_at_once(photos, tmp_path):
    folder = photos(1)
    Image.new("L", (30_000, 30_000)).save(folder / "big.jpg", quality=1)
    build = [*HPCGEO, "data", "build", folder, "--out", tmp_path / "out", "--chip", "32"]
    limited = ["bash", "-c", 'ulimit -v 1500000; exec "$@"', "bash", *map(str, build)]
    done = subprocess.run(limited, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "skipped big.jpg: a JPEG is decoded whole, which takes 1.8 GB" in done.stderr


def test_scenes_that_differ_in_nodata_and_units_alone_are_read_together(tmp_path):
    """Reflectance 0.1, as Sentinel-2 stores it before and after baseline 04.00."""
    stored = {"old": (1000, 0.0, None), "new": (2000, -0.1, None), "marked": (2000, -0.1, 0)}
    for name, (value, offset, nodata) in stored.items():
        pixels = np.full((2, 32, 32), value, dtype=np.uint16)
        pixels[:, :, :16] *= 2
        path = tmp_path / "in" / f"{name}.tif"
        place = {"crs": UTM, "transform": AFFINE}
        write_tiff(path, pixels, ["B02", "B03"], nodata=nodata, **place)
        with rasterio.open(path, "r+") as raster:
            raster.scales, raster.offsets = (1e-4, 2e-4), (offset, 2 * offset)
    index = make(tmp_path / "in", tmp_path / "out")
    assert len(index.layouts) == 3
    assert [row.offset for row in index.layouts.values()].count((-0.1, -0.2)) == 2
    dataset = ShardDataset(tmp_path / "out")
    pixels, _ = dataset.read(np.arange(3))
    layout = dataset.layout_of(np.arange(3))
    normal = (pixels - dataset.mean[layout][..., None, None]) / dataset.std[layout][..., None, None]
    scale = np.array([[row.scale] for row in index.layouts.values()])[:, 0, :, None, None]
    offset = np.array([[row.offset] for row in index.layouts.values()])[:, 0, :, None, None]
    stands_for = pixels * scale + offset
    assert np.allclose(normal.mean(axis=(0, 2, 3)), 0)
    assert np.allclose(normal.std(axis=(0, 2, 3)), 1)
    for band in range(2):
        between = np.corrcoef(normal[:, band].ravel(), stands_for[:, band].ravel())[0, 1]
        assert between == pytest.approx(1), "equal reflectance, equal number"
    some = ShardDataset(tmp_path / "out", ",".join([*index.layouts][:2]))
    assert len(some) == 2 and len(some.nodata) == 2


def test_a_constant_band_of_several_layouts_has_no_deviation(tmp_path):
    for number, nodata in enumerate((None, 0, 0)):
        pixels = noise(2, 32, 32, dtype="uint16", seed=number)
        pixels[1] = 7
        write_tiff(tmp_path / "in" / f"{number}.tif", pixels, ["P", "Q"], nodata=nodata)
    make(tmp_path / "in", tmp_path / "out")
    dataset = ShardDataset(tmp_path / "out")
    assert np.allclose(dataset.mean[:, 1], 7) and (dataset.std[:, 1] == 1).all()


def test_a_shard_file_of_another_plan_is_written_anew(tmp_path):
    """An older release dealt sources out otherwise, and a build of it was interrupted."""
    for number in range(2):
        write_tiff(tmp_path / "in" / f"{number}.tif", noise(1, 32, 32, seed=number), ["P"])
    make(tmp_path / "in", tmp_path / "out")
    expected = sums(tmp_path / "out")
    (tmp_path / "out" / "index.json").unlink()
    (path,) = (tmp_path / "out").glob("*.h5")
    with h5py.File(path, "r+") as file:
        file["sources"][:] = b"1.tif"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    make(tmp_path / "in", tmp_path / "out")
    assert sums(tmp_path / "out") == expected


def test_pixels_that_were_replaced_are_refused_when_they_are_read(tmp_path):
    write_tiff(tmp_path / "in" / "a.tif", noise(3, 64, 64), list("ABC"))
    make(tmp_path / "in", tmp_path / "out")
    (row,) = load(tmp_path / "out").layouts.values()
    path = tmp_path / "out" / row.shards[0].name
    stored = bytearray(path.read_bytes())
    stored[row.shards[0].start + 3 * 32 * 32] ^= 1  # of the second sample
    path.write_bytes(stored)
    dataset = ShardDataset(tmp_path / "out")
    dataset.read(np.array([0, 2, 3]))
    with pytest.raises(InputError, match=r"sample 1 is damaged: .*hpcgeo data verify"):
        dataset.read(np.array([0, 1]))


def test_what_another_module_names_is_not_used(tmp_path):
    """PROJ_DATA of a module names a data base that another version of PROJ wrote."""
    write_tiff(tmp_path / "in" / "a.tif", noise(3, 32, 32), list("ABC"), crs=UTM, transform=AFFINE)
    (tmp_path / "proj").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "proj" / "proj.db")) as data:
        data.execute("create table metadata(key text primary key, value text)")
        data.execute("insert into metadata values('DATABASE.LAYOUT.VERSION.MAJOR', '1')")
        data.commit()
    foreign = dict.fromkeys(["PROJ_DATA", "PROJ_LIB"], str(tmp_path / "proj"))
    done = command(
        *["build", tmp_path / "in", "--out", tmp_path / "out", "--chip", 32],
        env=os.environ | foreign,
    )
    assert done.returncode == 0, done.stderr
    assert np.isfinite(ShardDataset(tmp_path / "out").metadata().lon).all()


def test_a_file_of_several_images_is_refused(tmp_path):
    first, second = (Image.fromarray(noise(1, 32, 32, seed=n)[0]) for n in (0, 1))
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in" / "pages.tif", save_all=True, append_images=[second])
    write_tiff(tmp_path / "in" / "a.tif", noise(3, 32, 32), list("ABC"))
    make(tmp_path / "in", tmp_path / "out")
    assert "pages.tif,it holds 2 images" in (tmp_path / "out" / "skipped.csv").read_text()
