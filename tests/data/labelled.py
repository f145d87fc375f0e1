"""Tiny folders of labelled samples in every layout that is read, made here."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine

from hpcgeo.data.readers.sustainbench.dhs import COUNTRIES
from tests.data.rasters import UTM, noise, write_tiff

PARTS = ("train", "train", "train", "train", "test")


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def scenes(folder: Path) -> Path:
    rows = []
    for number in range(30):
        label = ("river", "beach", "forest")[number % 3]
        path = f"{label}/{label}{number:02d}.png"
        write_image(folder / path, noise(32, 32, 3, seed=number))
        rows.append({"path": path, "label": label, "split": PARTS[number // 3 % 5]})
    write_table(folder / "split.csv", rows)
    return folder


def tile_masks(folder: Path) -> Path:
    rows = []
    for number in range(20):
        mask = np.zeros((32, 32), np.uint8)
        mask[:16] = 255
        image, label = f"images/{number}.png", f"masks/{number}.png"
        write_image(folder / image, noise(32, 32, 3, seed=number))
        write_image(folder / label, mask)
        west = 39.0 + number * 0.001
        box = {"west": west, "south": 59.9995, "east": west + 0.001, "north": 60.0005}
        block = {"block_z19": f"b{number // 2}", "split": PARTS[number // 2 % 5]}
        rows.append({"image": image, "mask": label, **box, **block})
    write_table(folder / "tiles.csv", rows)
    return folder


def pairs(folder: Path) -> Path:
    rows = []
    for number in range(12):
        name = f"lake_{1990 + number // 6}_2000_r0c{number % 6}"
        where = {"crs": CRS.from_epsg(4326), "transform": Affine(0.001, 0, -74, 0, -0.001, -8)}
        for part in "AB":
            pixels = noise(4, 32, 32, seed=number + ord(part))
            if part == "A":
                pixels[:, :16, :16] = 0
            write_tiff(folder / part / f"{name}.tif", pixels, nodata=0, **where)
        change = np.zeros((1, 32, 32), np.uint8)
        change[:, 8:24] = 255
        write_tiff(folder / "label" / f"{name}.tif", change, **where)
        split = "test" if number % 6 == 5 else "train"
        year = 1990 + number // 6
        rows.append({"name": name, "year_a": year, "year_b": 2000, "split": split})
    write_table(folder / "split.csv", rows)
    return folder


def pixel_series(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    bands = ["S2-L2A-B02", "S2-L2A-B08", "S1-SIGMA0-VV", "S1-SIGMA0-VH"]
    bands += ["AGERA5-PRECIP", "AGERA5-TMEAN", "elevation", "slope"]
    numbers = rng.integers(1, 9000, (40, 3, len(bands))).astype(np.uint16)
    numbers[:, :, 6:] = numbers[:, :1, 6:]
    numbers[:, 1, [0, 1, 4]] = 65535
    numbers[:, 1, 5] = 0
    folder.mkdir(parents=True)
    path = folder / "pixels.npz"
    cover = np.array(["trees", "ignore", "grass", "trees"])[np.arange(40) % 4]
    np.savez_compressed(
        path,
        X=numbers,
        bands=np.array(bands),
        time=np.array(["2021-11-01", "2021-12-01", "2022-02-01"]),
        lon=rng.uniform(8, 9, 40),
        lat=rng.uniform(42, 43, 40),
        landcover10=cover,
        croptype24=np.where(np.arange(40) % 2, "ignore", "maize"),
        block=np.array([f"b{number // 4}" for number in range(40)]),
        split=np.array([PARTS[number // 4 % 5] for number in range(40)]),
    )
    return path


def histograms(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    path = folder / "villages.npz"
    np.savez_compressed(
        path,
        image_hists=rng.integers(0, 500, (40, 8, 12)).astype(np.int32),
        labels=rng.normal(3, 2, 40).astype(np.float32),
        locs=np.repeat(rng.uniform(0, 10, (20, 2)), 2, axis=0).astype(np.float32),
        years=np.array([2005, 2015] * 20, dtype=np.int32),
        fold=np.repeat(np.array(list("ABCD") * 5), 2),
    )
    return path


def _cluster(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).normal(size=(8, 31, 31)).astype(np.float32)
    image[:, 0] = 9  # the southernmost row
    np.savez_compressed(path, x=image)


def dhs(folder: Path) -> Path:
    rows = []
    for number in range(18):
        country = COUNTRIES[("train", "validation", "test")[number % 3]].split()[number % 2]
        year = 2008 + number % 2 * 6
        name = f"{country}-{year}-5#-{number:08d}"
        _cluster(folder / name[:10] / f"{name}.npz", number)
        labels = {"asset_index": number / 7, "women_bmi": "NA" if number == 4 else 20 + number}
        rows.append({"DHSID_EA": name, "year": year, "lat": 60.0, "lon": 20.0, **labels})
    write_table(folder / "dhs_final_labels.csv", rows)
    return folder


def lsms(folder: Path) -> Path:
    changes, surveys = [], []
    for number in range(20):
        area = {"country": "et", "ea_id": f"01{number:03d}"}
        for year in (2011, 2015):
            _cluster(folder / f"et_{year}" / f"{area['ea_id']}.npz", number + year)
            surveys.append({**area, "year": year, "lat": 9.0 + number, "lon": 42.0})
        labels = {"asset_index": number / 7, "asset_index_diff": -number / 5}
        households = {"n": 2 if number == 3 else 8}
        changes.append({**area, "year.x": 2011, "year.y": 2015, **labels, **households})
    write_table(folder / "asset_infrstructure_indicies_lsms_over_time.csv", changes)
    write_table(folder / "asset_infrstructure_indicies_lsms.csv", surveys)
    return folder


def land_cover(folder: Path) -> Path:
    rows = []
    (folder / "tile_triplets").mkdir(parents=True)
    for number in range(18):
        name = f"{number}anchor.npy"
        np.save(folder / "tile_triplets" / name, noise(32, 32, 5, seed=number))
        rows.append({"fileName": name, "landCover": (75, 121)[number % 2], "split": number % 3})
    write_table(folder / "metadata.csv", rows)
    return folder


def brick_kilns(folder: Path) -> Path:
    rows = []
    folder.mkdir(parents=True)
    for file in range(2):
        with h5py.File(folder / f"examples_{file}.hdf5", "w") as examples:
            examples["images"] = noise(9, 13, 32, 32, seed=file, dtype="float32")
        for row in range(9):
            corners = {"lon_top_left": 91.9, "lat_top_left": 21.1}
            corners |= {"lon_bottom_right": 92.1, "lat_bottom_right": 21.3}
            where = {"partition": row % 3, "hdf5_file": file, "hdf5_idx": row}
            rows.append({"y": row % 2, **where, **corners})
    write_table(folder / "list_eval_partition.csv", rows)
    return folder


def crop_yield(folder: Path) -> Path:
    folder = folder / "brazil"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "dev", "test"):
        years = np.array(["2005", "2006"] * 3)
        np.savez_compressed(folder / f"{part}_hists.npz", data=rng.random((6, 12, 4, 9)))
        np.savez_compressed(folder / f"{part}_yields.npz", data=rng.random(6))
        np.savez_compressed(folder / f"{part}_years.npz", data=years)
    return folder


def fields(folder: Path) -> Path:
    rows = []
    for number in range(9):
        write_image(folder / "imgs" / f"{number}.jpeg", noise(32, 32, 3, seed=number))
        for part, rows_inside in (("masks", 2), ("masks_filled", 20)):
            mask = np.zeros((32, 32), np.uint8)
            mask[:rows_inside] = 255
            write_image(folder / part / f"{number}.png", mask)
        box = {"min_lon": 2.0, "max_lon": 2.2, "min_lat": 46.0, "max_lat": 46.2}
        part = ("train", "val", "test")[number % 3]
        rows.append({"ids": number, "indices": number, "split": part, **box})
    write_table(folder / "clean_data.csv", rows)
    return folder


#: Reader: what writes its layout and returns the path to open, and a target.
def rasters(folder: Path) -> Path:
    for number in range(20):
        north = 5_080_000 - number * 1000
        site = folder / PARTS[number % 5] / f"s{number}"
        where = {"crs": UTM, "transform": Affine(10, 0, 465_000, 0, -10, north)}
        for date in ("20200101", "20200601"):
            optical = noise(2, 32, 64, dtype="uint16", high=9000, seed=number)
            write_tiff(site / f"S2_{date}.tif", optical, names=("B04", "B08"), nodata=0, **where)
        mask = noise(1, 32, 64, low=1, high=3, seed=number)
        write_tiff(site / "labels.tif", mask, **where)
    (folder / "samples.yaml").write_text(
        "rasters: [{files: '{split}/{site}/S2_{date}.tif', sensor: sentinel2}]\n"
        "labels: {cover: {files: '{split}/{site}/labels.tif', classes: {1: water, 2: forest}}}\n"
    )
    return folder


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str | None]] = {
    "scenes": (scenes, None),
    "tile_masks": (tile_masks, None),
    "pairs": (pairs, None),
    "pixel_series": (pixel_series, "landcover10"),
    "histograms": (histograms, None),
    "dhs": (dhs, "asset_index"),
    "lsms": (lsms, None),
    "land_cover": (land_cover, None),
    "brick_kilns": (brick_kilns, None),
    "crop_yield": (crop_yield, None),
    "fields": (fields, "area"),
    "rasters": (rasters, None),
}
