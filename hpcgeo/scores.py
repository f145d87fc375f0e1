"""The score record: one JSON line that says what a model reached on a task, and by which protocol.

A file of scores is JSON lines; scores are appended, never changed. Two scores may stand in one
column where their `protocol_key` agrees.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt

from hpcgeo.errors import InputError
from hpcgeo.json_lines import TornError, append_line, lines, parsed
from hpcgeo.log import log
from hpcgeo.measured import RecordPart

#: Classes of which the whole confusion is kept.
MOST_CLASSES = 50
#: Characters of a picture in a record.
LARGEST = 1 << 15

#: Fields that two scores of one column share: what was asked, of which samples, in which way.
PROTOCOL = (
    *("task", "reader", "target", "data", "split", "samples", "labels", "metric", "protocol"),
    *("features", "image_size", "normalise", "refit"),
)


class Pretraining(RecordPart):
    """What the pretraining of an encoder took.

    Attributes:
        objective, data: what it learned, and the fingerprint of what it saw.
        steps, samples: it was trained on; a sample counts each time it was seen.
        flops: model FLOPs of all steps; None: not known.
        node_hours: of steps and checkpoints; starts and evaluations are not in it.
        kwh: that counters of the machine said; None: there are none, or it had several starts.
        nodes, device, devices: it ran on, and how many devices; None: not written then.
    """

    objective: str
    data: str | None
    steps: PositiveInt
    samples: PositiveInt
    flops: float | None
    node_hours: float
    kwh: float | None
    nodes: PositiveInt
    device: str
    devices: PositiveInt | None = None


class Mistake(RecordPart):
    """A sample of the scored split that was taken for another class.

    Attributes:
        sample: its number in the split.
        truth, taken_for: classes.
        picture: of it, a small JPEG in base64; None: it is no image.
    """

    sample: NonNegativeInt
    truth: str
    taken_for: str
    picture: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*=*$", max_length=LARGEST)] | None


class Score(RecordPart):
    """What features reached on a task.

    Attributes:
        kind: of the record.
        task: name of the task.
        reader, target, data: what was read, and its fingerprint.
        split, samples: that were scored.
        labels, validation_labels: that were fitted to, and chosen by.
        metric, better: of the score.
        value, low, high: the mean over label subsets, with its interval of 95 % over resamples of
            the scored split.
        values: of each label subset.
        leads: of the encoder over what stands beside it: value, low and high, positive where it is
            better.
        seeds: of the label subsets.
        whose: the features: of the encoder, of random weights, or the samples themselves.
        encoder, fingerprint: what made them, and the fingerprint of its weights.
        parameters, flops: of the encoder; FLOPs of a forward of one image.
        pretraining: of the encoder, where its run says it; of random weights, samples and public
            weights None.
        protocol: what was fitted.
        chosen: features and setting of each label subset, chosen on validation.
        validation: the score of each choice there.
        tried: number of settings among which was chosen.
        transform: bands, mean and deviation.
        image_size: pixels on a side; None: samples are no images of one size.
        features: among which was chosen: blocks and poolings.
        normalise: by whose moments, of the encoder or the data.
        refit: whether the choice was fitted to training and validation splits at last.
        recalls: of each class by its name, of classes: the part of its samples (of a dense task:
            pixels) that were found; over all label subsets, null where there are none.
        confusion: how often each class (row) was taken for each, of at most `MOST_CLASSES`.
        mistakes: of classes, the samples that are surest taken for another one, the worst first, by
            the first label subset; of encoders alone.
        commit, uncommitted_changes, command, versions, host, date: where the number is from.
    """

    schema_version: Literal[1] = 1
    schema_minor: int = 2
    kind: Literal["score"] = "score"
    task: str
    reader: str
    target: str | None
    data: str
    split: str
    samples: int
    labels: int
    validation_labels: int
    metric: str
    better: Literal["higher", "lower"]
    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    values: tuple[float | None, ...]
    leads: dict[str, tuple[FiniteFloat | None, FiniteFloat | None, FiniteFloat | None]]
    seeds: tuple[int, ...]
    whose: Literal["encoder", "random", "samples"]
    encoder: dict[str, str | int | None]
    fingerprint: str | None
    parameters: PositiveInt | None
    flops: PositiveInt | None
    pretraining: Pretraining | None = None
    protocol: str
    chosen: tuple[dict[str, Any], ...]
    validation: tuple[float | None, ...]
    tried: int
    transform: dict[str, Any]
    image_size: int | None
    features: str
    normalise: str
    refit: bool
    recalls: dict[str, FiniteFloat | None] | None = None
    confusion: tuple[tuple[NonNegativeInt, ...], ...] | None = None
    mistakes: tuple[Mistake, ...] | None = None
    commit: str | None
    uncommitted_changes: bool | None
    command: str
    versions: dict[str, str]
    host: str
    date: str

    @property
    def protocol_key(self) -> tuple[Any, ...]:
        """What two scores of one column share."""
        return tuple(getattr(self, name) for name in PROTOCOL)


def append(path: Path, score: Score) -> None:
    """Append one line to a file of scores, in one write; a line torn before it stays alone."""
    append_line(path, score.model_dump_json())


def holds_scores(file: Path) -> bool:
    """Whether the first whole line of a file is a score; runs have other lines in scores.jsonl."""
    for _, line in lines([file], ()):
        try:
            first = json.loads(line)
        except (ValueError, RecursionError):
            continue
        return isinstance(first, dict) and first.get("kind") == "score"
    return False


def files_of(path: Path) -> list[Path]:
    """Return the files of scores that a path names: itself, or `scores*.jsonl` below it."""
    found = sorted(path.rglob("scores*.jsonl")) if path.is_dir() else [path]
    return [file for file in found if file.is_file() and holds_scores(file)]


def read(file: Path, newer: Callable[[str], None] | None = None) -> Iterator[Score]:
    """Yield the scores of a file, without lines torn by a job that was killed, which are said.

    Args:
        file: of scores.
        newer: told of each field that a score of a newer minor version has beside ours, and that is
            left out; None: it is an error.

    Raises:
        InputError: a line that is not a score, or of a newer version; it names file and line.
    """
    for place, line in lines([file], ()):
        try:
            score = parsed(Score, line, place, newer)
        except TornError as error:
            log.warning("%s: left out", error)
            continue
        _check(score, place)
        yield score


def _check(score: Score, place: str) -> None:
    """Refuse what no protocol gives."""
    if score.low is not None and score.high is not None and score.low > score.high:
        raise InputError(f"{place}: low {score.low:g} is above high {score.high:g}")
    if score.confusion is not None:
        classes = len(score.recalls or {})
        if not classes or {len(score.confusion), *map(len, score.confusion)} != {classes}:
            raise InputError(
                f"{place}: confusion needs {classes} rows and columns, one a class of recalls"
            )
