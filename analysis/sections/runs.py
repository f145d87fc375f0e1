"""A training run as a report shows it: the loss curve, scores of tasks, the last pictures."""

import math
import re
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from hpcgeo.errors import InputError
from hpcgeo_analysis import svg
from hpcgeo_analysis.figures.figure import Figure
from hpcgeo_analysis.formatting import counted, rate
from hpcgeo_analysis.svg import Canvas, Scale, apart, width

#: The smoothed curve is a running median over this fraction of the run.
WINDOW = 0.05

#: Points of a curve that are drawn: more than its pixels.
DRAWN = 600

#: Variables of the colours of curves, in turn.
_COLOURS = ("ddp", "full-shard", "hybrid-1", "zero2", "shard-grad-op", "no-shard", "other-line")

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
    """What the report shows of one training run: its curves, and its last pictures."""

    figure: Figure
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
    at, losses = [step.step for step in metrics], [step.loss for step in metrics]
    loss = running_median(losses, max(1, int(WINDOW * len(metrics))))
    name = f"{number}-{folder.name}"
    curves = {"each step": (at, losses), "running median": (at, loss)}
    panels = [_panel("loss", curves)]
    for better in ("higher", "lower"):
        tasks: dict[str, tuple[list[float], list[float]]] = {}
        for score in scores:
            if score.better == better:
                steps, values = tasks.setdefault(f"{score.task} ({score.metric})", ([], []))
                steps.append(score.step)
                values.append(score.value)
        if tasks:
            panels.append(_panel(f"score, {better} is better", tasks))
    title = f"{folder.name}: the loss went from {loss[0]:.4g} to {loss[-1]:.4g}"
    figure = Figure(
        f"run-{name}", title, tuple(panels), sentences=(*_speed(metrics), *_scored(scores))
    )
    return Run(figure, tuple(_pictures(folder, name)))


def _speed(metrics: Sequence[_Step]) -> Iterator[str]:
    speed = rate(median(step.images_per_s for step in metrics))
    tokens = [step.tokens_per_s for step in metrics if step.tokens_per_s]
    if tokens:
        speed += f" samples/s, {rate(median(tokens))} tokens/s"
        yield f"{counted(len(metrics), 'step')} at {speed} (median)."
    else:
        yield f"{counted(len(metrics), 'step')} at {speed} images/s (median)."


def _scored(scores: Sequence[_Score]) -> Iterator[str]:
    for one in (score for score in scores if score.step == scores[-1].step):
        best = f"; best {one.best:.3f} at step {one.best_step:,}" if one.best != one.value else ""
        yield f"{one.task}: {one.metric} {one.value:.3f} at step {one.step:,}{best}."


def _panel(what: str, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """Return curves over steps, each with its name and last value at its end."""
    canvas = Canvas(360, 230)
    names = {name: f"{name} {ys[-1]:.3g}" for name, (_, ys) in curves.items()}
    right = min(150.0, max(width(words) for words in names.values()) + 10)
    steps = [x for xs, _ in curves.values() for x in xs]
    values = [y for _, ys in curves.values() for y in ys if math.isfinite(y)] or [0.0]
    low, high = min(values), max(values)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    across = Scale(min(steps), max(steps), 46, 360 - right)
    up = Scale(low, high, 200, 24)
    canvas.text(0, 12, what, bold=True)
    for value in up.ticks(5):
        canvas.add(svg.path([(46, up(value)), (360 - right, up(value))], class_="grid"))
        canvas.text(40, up(value) + 4, f"{value:.4g}", "muted", "end")
    for value in across.ticks(4):
        canvas.text(across(value), 216, f"{value:,.0f}", "muted", "middle")
    canvas.text((46 + 360 - right) / 2, 229, "step", "muted", "middle")
    ends = [
        up(next((y for y in reversed(ys) if math.isfinite(y)), low)) for _, ys in curves.values()
    ]
    for place, ((name, (xs, ys)), y) in enumerate(
        zip(curves.items(), apart(ends, 14, 24, 200), strict=True)
    ):
        colour = f"stroke:var(--{_COLOURS[place % len(_COLOURS)]})"
        faint = "opacity:.35;" if name == "each step" else ""
        for part in _parts(xs, ys):
            seen = [(across(a), up(b)) for a, b in part]
            canvas.add(svg.path(seen, class_="line", style=faint + colour))
        canvas.text(360 - right + 6, y + 4, names[name], font=10)
    return canvas.svg(f"{what} over steps: {'; '.join(names.values())}")


def _parts(xs: Sequence[float], ys: Sequence[float]) -> Iterator[list[tuple[float, float]]]:
    """Yield a curve in pieces between values that are no numbers, of at most `DRAWN` points."""
    every = max(1, len(xs) // DRAWN)
    pairs = list(zip(xs, ys, strict=True))
    thinned = [*pairs[:-1:every], pairs[-1]]
    for finite, group in groupby(thinned, key=lambda pair: math.isfinite(pair[1])):
        if finite:
            yield list(group)


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
