"""From stored sample to view: ours against a folder of JPEG, webdataset and mosaicml-streaming.

    python benchmarks/views.py PHOTOS --chip 224 64 --rounds 5

PHOTOS, a folder of JPEG in classes, becomes a data set, a tar file and an MDS folder. Each way then
makes micro-batches of float32 views by the same recipe (crop of 0.2 to 1 of the area, resized with
antialiasing, both flips, a rotation by a multiple of 90 degrees, normalised), by turns, on one
thread, files in the page cache. Prints the median of views/s, the spread and the ratio to Pillow. A
peer that is not installed is left out.
"""

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from hpcgeo.data.loader import ImageBatch, ImageBatches, Loader
from hpcgeo.data.shards.build import build
from hpcgeo.data.shards.dataset import ShardDataset
from hpcgeo.data.shards.executors import run
from hpcgeo.data.shards.settings import Settings
from hpcgeo.data.views import RandomView, Views
from hpcgeo.measured import Spread
from hpcgeo.options import Augment

Batches = Iterator[Any]
TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


class Recipe:
    """What a user would write: the random view of a picture, as an array."""

    def __init__(self, chip: int, mean: np.ndarray, std: np.ndarray) -> None:
        self.chip, self.random = chip, np.random.default_rng(0)
        self.mean, self.std = mean.astype(np.float32), std.astype(np.float32)

    def __call__(self, picture: Image.Image) -> np.ndarray:
        random, (wide, high) = self.random, picture.size
        while True:
            area = random.uniform(0.2, 1) * wide * high
            ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
            width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if width <= wide and height <= high:
                break
        left, top = random.integers(wide - width + 1), random.integers(high - height + 1)
        box = int(left), int(top), int(left + width), int(top + height)
        view = picture.resize((self.chip, self.chip), Image.Resampling.BILINEAR, box=box)
        if turn := TURNS[random.integers(4)]:
            view = view.transpose(turn)
        for flip in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
            if random.random() < 0.5:
                view = view.transpose(flip)
        return ((np.asarray(view, np.float32) - self.mean) / self.std).transpose(2, 0, 1)

    def decoded(self, data: bytes) -> np.ndarray:
        return self(Image.open(io.BytesIO(data)).convert("RGB"))


def batched(views: Iterator[np.ndarray], size: int) -> Batches:
    while several := list(islice(views, size)):
        yield torch.from_numpy(np.stack(several))


def ours(dataset: ShardDataset, chip: int, size: int) -> Batches:
    views = Views(dataset, [RandomView((chip, chip), Augment())], seed=0)
    loader = Loader(ImageBatches(dataset, 0, size, 0, 1, views.prepare), accumulate=1, workers=0)
    return (views.finish(batch, torch.device("cpu"))[0] for batch in loader)


def folder_of_jpeg(paths: list[Path], recipe: Recipe, size: int) -> Batches:
    order = recipe.random.permutation(len(paths))
    return batched((recipe(Image.open(paths[n]).convert("RGB")) for n in order), size)


def webdataset_of(tar: Path, recipe: Recipe, size: int) -> Batches:
    import webdataset

    # Without the length of a shuffle buffer, to its advantage.
    samples = webdataset.WebDataset(str(tar), shardshuffle=False).to_tuple("jpg")
    return batched((recipe.decoded(data) for (data,) in samples), size)


def streaming_of(folder: Path, recipe: Recipe, size: int) -> Batches:
    from streaming import StreamingDataset

    samples = StreamingDataset(local=str(folder), shuffle=True, batch_size=size)
    return batched((recipe(sample["image"].convert("RGB")) for sample in samples), size)


def write_tar(paths: list[Path], path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for number, photo in enumerate(paths):
            tar.add(photo, f"{number:06d}.jpg")


def write_mds(paths: list[Path], folder: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "jpeg"}) as writer:
        for photo in paths:
            writer.write({"image": Image.open(photo)})


def ways(
    paths: list[Path], dataset: ShardDataset, stored: Path
) -> dict[str, Callable[[int, int], Batches]]:
    """Return by name how to make micro-batches of views, (chip, size), with what is installed."""
    mean, std = dataset.mean[0], dataset.std[0]
    found: dict[str, Callable[[int, int], Batches]] = {
        "hpcgeo": lambda chip, size: ours(dataset, chip, size),
        "Pillow, folder of JPEG": lambda chip, size: folder_of_jpeg(
            paths, Recipe(chip, mean, std), size
        ),
    }
    try:
        import webdataset  # noqa: F401

        write_tar(paths, stored / "photos.tar")
        found["webdataset"] = lambda chip, size: webdataset_of(
            stored / "photos.tar", Recipe(chip, mean, std), size
        )
    except ImportError:
        print("webdataset is not installed")
    try:
        write_mds(paths, stored / "mds")
        found["mosaicml-streaming"] = lambda chip, size: streaming_of(
            stored / "mds", Recipe(chip, mean, std), size
        )
    except ImportError:
        print("mosaicml-streaming is not installed")
    return found


def on_a_device(dataset: ShardDataset, chip: int, size: int, rounds: int) -> None:
    """Print how many views an accelerator makes of samples that are in pinned memory."""
    device = torch.device("cuda")
    views = Views(dataset, [RandomView((chip, chip), Augment())], seed=0, cut=False)
    index = np.arange(size) % len(dataset)
    batch = views.prepare(ImageBatch.read(dataset, index, index)).pin_memory()
    seconds = []
    for number in range(rounds + 3):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(10):
            views.finish(batch, device)
        torch.cuda.synchronize()
        if number >= 3:
            seconds.append((time.perf_counter() - begin) / 10)
    print(f"{torch.cuda.get_device_name()}: {size / Spread.of(seconds).median:,.0f} views/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--chip", type=int, nargs="+", default=[224, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1024, help="views of a round")
    parser.add_argument("--micro-batch", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix in {".jpg", ".jpeg"})
    with tempfile.TemporaryDirectory() as temporary:
        stored = Path(temporary)
        run(lambda over: build(options.photos, stored / "set", Settings(), over).num_failed, 1)
        dataset = ShardDataset(stored / "set")
        found = ways(paths, dataset, stored)
        for chip in options.chip:
            times: dict[str, list[float]] = {name: [] for name in found}
            for number in range(options.rounds + 1):  # the first warms up
                for name, make in found.items():
                    begin = time.perf_counter()
                    seen = 0
                    for batch in make(chip, options.micro_batch):
                        seen += len(batch)
                        if seen >= options.samples:
                            break
                    if number:
                        times[name].append(seen / (time.perf_counter() - begin))
            show(chip, times)
            if torch.cuda.is_available():
                on_a_device(dataset, chip, options.micro_batch, options.rounds)


def show(chip: int, speeds: dict[str, list[float]]) -> None:
    table = Table("way", title=f"views of {chip} x {chip}, one thread")
    for column in ("views/s", "p10 - p90", "of Pillow"):
        table.add_column(column, justify="right")
    plain = Spread.of(speeds["Pillow, folder of JPEG"]).median
    for name, values in speeds.items():
        spread = Spread.of(values)
        table.add_row(
            name,
            f"{spread.median:,.0f}",
            f"{spread.p10:,.0f} - {spread.p90:,.0f}",
            f"{spread.median / plain:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
