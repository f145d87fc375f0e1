"""Axis-aligned frequencies (GPNA, equation 2) against vectors of the first quadrant (equation 4).

    python benchmarks/fourier.py --figure docs/images/fourier.png

A function of the plane is fitted by least squares on the features of random points and judged on
others; both encodings have the same number of features and the same lowest and highest frequency.
The functions are alike but for their direction: a smooth random curve of x, of y, of x + y, of
x - y, of the distance to the middle. The error is the root mean square over the standard deviation
of the function: 1 is no better than its mean. Prints the median over seeds and the range.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib import rcParams
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hpcgeo.models.fourier import encode, frequencies

FREQUENCIES, LOWEST, HIGHEST = 64, 0.5, 8.0
TRAIN, TEST, SEEDS = 4000, 4000, 9

#: What the curve is drawn along, one cycle per unit length in each.
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x": lambda x, y: x,
    "y": lambda x, y: y,
    "x + y": lambda x, y: (x + y) / 2**0.5,
    "x - y": lambda x, y: (x - y) / 2**0.5,
    "radial": lambda x, y: torch.hypot(x - 0.5, y - 0.5),
}
ENCODINGS = {"axis-aligned": "#0072b2", "first quadrant": "#d55e00"}
INK, MUTED, GRID = "#1b1f24", "#59636e", "#d5dae0"


def axis_aligned(count: int, lowest: float, highest: float) -> Tensor:
    """Return frequency vectors (count, 2): half on each axis, the same lengths (equation 2)."""
    lengths = frequencies(1, count // 2, lowest, highest)
    zero = torch.zeros_like(lengths)
    return torch.cat([torch.cat([lengths, zero], 1), torch.cat([zero, lengths], 1)])


def curve(along: Tensor, generator: torch.Generator) -> Tensor:
    """Return a smooth random curve: eight waves of 0.5 to 4 cycles, long ones stronger."""
    cycles = torch.rand(8, generator=generator, dtype=torch.float64) * 3.5 + 0.5
    phases = torch.rand(8, generator=generator, dtype=torch.float64)
    return ((2 * torch.pi * (along[:, None] * cycles + phases)).sin() / cycles).sum(1)


def error(vectors: Tensor, along: Callable[[Tensor, Tensor], Tensor], seed: int) -> float:
    """Return the relative error on points that were not fitted."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(TRAIN + TEST, 2, generator=generator, dtype=torch.float64)
    values = curve(along(*points.unbind(1)), generator)
    features = encode(points, torch.zeros_like(points), vectors).double()
    features = torch.cat([features, torch.ones(len(points), 1)], dim=1)
    train, test = features.split([TRAIN, TEST])
    # A little weight decay: low frequencies look alike on the unit square.
    ridge = 1e-3 * torch.eye(train.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(train.T @ train + ridge, train.T @ values[:TRAIN])
    miss = test @ weights - values[TRAIN:]
    return float(miss.square().mean().sqrt() / values[TRAIN:].std())


def draw(path: Path, vectors: dict[str, Tensor], errors: dict[str, dict[str, list[float]]]) -> None:
    """Write the figure: the frequency plane, and every error of every seed."""
    rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
    plane, chart = figure.subplots(1, 2, width_ratios=(1, 1.7))
    for place, (name, colour) in enumerate(ENCODINGS.items()):
        plane.scatter(*vectors[name].T, s=12, color=colour, label=name)
        for row, by_encoding in enumerate(errors.values()):
            values, at = by_encoding[name], row + 0.3 * (place - 0.5)
            chart.scatter(values, [at] * len(values), s=14, color=colour, alpha=0.5, linewidths=0)
            middle = statistics.median(values)
            chart.plot([middle] * 2, [at - 0.13, at + 0.13], color=colour, linewidth=2)
            chart.annotate(
                f"{middle:.2g}",
                (max(values), at),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
    plane.set(
        xlabel="cycles along x",
        ylabel="cycles along y",
        aspect="equal",
        title=f"{FREQUENCIES} frequencies each",
    )
    for axis in (plane.xaxis, plane.yaxis):
        axis.set_ticks([0, 2, 4, 6, 8])
    chart.set(
        xscale="log",
        xlim=(1e-5, 4),
        xlabel="error on other points (1: no better than the mean)",
        ylabel="the function varies along",
        title=f"Least squares, {SEEDS} random functions; bar and number: median",
    )
    chart.set_yticks(range(len(errors)), errors)
    chart.invert_yaxis()
    chart.axvline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    for axes in (plane, chart):
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.title.set(color=INK, fontsize=10)
    figure.legend(*plane.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--figure", type=Path, help="write the figure here")
    options = parser.parse_args()
    vectors = {
        "axis-aligned": axis_aligned(FREQUENCIES, LOWEST, HIGHEST),
        "first quadrant": frequencies(2, FREQUENCIES, LOWEST, HIGHEST),
    }
    errors = {
        function: {
            name: [error(found, along, seed) for seed in range(SEEDS)]
            for name, found in vectors.items()
        }
        for function, along in FUNCTIONS.items()
    }
    table = Table("function of", *(f"{name}: error (range)" for name in vectors), "ratio")
    for function, by_encoding in errors.items():
        cells = [
            f"{statistics.median(values):.2g} ({min(values):.2g} to {max(values):.2g})"
            for values in by_encoding.values()
        ]
        ratios = [one / two for one, two in zip(*by_encoding.values(), strict=True)]
        table.add_row(function, *cells, f"{statistics.median(ratios):.2g}")
    Console().print(table)
    if options.figure:
        draw(options.figure, vectors, errors)


if __name__ == "__main__":
    main()
