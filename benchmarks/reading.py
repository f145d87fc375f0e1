"""Reading samples in random order: our loader's reading against its ceilings and its rivals.

    python benchmarks/reading.py PHOTOS --rounds 7

Builds a data set of the JPEG folder PHOTOS in a temporary folder (uncompressed), writes the same
pixels into one flat file, and reads all samples in the same random order, in micro-batches, by
turns: numpy from the flat file (memory-mapped, and by seek and read), `ShardDataset.read`, h5py
by chunk and by index, and Pillow decoding the JPEGs. One thread, files in the page cache. Prints
the median, the spread and the speed relative to numpy. With --evict, files are dropped from the
page cache before each reading, so that the disk takes part.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from hpcgeo.data.shards.build import build
from hpcgeo.data.shards.dataset import ShardDataset
from hpcgeo.data.shards.executors import run
from hpcgeo.data.shards.index import load
from hpcgeo.data.shards.settings import Settings
from hpcgeo.measured import Spread


def readers(
    photos: Path, folder: Path, dataset: ShardDataset, flat: Path
) -> dict[str, Callable[[np.ndarray], object]]:
    """Return the ways to read a micro-batch of samples, by name."""
    shape = dataset.shape
    count = int(np.prod(shape))
    mapped = np.memmap(flat, np.uint8, "r").reshape(-1, *shape)
    stream = flat.open("rb")
    shards = next(iter(load(folder).layouts.values())).shards
    files = [h5py.File(folder / shard.name)["pixels"] for shard in shards]
    ends = np.cumsum([len(file) for file in files])
    pictures = []
    for shard in shards:
        with h5py.File(folder / shard.name) as file:
            names = file["sources"][:]
            pictures += [photos / names[row].decode() for row in file["source"][:]]

    def seek_and_read(indices: np.ndarray) -> object:
        batch = np.empty((len(indices), *shape), np.uint8)
        for out, index in zip(batch, indices, strict=True):
            stream.seek(int(index) * count)
            out[:] = np.fromfile(stream, np.uint8, count).reshape(shape)
        return batch

    def place(index: int) -> tuple[h5py.Dataset, int]:
        shard = int(np.searchsorted(ends, index, side="right"))
        return files[shard], int(index - ends[shard] + len(files[shard]))

    def chunks(indices: np.ndarray) -> object:
        batch = np.empty((len(indices), *shape), np.uint8)
        for out, index in zip(batch, indices, strict=True):
            file, row = place(index)
            file.id.read_direct_chunk((row, 0, 0, 0), out=out.reshape(-1))
        return batch

    def rows(indices: np.ndarray) -> object:
        batch = np.empty((len(indices), *shape), np.uint8)
        for out, index in zip(batch, indices, strict=True):
            file, row = place(index)
            file.read_direct(out, np.s_[row])
        return batch

    def decode(indices: np.ndarray) -> object:
        return [np.asarray(Image.open(pictures[index])) for index in indices]

    return {
        "numpy memmap": lambda indices: mapped[indices],
        "numpy seek, fromfile": seek_and_read,
        "hpcgeo ShardDataset.read": lambda indices: dataset.read(indices),
        "h5py read_direct_chunk": chunks,
        "h5py read_direct": rows,
        "Pillow from JPEG": decode,
    }


def evict(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--evict", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, flat = Path(temporary, "set"), Path(temporary, "flat")
        settings = Settings(shard_mib=64)
        run(lambda over: bool(build(options.photos, folder, settings, over).num_failed), 1)
        dataset = ShardDataset(folder)
        with flat.open("wb") as file:
            for index in range(len(dataset)):
                file.write(dataset.read(np.array([index]))[0].tobytes())
            os.fsync(file.fileno())
        ways = readers(options.photos, folder, dataset, flat)
        times: dict[str, list[float]] = {name: [] for name in ways}
        order = np.random.default_rng(0).permutation(len(dataset))
        batches = np.array_split(order, -(-len(order) // options.micro_batch))
        for number in range(options.rounds + 1):  # the first warms up
            for name, read in ways.items():
                if options.evict:
                    evict(Path(temporary))
                    evict(options.photos)
                begin = time.perf_counter()
                for batch in batches:
                    read(batch)
                if number:
                    times[name].append(time.perf_counter() - begin)
    table = Table("reader", title=f"{len(order)} samples of {dataset.shape}, uint8, random order")
    for column in ("samples/s", "MB/s", "p10 - p90", "of numpy"):
        table.add_column(column, justify="right")
    fastest = min(Spread.of(times[name]).median for name in list(ways)[:2])
    for name, values in times.items():
        spread = Spread.of([len(order) / value for value in values])
        sample_mb = np.prod(dataset.shape) / 1e6
        table.add_row(
            name,
            f"{spread.median:,.0f}",
            f"{spread.median * sample_mb:,.0f}",
            f"{spread.p10:,.0f} - {spread.p90:,.0f}",
            f"{fastest / Spread.of(values).median:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
