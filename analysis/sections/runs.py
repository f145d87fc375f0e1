"""A training run as a report shows it: the loss curve, scores of tasks, the last pictures."""

import math
import re
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

from matplotlib.axes import Axes
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from hpcgeo.errors import InputError
from hpcgeo_analysis.formatting import rate
from hpcgeo_analysis.plots import CAUSES, COLOURS, MARKERS, OTHERS, Plot, render

#: The smoothed curve is a running median over this fraction of the run.
WINDOW = 0.05


#: How a PNG begins.
PNG = b"\x89PNG\r\n\x1a\n"


Line = TypeVar("Line", bound=BaseModel)


class _Step(BaseModel):
    """What is shown of a line of metrics; a loss may be NaN, that is how a run diverges."""

    step: float = Field(ge=0, lt=2**63)
    loss: float
    images_per_s: float = Field(gt=0, lt=2**63)
    tokens_per_s: float | None = Field(None, gt=0, lt=2**63)


class _Score(BaseModel):
    """What is shown of a line of scores."""

    step: int = Field(ge=0, lt=2**63)
    task: str
    metric: str
    better: Literal["higher", "lower"]
    value: FiniteFloat
    best: FiniteFloat
    best_step: int


@dataclass(frozen=True)
class RunPicture:
    """A PNG and what it shows in words."""

    name: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Run:
    """What the report shows of one training run."""

    title: str
    sentence: str
    curves: tuple[Plot, ...]
    pictures: tuple[RunPicture, ...]


def load_run(number: int, folder: Path) -> Run:
    """Read the folder of a run.

    Args:
        number: of the run in the report; it names the figures.
        folder: with metrics.jsonl.

    Raises:
        InputError: no metrics there, or a line that cannot be read.
    """
    metrics = _lines(folder / "metrics.jsonl", _Step)
    if not metrics:
        raise InputError(f"{folder}/metrics.jsonl: not the metrics of a run: no step")
    there = (folder / "scores.jsonl").exists()
    scores = _lines(folder / "scores.jsonl", _Score) if there else []
    losses = [step.loss for step in metrics]
    loss = running_median(losses, max(1, int(WINDOW * len(metrics))))
    speed = f"{rate(median(step.images_per_s for step in metrics))} images/s"
    tokens = [step.tokens_per_s for step in metrics if step.tokens_per_s]
    if tokens:
        speed = f"{speed.replace('images', 'samples')}, {rate(median(tokens))} tokens/s"
    sentence = (
        f"{len(metrics):,} steps at {speed} (median); the loss went from "
        f"{loss[0]:.4g} to {loss[-1]:.4g} (running median)."
    )
    last = [score for score in scores if score.step == scores[-1].step]
    said = [
        f"{one.task} {one.metric} {one.value:.3f}"
        + ("" if one.best == one.value else f" (best {one.best:.3f} at step {one.best_step:,})")
        for one in last
    ]
    if said:
        sentence += f" On the validation splits, at step {last[0].step:,}: {', '.join(said)}."
    name = f"{number}-{folder.name}"
    at = [step.step for step in metrics]

    def plot(axes: Axes) -> None:
        light, dark = COLOURS["DDP"][0], COLOURS["FULL_SHARD"][0]
        axes.plot(at, losses, color=light, alpha=0.35, label="each step")
        axes.plot(at, loss, color=dark, linewidth=2, label="running median")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")

    title = f"Loss: {folder.name}"
    curves = [render(f"loss-{name}", title, f"{len(metrics):,} steps", sentence, plot)]
    if scores:
        curves += _scored(name, folder.name, scores)
    return Run(folder.name, sentence, tuple(curves), tuple(_pictures(folder, name)))


def _scored(name: str, title: str, scores: Sequence[_Score]) -> Iterator[Plot]:
    """Yield a figure of the metrics that are the better the higher they are, and of the others."""
    for better in ("higher", "lower"):
        lines: dict[str, list[_Score]] = {}
        for score in scores:
            if score.better == better:
                lines.setdefault(f"{score.task} ({score.metric})", []).append(score)
        if not lines:
            continue

        def plot(axes: Axes, lines: dict[str, list[_Score]] = lines, better: str = better) -> None:
            colours = [pair[0] for pair in (*CAUSES, *OTHERS)]
            for number, (label, line) in enumerate(lines.items()):
                axes.plot(
                    [score.step for score in line],
                    [score.value for score in line],
                    color=colours[number % len(colours)],
                    marker=MARKERS[number % len(MARKERS)],
                    label=label,
                )
            axes.set_xlabel("step")
            axes.set_ylabel(f"{better} is better")
            if better == "lower":
                axes.set_yscale("log")

        words = f"Scores: {title}", "validation splits", f"tasks: {', '.join(lines)}"
        yield render(f"scores-{better}-{name}", *words, plot)


def running_median(values: Sequence[float], window: int) -> list[float]:
    """Return the median of the last `window` values at each place; NaN is left out.

    >>> running_median([3.0, 1.0, 2.0, 8.0], 3)
    [3.0, 2.0, 2.0, 2.0]
    """
    ordered: list[float] = []
    found = []
    for place, value in enumerate(values):
        if not math.isnan(value):
            insort(ordered, value)
        old = values[place - window] if place >= window else math.nan
        if not math.isnan(old):
            del ordered[bisect_left(ordered, old)]
        middle = len(ordered) // 2
        if not ordered:
            found.append(math.nan)
        elif len(ordered) % 2:
            found.append(ordered[middle])
        else:
            found.append((ordered[middle - 1] + ordered[middle]) / 2)
    return found


def _lines(path: Path, kind: type[Line]) -> list[Line]:
    what = path.stem
    try:
        with path.open("rb") as file:
            lines = [kind.model_validate_json(line) for line in file]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: is this the folder of a run?") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{path}: not the {what} of a run: {key} {first['msg']}") from None
    return lines


def _pictures(folder: Path, name: str) -> Iterator[RunPicture]:
    """Yield the last picture of every kind: the reconstructions, and one of every task."""
    newest: dict[str, Path] = {}
    for pattern in ("reconstructions/step-*.png", "pictures/*step-*.png"):
        for path in sorted(folder.glob(pattern)):
            newest[path.stem.rpartition("step-")[0].rstrip("-") or "reconstruction"] = path
    for what, path in newest.items():
        step = path.stem.rpartition("step-")[2]
        try:
            png = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        if not step.isdecimal() or not png.startswith(PNG):
            raise InputError(f"{path}: not a picture of a run: remove it")
        shown = f"Task {what}: truth and prediction on the validation split"
        if path.parent.name == "reconstructions":
            shown = "Input, masked and reconstructed chips"
        link = re.sub(r"[^\w.-]", "_", f"{what}-{name}")
        yield RunPicture(link, f"{shown} after {int(step)} steps.", png)
