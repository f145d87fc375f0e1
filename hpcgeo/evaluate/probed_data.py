"""What is probed on: labelled data that is named, or the tasks of a run, opened for an encoder."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from hpcgeo.data.labelled import LabelledSplit
from hpcgeo.errors import InputError
from hpcgeo.evaluate.encoder import Encoder
from hpcgeo.evaluate.probe_options import ProbeOptions
from hpcgeo.evaluate.protocols.protocol import FrozenProtocol
from hpcgeo.evaluate.protocols.table import PROTOCOLS
from hpcgeo.evaluate.score import found_or_moved, refuse_one_class
from hpcgeo.kinds.metrics import metric_of
from hpcgeo.kinds.table import kind_of
from hpcgeo.log import log
from hpcgeo.options import Mixture, Task
from hpcgeo.tables import find
from hpcgeo.weights.export import config_of
from hpcgeo.workloads.choice import as_samples
from hpcgeo.workloads.mixture import open_task


@dataclass(frozen=True)
class DataSet:
    """A labelled data set to be probed on.

    Attributes:
        name: of the task.
        task: how it is read.
        optional: it is left out where it does not suit, for nobody named it.
        of_run: it is a task of the run, whose data may lie elsewhere now.
    """

    name: str
    task: Task
    optional: bool = False
    of_run: bool = False


@dataclass(frozen=True)
class ProbedSplits:
    """The splits of a data set that are fitted to, chosen by and scored."""

    task: Task
    train: LabelledSplit
    validation: LabelledSplit
    scored: LabelledSplit


def data_set(text: str) -> DataSet:
    """Return what [NAME=]READER:PATH[:TARGET] names.

    Raises:
        InputError: it is not of that form.
    """
    name, equals, rest = text.partition("=")
    if not equals or ":" in name or "/" in name:
        name, rest = "", text
    reader, colon, path = rest.partition(":")
    if not colon or not path:
        raise InputError(
            f"--on {text!r}: READER:PATH, e.g. scenes:data/ucmerced; readers: `hpcgeo list readers`"
        )
    target = None
    if ":" in path and not Path(path).exists() and Path(path.rpartition(":")[0]).exists():
        path, _, target = path.rpartition(":")
    task = Task(reader=reader, path=Path(path), target=target or None)
    return DataSet(name or Path(path).stem, task)


def own_sets(folder: Path, names: Sequence[str], moved: Sequence[str] = ()) -> list[DataSet]:
    """Return the tasks of a run, of all labels: those that it read, or rows of its `data.tasks`.

    Raises:
        InputError: there is no such run, or no such task.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder} holds no run, with tasks of its own: give --on READER:PATH")
    data = as_samples(config_of(folder, moved)).data
    assert isinstance(data, Mixture)
    chosen = data.chosen
    if names:
        chosen = {name: find(data.tasks, name, "task of data.tasks") for name in names}
    return [
        DataSet(name, task.model_copy(update={"labels": 1.0, "crop": None}), not names, True)
        for name, task in chosen.items()
    ]


def opened(
    sets: Sequence[DataSet], encoder: Encoder, options: ProbeOptions, protocol: FrozenProtocol
) -> dict[str, ProbedSplits]:
    """Return the splits of data sets by name, held against encoder and protocol before any work.

    Raises:
        InputError: one that is not optional, or all, cannot be probed; two have one name.
    """
    found: dict[str, ProbedSplits] = {}
    left = []
    for one in sets:
        if one.name in found:
            raise InputError(f"two data sets of one name, {one.name}: give NAME=")
        task = encoder.reading(one.task, options.size)
        with found_or_moved() if one.of_run else nullcontext():
            train = open_task(one.name, task, 0)
        if why := _unsuited(one.name, train, options, protocol):
            if not one.optional:
                raise InputError(why)
            left.append(why)
            continue
        refuse_one_class(one.name, train.target)
        metric_of(options.metric or task.metric, train.target)
        validation, scored = train.other("validation"), train.other("test")
        found[one.name] = ProbedSplits(task, train, validation, scored)
    if not found:
        raise InputError("; ".join(left) or "there is nothing to probe on")
    for why in left:
        log.info("left out: %s", why)
    return found


def _unsuited(
    name: str, train: LabelledSplit, options: ProbeOptions, protocol: FrozenProtocol
) -> str | None:
    """Return why a data set cannot be probed so, or None."""
    kind = kind_of(train.target)
    if kind.every_date:
        return (
            f"{name}: {train.target.kind} compares dates of a place, and an encoder reads each by "
            f"itself: fine-tune it (objective.name multitask)"
        )
    if not protocol.suits(kind):
        fitting = ", ".join(each for each, row in PROTOCOLS.items() if row.suits(kind))
        return (
            f"{name}: protocol {options.protocol} is none for {train.target.kind}: choose with "
            f"--model {fitting or 'nothing: fine-tune it'}"
        )
    for split in ("validation", "test"):
        if not len(train.other(split)):
            return f"{name}: no samples in the split {split!r}"
    return None
