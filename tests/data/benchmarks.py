"""Tiny folders of public data sets, each as its publisher lays it out, made here from a seed.

What an image shows says its label: photographs of a class are all of one brightness, `shade`, and
what a mask marks is brighter than what is around it.
"""

import csv
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine

from hpcgeo.data.readers.benchmarks.facts import Benchmark, benchmarks
from hpcgeo.data.readers.benchmarks.fuel_moisture import COLUMNS
from tests.data.rasters import UTM, noise, write_tiff

SIDE = 32
#: Images of a class, where the splits are ours or listed: 6 of 10 train, 2 validation, 2 test.
EACH = 10
#: Images of these are 40 x 48: chips of 32 stand over their edges.
LARGE = (40, 48)


def shade(number: int) -> int:
    """Return the brightness of photographs of a class."""
    return 20 + 3 * number


def save(path: Path, pixels: np.ndarray) -> None:
    """Write pixels (H, W) or (H, W, 3) as the ending of the path says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 98} if path.suffix == ".jpg" else {}))


def plain(number: int) -> np.ndarray:
    """Return a photograph (H, W, 3) of a class: even, so that JPEG keeps it."""
    return np.full((SIDE, SIDE, 3), shade(number), np.uint8)


def names_of(row: Benchmark) -> list[str]:
    """Return the names of the classes, made up where a data set only has a number of them."""
    return list(row.known) or [f"class_{number:02d}" for number in range(int(str(row.classes)))]


def write_lists(folder: Path, lists: dict[str, str], names: list[str]) -> None:
    """Write the lists of splits: in turn, of ten images six train, two validate, two test."""
    turns = (["train"] * 6 + ["validation"] * 2 + ["test"] * 2) * len(names)
    for split, file in lists.items():
        mine = [name for name, turn in zip(names, turns, strict=False) if turn == split]
        (folder / file).write_text("\n".join(mine) + "\n")


def class_folders(folder: Path, row: Benchmark) -> Path:
    inside = row.files["folders"][0]
    root = folder / inside
    ending = row.files["extensions"][0]
    splits = row.splits.get("folders", {"": [""]}).values()
    written = []
    for (word,) in splits:
        for number, name in enumerate(names_of(row)):
            deep = f"area_{number % 3}/" if row.name == "millionaid" else ""  # areas of classes
            for image in range(EACH if word != "val" else 2):
                path = root / word / deep / name / f"{name}_{image:03d}{ending}"
                written.append(path.name)
                if row.sensor == "sentinel2":
                    pixels = np.full((13, 16, 16), shade(number) + 1000, np.uint16)
                    write_tiff(path, pixels, crs=UTM, transform=Affine(10, 0, 4e5, 0, -10, 5e6))
                else:
                    save(path, plain(number))
    if "lists" in row.splits:
        listed = [name.replace(".tif", ".jpg") for name in written]
        write_lists(folder, row.splits["lists"], listed)
    return folder


def label_tables(folder: Path, row: Benchmark) -> Path:
    labels = [f"label {number:02d}" for number in range(60)]
    for number, category in enumerate(("airplane", "harbor&port", "wetland")):
        rows = [["image", *labels]]
        for image in range(EACH):
            name = f"{category}_{image:05d}.jpg"
            save(folder / "Images" / category / name, plain(number))
            rows.append([name, *(str(int(each in (number, 59))) for each in range(60))])
        (folder / "labels").mkdir(exist_ok=True)
        with (folder / "labels" / f"{category}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def marked(shape: tuple[int, int], count: int) -> np.ndarray:
    """Return the number of a class for each pixel: stripes of 8 columns, all classes in turn."""
    columns = np.arange(shape[1]) // 8 % count
    return np.broadcast_to(columns, shape).copy()


def masks(folder: Path, row: Benchmark, layout: int = 0) -> Path:
    files = row.files[layout]
    words = row.splits.get("words") or {split: [""] for split in row.splits["names"]}
    for split, (word, *_) in words.items():
        names = row.splits.get("names", {}).get(split) or [
            f"{split[:2]}{each}" for each in range(3)
        ]
        for number, name in enumerate(names):
            classes = marked(LARGE, len(row.known))
            parts = {"split": word, "name": name, "kind": "png"}
            for date, pattern in enumerate(files["dates"]):
                _write_date(folder, row, pattern, parts, 100 * date * (classes > 0), classes)
            _write_mask(folder / files["mask"].format(**parts), row, classes)
            if "days" in files:
                text = folder / files["days"].format(**parts)
                text.write_text(f"date_1: 2016112{number}\ndate_2: 20170829\n")
    return folder


def _write_date(
    folder: Path,
    row: Benchmark,
    pattern: str,
    parts: dict[str, str],
    change: np.ndarray,
    classes: np.ndarray,
) -> None:
    seen = (shade(0) + 10 * classes + change).astype(np.uint8)
    if "{band}" in pattern:
        for band in row.bands:
            write_tiff(folder / pattern.format(**parts, band=band), seen[None].astype(np.uint16))
    elif len(row.bands) != 3:
        write_tiff(folder / pattern.format(**parts), np.stack([seen] * len(row.bands)))
    else:
        save(folder / pattern.format(**parts), np.stack([seen] * 3, axis=-1))


def _write_mask(path: Path, row: Benchmark, classes: np.ndarray) -> None:
    if not row.colours:
        save(path, (classes > 0).astype(np.uint8) * 255)
        return
    palette = np.array([row.colours[name] for name in row.known], np.uint8)
    save(path, palette[classes])


def bigearthnet(folder: Path, row: Benchmark) -> Path:
    where = {"crs": CRS.from_epsg(32633)}
    rows = []
    for number in range(EACH):
        patch = f"S2A_MSIL2A_20170613T101031_{number}_39"
        radar = f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number}_39"
        rows.append(f"{patch},{radar}")
        labels = ["Pastures" if number % 2 else "Rice fields", "Airports"]
        told = json.dumps({"labels": labels})
        both = (
            ("BigEarthNet-v1.0", patch, benchmarks()["bigearthnet"].bands),
            ("BigEarthNet-S1-v1.0", radar, ("VV", "VH")),
        )
        for inside, name, bands in both:
            for band in bands:
                side = {"B01": 20, "B09": 20, "B02": 120, "VV": 120, "VH": 120}.get(band, 60)
                pixels = np.full((1, side, side), 1000 + number, np.uint16)
                step = 1200 / side
                write_tiff(
                    folder / inside / name / f"{name}_{band}.tif",
                    pixels,
                    transform=Affine(step, 0, 4e5 + 1200 * number, 0, -step, 5e6),
                    **where,
                )
            (folder / inside / name / f"{name}_labels_metadata.json").write_text(told)
    write_lists(folder, row.splits["lists"], rows)
    return folder


def fmow(folder: Path, row: Benchmark) -> Path:
    for word, places in (("train", 2), ("val", 1)):
        for number, name in enumerate(row.known):
            for place in range(places):
                for date in range(1 + number % 3):
                    path = (
                        folder / word / name / f"{name}_{place}" / f"{name}_{place}_{date}_rgb.jpg"
                    )
                    save(path, np.full((40 + date, 50, 3), shade(number), np.uint8))
                    told = {
                        "timestamp": f"201{7 - date}-0{1 + date}-04T12:29:21Z",
                        "gsd": 0.5,
                        "bounding_boxes": [{"category": name, "ID": 1, "box": [10, 8, 20, 16]}],
                        "raw_location": f"POLYGON (({place} 10, {place} 12, {place + 2} 12, "
                        f"{place + 2} 10, {place} 10))",
                    }
                    path.with_suffix(".json").write_text(json.dumps(told))
    return folder


@contextmanager
def classes_of_geobench() -> Iterator[Callable[..., Any]]:
    """Make objects that a pickle names as classes of geobench, which is not installed."""
    modules = {
        name: ModuleType(name) for name in ("geobench", "geobench.dataset", "geobench.label")
    }
    sys.modules.update(modules)

    def make(module: str, name: str, /, **fields: Any) -> Any:
        owner = modules[f"geobench.{module}"]
        if not hasattr(owner, name):
            kind = type(name, (), {})
            kind.__module__ = owner.__name__
            setattr(owner, name, kind)
        made = getattr(owner, name)()
        vars(made).update(fields)
        return made

    try:
        yield make
    finally:
        for name in modules:
            del sys.modules[name]


def geo_bench(folder: Path, row: Benchmark, kind: str = "Classification") -> Path:
    partition: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    members: dict[str, list[str]] = {}
    with classes_of_geobench() as make:
        names = ["water", "forest", "town"]
        module = "dataset" if kind == "SegmentationClasses" else "label"
        label_type = make(module, kind, n_classes=3, _class_names=names)
        task = make("dataset", "TaskSpecifications", label_type=label_type, dataset_name="m-made")
        (folder / "task_specs.pkl").write_bytes(pickle.dumps(task, protocol=4))
        for number in range(18):
            name = f"sample_{number:02d}"
            partition[("train", "train", "train", "train", "valid", "test")[number // 3]].append(
                name
            )
            members.setdefault(str(number % 3), []).append(name)
            about: dict[str, Any] = {}
            with h5py.File(folder / f"{name}.hdf5", "w") as file:
                for band, alt, side in (
                    ("02 - Blue", ("2", "02", "blue"), SIDE),
                    ("08A - Vegetation Red Edge", ("8A", "08A"), SIDE // 2),
                ):
                    pixels = np.full((side, side), shade(number % 3), np.int16)
                    if kind == "SegmentationClasses" and side == SIDE:
                        pixels = (shade(0) + 3 * marked((side, side), 3)).astype(np.int16)
                    file.create_dataset(f"{band}_2017-06-13", data=pixels)
                    info = make("dataset", "Sentinel2", name=band, alt_names=alt)
                    about[f"{band}_2017-06-13"] = {"band_info": info, "spatial_resolution": 10}
                about["bands_order"] = list(about)
                if kind == "SegmentationClasses":
                    file.create_dataset("label", data=marked((SIDE, SIDE), 3).astype(np.uint8))
                    about["bands_order"].append("label")
                elif kind == "MultiLabelClassification":
                    about["label"] = np.arange(3) == number % 3
                else:
                    about["label"] = np.int64(number % 3)
                file.attrs["pickle"] = str(pickle.dumps(about))
    (folder / "default_partition.json").write_text(json.dumps(partition))
    if kind == "Classification":
        (folder / "label_map.json").write_text(json.dumps(members))
    return folder


def fuel_moisture(folder: Path, row: Benchmark) -> Path:
    rng = np.random.default_rng(0)
    number = 40
    values = rng.uniform(1, 9000, (number, 3, len(COLUMNS)))
    arrays = {
        "s1_s2_era5_srtm": values,
        "month": (np.arange(number)[:, None] + np.arange(3)) % 12,
        "latlon": rng.uniform(30, 45, (number, 2)),
        "site": np.array([f"site {each // 2}" for each in range(number)]),
        "is_test": (np.arange(number) // 2 % 4 == 3).astype(np.int64),
        "target": values[:, :, 0].mean(1),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def super_resolution(folder: Path, row: Benchmark, layout: int = 0) -> Path:
    """Two areas of 10 images: 64 x 64 pixels, and over the same ground 16 x 16, means of 4 x 4."""
    files = row.files["layouts"][layout]
    for number in range(20):
        parts = {"area": f"AOI_{2 + number % 2}", "set": "SN2", "name": f"img{number // 2}"}
        seen = noise(len(row.bands), 16, 16, dtype="uint16", high=1000, seed=number)
        fine = seen.repeat(4, 1).repeat(4, 2) + noise(1, 64, 64, dtype="uint16", seed=number)
        fine = fine.reshape(-1, 16, 4, 16, 4)
        coarse = fine.mean((2, 4))
        for pattern, pixels, step in (
            (files["fine"], fine.reshape(-1, 64, 64), 0.3),
            (files["coarse"], coarse.round().astype(np.uint16), 1.2),
        ):
            where = Affine(step, 0, 4e5 + 20 * number, 0, -step, 5e6)
            write_tiff(folder / pattern.format(**parts), pixels, crs=UTM, transform=where)
    return folder


WRITERS: dict[str, Callable[..., Path]] = {
    each.__name__: each
    for each in (
        *(class_folders, label_tables, masks, super_resolution),
        *(bigearthnet, fmow, geo_bench, fuel_moisture),
    )
}


def write(name: str, folder: Path, **more: Any) -> Path:
    """Write the folder of a data set by its name."""
    row = benchmarks()[name]
    folder.mkdir(parents=True, exist_ok=True)
    return WRITERS[row.layout](folder, row, **more)
