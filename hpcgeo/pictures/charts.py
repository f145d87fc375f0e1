"""Predictions one can look at: numbers against the truth, classes against each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hpcgeo.files import aside

Float64 = NDArray[np.float64]

#: Outputs that are shown side by side, classes whose counts are written out.
MOST_OUTPUTS = 4
MOST_WRITTEN = 12


def scatter(path: Path, truth: Float64, predicted: Float64, names: Sequence[str]) -> None:
    """Draw numbers (n, K) against the truth, a panel per output, as PNG."""
    names = names[:MOST_OUTPUTS]
    figure = Figure(figsize=(4 * len(names), 4), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for column, (panel, name) in enumerate(zip(axes, names, strict=True)):
        y, p = truth[:, column], predicted[:, column]
        known = np.isfinite(y)
        ends = [min(y[known].min(), p.min()), max(y[known].max(), p.max())] if known.any() else []
        panel.plot(ends, ends, color="0.7", linewidth=1)
        panel.scatter(y[known], p[known], s=8, alpha=0.5)
        panel.set(title=name, xlabel="truth", ylabel="prediction")
    _save(figure, path)


def confusion(path: Path, counts: Float64, names: Sequence[str]) -> None:
    """Draw how often each class (row) was taken for each (column), of (K, K) counts, as PNG."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.35 * len(names) + 2)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    panel = figure.subplots()
    panel.imshow(share, vmin=0, vmax=1, cmap="Blues")
    ticks = range(len(names))
    panel.set_xticks(ticks, names, rotation=90)
    panel.set_yticks(ticks, names)
    panel.set(xlabel="prediction", ylabel="truth")
    if len(names) <= MOST_WRITTEN:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            said = f"{counts[row, column]:.0f}"
            panel.text(column, row, said, ha="center", va="center", color=colour)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with aside(path) as partial:
        figure.savefig(partial, format="png", dpi=100)
