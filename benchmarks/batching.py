"""How samples of 17 to 12,289 tokens share a step: the four modes of batching, same samples, same
weights, by turns.

    python benchmarks/batching.py --rounds 7
    python benchmarks/batching.py --data FOLDER
    python benchmarks/batching.py --missing 0.5

A step is one micro-batch of tables, pixel series and images: forward and backward of the whole
model; `reading` is the block that reads the tokens, the only one that the modes change. Tokens per
second are real tokens, without padding; median and p10 to p90 over rounds, the modes by turns.
`peak` is the most that tensors took in a step, beyond what was there before. `a pass each` is the
way of the paper: every cluster its own forward-backward pass of the whole model. FOLDER holds the
real data sets `lsms_wealth`, `timeseries`, `seg_buildings_oam` and `scene_ucmerced`; without it
samples of the same lengths are made up. With --missing a part of every image, up to this, is
missing, as under clouds: then hardly two samples are of one length.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hpcgeo.data.labelled import open_tasks
from hpcgeo.data.labelled_batches import plain
from hpcgeo.data.sample import Channel, Observation, Sample
from hpcgeo.data.sampling.packing import clusters, waste
from hpcgeo.kinds.target import Target
from hpcgeo.measured import Spread
from hpcgeo.models.initialise import draw
from hpcgeo.models.perceiver import PerceiverBackbone
from hpcgeo.objectives.collate import moved, questions, tokens, whole
from hpcgeo.objectives.multitask.network import Asked, MultiTaskNetwork
from hpcgeo.objectives.multitask.objective import MultiTaskOptions
from hpcgeo.options import Batching
from hpcgeo.profiling.memory import Ledger
from hpcgeo.workloads.mixture import band_of
from hpcgeo.zoo import architecture

#: Limits of padding that are tried, in tokens of a cluster.
LIMITS = (256, 1024, 4096, 16384)
#: Samples of a step by task, of 32.
SHARES = {"tables": 8, "series": 12, "chips_64": 6, "tiles_128": 4, "scenes_256": 2}
#: Reader, folder and the rest of `open_tasks`.
REAL = {
    "tables": ("histograms", "lsms_wealth/lsms_landsat_histograms.npz", {}),
    "series": (
        "pixel_series",
        "timeseries/worldcereal_pixels/fra2023_dekad.npz",
        {"target": "landcover10"},
    ),
    "chips_64": ("scenes", "scene_ucmerced", {"size": 64, "patch": 4}),
    "tiles_128": ("tile_masks", "seg_buildings_oam", {"size": 128, "patch": 4}),
    "scenes_256": ("scenes", "scene_ucmerced", {"size": 256, "patch": 4}),
}
RGB = tuple(Channel("rgb", band) for band in "RGB")
OPTICAL = tuple(Channel("sentinel2", f"B{n:02}") for n in (2, 3, 4, 5, 6, 7, 8, 11, 12))
TABLE = tuple(Channel("landsat8", f"B{n}", 32) for n in range(1, 9))

#: Samples with their tasks, the tasks by name, the channels there are.
Found = tuple[list[tuple[str, Sample]], dict[str, Asked], tuple[Channel, ...]]


@dataclass(frozen=True)
class Way:
    """One way to lay samples out; `apart`: every cluster is a forward-backward pass of its own."""

    name: str
    batching: Batching
    apart: bool = False

    def passes(self, lengths: Sequence[int]) -> list[list[int]]:
        return self.clusters(lengths) if self.apart else [list(range(len(lengths)))]

    def clusters(self, lengths: Sequence[int]) -> list[list[int]]:
        return clusters(lengths, self.batching.mode, self.batching.max_padding)


def ways() -> list[Way]:
    found = [Way("padding", Batching(mode="padding"))]
    for mode in ("dbscan", "bins"):
        found += [
            Way(f"{mode}, {limit:,}", Batching(mode=mode, max_padding=limit)) for limit in LIMITS
        ]
    paper = Way("a pass each (1,024)", Batching(mode="dbscan", max_padding=1024), apart=True)
    return [*found, paper, Way("packed", Batching(mode="packed"))]


def hidden(sample: Sample, part: float) -> Sample:
    """Return a sample without this part of the columns of its images."""
    seen = []
    for one in sample.observations:
        values = one.values.copy()
        if values.shape[-1] > 1 and values.ndim == 4:
            values[..., : int(part * values.shape[-1])] = np.nan
        seen.append(replace(one, values=values))
    return replace(sample, observations=tuple(seen))


def real(folder: Path, count: int) -> Found:
    """Return samples of the real data sets with their tasks, the tasks and the channels."""
    drawn, asked, channels = [], {}, set[Channel]()
    for name, (reader, path, options) in REAL.items():
        part = open_tasks(reader, folder / path, split="train", **options)
        asked[name] = Asked(part.target)
        channels |= set(part.channels)
        for number in range(SHARES[name] * count // 32):
            index = number * 7919 % len(part)
            drawn.append((name, part.read(index)))
    return drawn, asked, tuple(sorted(channels))


def made(count: int) -> Found:
    """Return samples of noise, of the lengths of the real ones."""
    rng = np.random.default_rng(0)

    def sample(name: str) -> Sample:
        if name == "tables":
            channels, shape, patch = TABLE, (2, 8, 32), 1
        elif name == "series":
            channels, shape, patch = OPTICAL, (int(rng.integers(11, 45)), 9, 1, 1), 1
        else:
            side = int(name.rpartition("_")[2])
            channels, shape, patch = RGB, (1, 3, side, side), 4
        values = rng.normal(0, 1, shape).astype(np.float32)
        times = np.stack([np.linspace(7800, 8100, shape[0]), np.full(shape[0], 0.5)], axis=1)
        seen = Observation(channels, values, times, 10.0, patch)
        label = {
            "tables": rng.normal(0, 1, 1).astype(np.float32),
            "tiles_128": rng.integers(0, 2, (128, 128)),
        }.get(name, np.array(rng.integers(3)))
        return Sample((seen,), label, (8.5, 47.0), dense=label.ndim == 2)

    drawn = [
        (name, sample(name)) for name, share in SHARES.items() for _ in range(share * count // 32)
    ]
    kinds = {"tables": ("regression", "y"), "tiles_128": ("segmentation", "01")}
    asked = {}
    for name in SHARES:
        kind, names = kinds.get(name, ("classification", "abc"))
        asked[name] = Asked(Target(kind, tuple(names)))
    return drawn, asked, tuple(sorted({*RGB, *OPTICAL, *TABLE}))


class Bench:
    """One model and one micro-batch, to be run in every way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.dtype = getattr(torch, options.dtype)
        found = real(options.data, options.samples) if options.data else made(options.samples)
        samples, asked, channels = found
        rng = np.random.default_rng(1)
        self.drawn = [
            replace(plain(hidden(sample, options.missing * rng.random()), task, n), position=n)
            for n, (task, sample) in enumerate(samples)
        ]
        self.lengths = [one.length for one in self.drawn]
        options = MultiTaskOptions(name="multitask")
        self.model = MultiTaskNetwork(
            PerceiverBackbone(architecture(options.model), channels, "uniform"), asked, options
        )
        for name, parameter in self.model.named_parameters():
            parameter.data = draw(name, parameter.shape, slice(None), 0)
        self.model.to(self.device)

    def inputs(self, way: Way) -> list[dict[str, object]]:
        """Return what every pass takes, on the device."""
        found = []
        for part in way.passes(self.lengths):
            some = [self.drawn[i] for i in part]
            made, grouping = tokens(some, way.batching, partial(band_of, None), whole(some))
            asked = questions(some, grouping, 1024, 0)
            found.append(moved({"tokens": made, "questions": asked}, self.device))
        return [
            {name: moved(value, self.device) for name, value in one.items()}
            | {"scale": 1 / len(self.drawn)}
            for one in found
        ]

    def step(self, passes: Sequence[dict[str, object]]) -> float:
        """Run forward and backward of a step; return its loss."""
        self.model.zero_grad()
        losses = []
        for inputs in passes:
            with self._precision():
                loss = self.model(**inputs)["loss"]
            loss.backward()
            losses.append(loss.detach())
        return float(sum(losses))

    def reading(self, passes: Sequence[dict[str, object]], flat: Sequence[Tensor]) -> None:
        """Run forward and backward of the block that reads the tokens."""
        self.model.zero_grad()
        backbone = self.model.backbone
        for inputs, given in zip(passes, flat, strict=True):
            given.grad = None
            with self._precision():
                read = backbone.read(backbone.latent_token, given, inputs["tokens"].layout)
            read.float().square().mean().backward()

    def flat(self, passes: Sequence[dict[str, object]]) -> list[Tensor]:
        """Return the tokens of each pass, as a leaf."""
        with torch.no_grad(), self._precision():
            read = [self.model.backbone.tokenizer(inputs["tokens"]) for inputs in passes]
        return [one.flat.requires_grad_() for one in read]

    def held(self, run: Callable[[], object]) -> int:
        """Return the most bytes that tensors took in a step."""
        self.model.zero_grad()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            return torch.cuda.max_memory_allocated() - before
        with Ledger(self.device) as ledger:
            run()
        return ledger.at_peak().total() - sum(ledger.before.values())

    def seconds(self, run: Callable[[], object]) -> float:
        begin = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=32, help="of a step; a multiple of 32")
    parser.add_argument("--model", default="gpna_tiny")
    parser.add_argument("--missing", type=float, default=0.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    bench, every = Bench(options), ways()
    steps, readings = [], []
    for way in every:
        passes = bench.inputs(way)
        steps.append(partial(bench.step, passes))
        readings.append(partial(bench.reading, passes, bench.flat(passes)))
    losses = [step() for step in steps]  # warms up too
    held = [[bench.held(run) for run in runs] for runs in (steps, readings)]
    times: list[list[list[float]]] = [[[] for _ in every] for _ in range(2)]
    for _ in range(options.rounds):
        for number in range(len(every)):
            for which, runs in enumerate((steps, readings)):
                times[which][number].append(bench.seconds(runs[number]))
    total, lengths = sum(bench.lengths), bench.lengths
    table = Table(
        "way",
        title=f"{options.model}, {'real' if options.data else 'made'}: {len(lengths)} samples of "
        f"{min(lengths)} to {max(lengths):,} tokens, {total:,} in all; {options.device}, "
        f"{options.dtype}, {options.rounds} rounds",
    )
    for column in ("clusters", "waste", "peak MiB", "of it reading", "loss differs"):
        table.add_column(column, justify="right")
    for what in ("step", "reading"):
        table.add_column(f"{what}: tokens/s", justify="right")
        table.add_column("p10 - p90", justify="right")
    for number, way in enumerate(every):
        found = way.clusters(lengths)
        row = [f"{len(found)}", f"{waste(lengths, found, way.batching.mode):.1%}"]
        row += [f"{held[which][number] / 2**20:,.0f}" for which in range(2)]
        row.append(f"{abs(losses[number] - losses[-1]):.1e}")
        for which in range(2):
            rates = Spread.of([total / value for value in times[which][number]])
            row += [f"{rates.median:,.0f}", f"{rates.p10:,.0f} - {rates.p90:,.0f}"]
        table.add_row(way.name, *row)
    console = Console(width=160)
    console.print(table)
    for which, what in enumerate(("step", "reading")):
        rates = {
            way.name: total / Spread.of(seconds).median
            for way, seconds in zip(every, times[which], strict=True)
        }
        best = max(rate for name, rate in rates.items() if name.startswith("dbscan"))
        console.print(
            f"{what}: packed {rates['packed'] / rates['dbscan, 1,024']:.2f} x dbscan, 1,024 and "
            f"{rates['packed'] / best:.2f} x its best limit; dbscan, 1,024 "
            f"{rates['dbscan, 1,024'] / rates['padding']:.2f} x padding"
        )


if __name__ == "__main__":
    main()
