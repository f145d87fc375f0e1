"""A training run as a report shows it: the loss curve and the last reconstructions."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from pydantic import BaseModel, Field, ValidationError

from hpcgeo.errors import InputError
from hpcgeo_analysis.plots import COLOURS, Plot, render
from hpcgeo_analysis.words import rate

#: The smoothed curve is a running median over this fraction of the run.
WINDOW = 0.05


#: How a PNG begins.
PNG = b"\x89PNG\r\n\x1a\n"


class _Step(BaseModel):
    """What is shown of a line of metrics; a loss may be NaN, that is how a run diverges."""

    step: float = Field(ge=0, lt=2**63)
    loss: float
    images_per_s: float = Field(gt=0, lt=2**63)


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows in words."""

    name: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Run:
    """What the report shows of one training run."""

    title: str
    sentence: str
    curve: Plot
    picture: Picture | None


def load_run(number: int, folder: Path) -> Run:
    """Read the folder of a run.

    Args:
        number: of the run in the report; it names the figures.
        folder: with metrics.jsonl.

    Raises:
        InputError: no metrics there, or a line that cannot be read.
    """
    metrics = _metrics(folder / "metrics.jsonl")
    losses = [step.loss for step in metrics]
    loss = running_median(losses, max(1, int(WINDOW * len(metrics))))
    speed = rate(median(step.images_per_s for step in metrics))
    sentence = (
        f"{len(metrics):,} steps at {speed} images/s (median); the loss went from "
        f"{loss[0]:.4g} to {loss[-1]:.4g} (running median)."
    )
    name = f"{number}-{folder.name}"
    at = [step.step for step in metrics]

    def draw(axes: Axes) -> None:
        light, dark = COLOURS["DDP"][0], COLOURS["FULL_SHARD"][0]
        axes.plot(at, losses, color=light, alpha=0.35, label="each step")
        axes.plot(at, loss, color=dark, linewidth=2, label="running median")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")

    title = f"Loss: {folder.name}"
    curve = render(f"loss-{name}", title, f"{len(metrics):,} steps", sentence, draw)
    return Run(folder.name, sentence, curve, _picture(folder, f"reconstruction-{name}"))


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


def _metrics(path: Path) -> list[_Step]:
    try:
        with path.open("rb") as file:
            steps = [_Step.model_validate_json(line) for line in file]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: is this the folder of a run?") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{path}: not the metrics of a run: {key} {first['msg']}") from None
    if not steps:
        raise InputError(f"{path}: not the metrics of a run: no step")
    return steps


def _picture(folder: Path, name: str) -> Picture | None:
    pictures = sorted((folder / "reconstructions").glob("step-*.png"))
    if not pictures:
        return None
    step = pictures[-1].stem.removeprefix("step-")
    try:
        png = pictures[-1].read_bytes()
    except OSError as error:
        raise InputError(f"{pictures[-1]}: {error.strerror}") from None
    if not step.isdecimal() or not png.startswith(PNG):
        raise InputError(f"{pictures[-1]}: not a picture of a run: remove it")
    return Picture(name, f"Input, masked and reconstructed chips after {int(step)} steps.", png)
