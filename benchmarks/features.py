"""Features of a data set, files read and features written, against the encoder's forward alone.

    python benchmarks/features.py shards:sets/photos
    python benchmarks/features.py scenes:data/ucmerced --model vit_base --size 224 --rounds 5

The encoder has random weights, which cost as much as trained ones. Forward alone runs the same
blocks on as many batches that lie in memory, prepared. By turns in one process; medians, lowest
and highest, and the median of the ratios of neighbouring runs: 1 is an extraction that waits for
nothing but the encoder.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from hpcgeo.data.labelled import LabelledSplit, open_tasks
from hpcgeo.evaluate.cache import BATCH, extracted
from hpcgeo.evaluate.image_encoder import ImageEncoder, PreparedImages, filled
from hpcgeo.evaluate.probed_data import data_set
from hpcgeo.models.initialise import draw
from hpcgeo.weights.initial import BACKBONE
from hpcgeo.zoo import architecture


def made(part: LabelledSplit, model: str, size: int) -> PreparedImages:
    """Return an encoder of random weights, and how it reads a data set."""
    row, channels = architecture(model), part.channels
    backbone = filled(
        row, len(channels), lambda name, shape: draw(BACKBONE + name, shape, slice(None), 0)
    )
    ones = (1.0,) * len(channels)
    native = (size // row.patch,) * 2
    encoder = ImageEncoder(
        name=model,
        architecture=row,
        backbone=backbone,
        channels=channels,
        mean=ones,
        std=ones,
        unit=None,
        size=size,
        native=native,
        origin={},
    )
    return encoder.reads(part, normalise="data")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="READER:PATH, labelled")
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    task = data_set(options.data).task
    part = open_tasks(task.reader, task.path, split="train", patch=1, size=options.size)
    part = replace(part, indices=part.indices[: options.samples])
    prepared = made(part, options.model, options.size)
    encoder, normalised = prepared.encoder, prepared.split(part)
    blocks = encoder.blocks
    held = prepared.images([normalised.read(n) for n in range(min(BATCH, len(part)))])[:, 0]

    def forward() -> None:
        for first in range(0, len(part), BATCH):
            encoder.tokens(held[: len(part) - first], blocks)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def extraction() -> None:
        with TemporaryDirectory() as folder:
            extracted(prepared, part, blocks, folder=Path(folder), name="features")

    times: dict[str, list[float]] = {"extraction": [], "forward alone": []}
    forward()  # warms caches and pools
    for _ in range(options.rounds):
        for name, run in (("extraction", extraction), ("forward alone", forward)):
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    table = Table("", "samples/s", "lowest", "highest")
    for name, seconds in times.items():
        rates = [len(part) / second for second in seconds]
        table.add_row(name, *(f"{f(rates):.1f}" for f in (statistics.median, min, max)))
    Console().print(table)
    ratios = [f / e for e, f in zip(*times.values(), strict=True)]
    print(f"extraction at {statistics.median(ratios):.2f} of the forward's speed; blocks {blocks}")


if __name__ == "__main__":
    main()
