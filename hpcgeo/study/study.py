"""A study file, and the steps it asks for: a pure function of the file and the folder.

A member is what gets a row on the page of scores: a model that is pretrained, or public weights.
Its steps are commands of ours, in order.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from hpcgeo.config import RunConfig, load
from hpcgeo.errors import InputError
from hpcgeo.evaluate.protocols.table import protocol_of
from hpcgeo.sweep.points import chosen_values, overrides_of
from hpcgeo.tables import checked, find, own
from hpcgeo.zoo import Architecture, architecture

#: What a member is called by its folder, and a place in braces.
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
PlaceName = Annotated[str, Field(pattern=r"^\w+$")]
#: A place that a study names in braces, and the folder of what it makes.
PLACE = re.compile(r"\{(\w+)\}")
OUT = "out"
#: Steps of a run whose length is not known yet.
LONGEST = 10**9


class StudyPart(BaseModel):
    """A strict, immutable piece of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pretrain(StudyPart):
    """A recipe, with what all of its runs change, and what varies: as `set`, `grid` of a sweep."""

    recipe: str
    set: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    flops: float | None = Field(None, gt=0)  #: model FLOPs of each: `train.steps` follows


class Probe(StudyPart):
    """A probe of every encoder: data, and options of `hpcgeo probe` by their names."""

    data: list[str] = Field(min_length=1)
    options: dict[str, str | int | float | bool] = {}


class Finetune(StudyPart):
    """A fine-tuning of every encoder, and of the same model from random weights."""

    recipe: str
    set: dict[str, Any] = {}


class StudyFile(StudyPart):
    """A study file."""

    title: str
    machine: str = "local"
    nodes: PositiveInt = 1
    ranks: PositiveInt  #: of every command, on all nodes
    hours: float = Field(gt=0, le=24 * 30)  #: the longest that the job of a member may take
    starts: PositiveInt = 1  #: times that it may start, where it stops in time and has to go on
    places: dict[PlaceName, str] = {}  #: folders and files, named in braces elsewhere
    pretrain: dict[Name, Pretrain] = {}
    encoders: dict[Name, str] = {}  #: that stand beside, as `hpcgeo probe` takes them
    probe: dict[Name, Probe] = {}
    finetune: dict[Name, Finetune] = {}

    @property
    def node_hours(self) -> float:
        """What a member costs at most, all its starts together."""
        return self.nodes * self.hours * self.starts


@dataclass(frozen=True)
class StudyStep:
    """One command of a member.

    Attributes:
        name: unique in its member.
        words: after `hpcgeo`.
        needs: steps that are done before.
        trains: it may stop in time and go on.
        reads: files that are there before the study.
        writes: a file of scores, which a second try begins anew.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    trains: bool = False
    reads: tuple[str, ...] = ()
    writes: Path | None = None

    @property
    def places(self) -> list[str]:
        """Where it leaves what it does, which no other step may."""
        folders = [w for w in self.words if w.startswith("run.dir=")]
        return [*folders, *([str(self.writes)] if self.writes else [])]


@dataclass(frozen=True)
class Member:
    """A row of the study: what it is called, and its steps in order."""

    name: str
    steps: tuple[StudyStep, ...]


@dataclass(frozen=True)
class _Begin:
    """What the fine-tunings of a member begin with."""

    encoder: str
    model: str
    weights: str
    needs: tuple[str, ...] = ()


def load_study(file: Path, places: Mapping[str, str]) -> StudyFile:
    """Read a study file.

    Args:
        places: where those that it names lie here.

    Raises:
        InputError: no such file or place, or a line that breaks a rule.
    """
    study = checked(StudyFile, own(file, "study"), f"study {file}")
    for name in places:
        find(study.places, name, "place")
    if OUT in study.places:
        raise InputError(
            f"study {file}: places.{OUT} is the folder of the study: name it otherwise"
        )
    if not study.pretrain and not study.encoders:
        raise InputError(f"study {file}: nothing to judge: give `pretrain`, `encoders`, or both")
    if not study.probe and not study.finetune:
        raise InputError(f"study {file}: nothing to judge by: give `probe`, `finetune`, or both")
    return study.model_copy(update={"places": study.places | dict(places)})


def members(study: StudyFile, out: Path) -> list[Member]:
    """Return what a study does, below a folder.

    Raises:
        InputError: an option is wrong, a place is not named, or two members have one name.
    """
    fill = _Filled(study.places | {OUT: str(out)})
    found = [_pretrained(study, fill, out, name, run) for name, run in _runs(study, fill, out)]
    found += [_public(study, fill, out, name, text) for name, text in study.encoders.items()]
    _refuse_twice("members of the study are called", [member.name for member in found])
    places = [place for member in found for step in member.steps for place in step.places]
    _refuse_twice("steps of the study write to", places)
    return found


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two {what} {', '.join(sorted(twice))}: give one another name")


class _Filled:
    """Puts places where braces name them."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __call__(self, text: str) -> str:
        return PLACE.sub(lambda found: find(self._places, found[1], "place"), text)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        return [self(text) for text in overrides_of(values)]


def _runs(
    study: StudyFile, fill: _Filled, out: Path
) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Yield name, and recipe with options, of every model that is pretrained."""
    for name, one in study.pretrain.items():
        cells = [
            chosen_values(dict(zip(one.grid, values, strict=True)))
            for values in itertools.product(*one.grid.values())
        ]
        for varied in cells:
            other = [key for key in varied if any(cell.get(key) != varied[key] for cell in cells)]
            words = [name, *(_word(varied[key]) for key in other)]
            member = re.sub(r"[^\w.-]+", "_", "-".join(words))
            folder = out / "pretrained" / member
            options = [*fill.overrides(one.set | varied), *_place(study, folder)]
            if one.flops is not None:
                options.append(_steps(member, one.recipe, options, one.flops, study.ranks))
            yield member, (one.recipe, options)


def _word(value: Any) -> str:
    """Return what a value is called in the name of a member."""
    return str(value["name"]) if isinstance(value, dict) and "name" in value else str(value)


def _steps(member: str, recipe: str, options: Sequence[str], flops: float, ranks: int) -> str:
    """Return the option of as many steps as take so many model FLOPs."""
    from hpcgeo.workloads.choice import workload_of

    if any(option.startswith("train.steps=") for option in options):
        raise InputError(f"{member}: flops and train.steps: give one of the two")
    # The longest run: what must be shorter than it is judged by its real length.
    config = load(recipe, [*options, f"train.steps={LONGEST}"])
    batch = config.train.micro_batch * config.train.accumulate * ranks // config.parallel.tensor
    each = workload_of(config).model_flops(batch)
    if each is None:
        raise InputError(
            f"{member}: flops: those of objective {config.objective.name} on model "
            f"{config.model.name} are not known in closed form: give train.steps in `set`"
        )
    if each > flops:
        raise InputError(f"{member}: flops {flops:g}: one step takes {each:.3g}")
    return f"train.steps={round(flops / each)}"


def _place(study: StudyFile, folder: Path) -> list[str]:
    return [f"run.dir={folder}", f"launch.machine={study.machine}"]


def _pretrained(
    study: StudyFile, fill: _Filled, out: Path, name: str, run: tuple[str, list[str]]
) -> Member:
    recipe, options = run
    try:
        config = load(recipe, options)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    folder = str(config.run.dir)
    first = StudyStep("pretrain", ("train", recipe, *options), trains=True)
    begin = _Begin(folder, config.model.name, folder, (first.name,))
    return Member(name, (first, *_judged(study, fill, out, name, begin)))


def _public(study: StudyFile, fill: _Filled, out: Path, name: str, text: str) -> Member:
    encoder = fill(text)
    model, weights = _weights_of(encoder)
    return Member(name, tuple(_judged(study, fill, out, name, _Begin(encoder, model, weights))))


def _weights_of(encoder: str) -> tuple[str, str]:
    """Return model and file, or folder of a run, of an encoder."""
    from hpcgeo.weights.export import config_of
    from hpcgeo.weights.public import public_weights

    name, colon, file = encoder.partition(":")
    if colon and not Path(encoder).exists():
        return public_weights(name).model, file
    return config_of(Path(encoder)).model.name, encoder


def _judged(
    study: StudyFile, fill: _Filled, out: Path, name: str, begin: _Begin
) -> Iterator[StudyStep]:
    """Yield the steps that judge an encoder."""
    for probe, asked in study.probe.items():
        _refuse_options(name, probe, asked, begin.model)
        file = out / "scores" / f"probe-{probe}" / f"scores-{name}.jsonl"
        words = ["probe", begin.encoder, *(w for text in asked.data for w in ("--on", fill(text)))]
        for option, value in asked.options.items():
            if isinstance(value, bool):
                words += [f"--{option}" if value else f"--no-{option}"]
            else:
                words += [f"--{option}", str(value)]
        words += ["--cache", str(out / "features"), "--out", str(file)]
        reads = () if begin.needs else (begin.weights,)
        yield StudyStep(f"probe {probe}", tuple(words), begin.needs, reads=reads, writes=file)
    for tuning, tuned in study.finetune.items():
        folder = out / "finetuned" / tuning / "tuned" / name
        of_random = out / "finetuned" / tuning / "random" / name
        runs = {
            f"finetune {tuning}": (folder, [f"model.weights={begin.weights}"], begin.needs),
            f"finetune {tuning} from random weights": (of_random, [], ()),
        }
        for step, (where, weights, needs) in runs.items():
            options = [f"model.name={begin.model}", *fill.overrides(tuned.set), *weights]
            words = ["train", tuned.recipe, *options, *_place(study, where)]
            yield StudyStep(step, tuple(words), needs, trains=True)
        file = out / "scores" / f"finetune-{tuning}" / f"scores-{name}.jsonl"
        words = ["evaluate", str(folder), str(of_random), "--baselines", "none"]
        words += ["--scores", str(file)]
        yield StudyStep(f"score {tuning}", tuple(words), tuple(runs), writes=file)


def _refuse_options(name: str, probe: str, asked: Probe, model: str) -> None:
    """Refuse options of a probe that would only be found wrong behind the pretraining."""
    row, size = architecture(model), asked.options.get("size")
    try:
        if "help" in asked.options:
            raise InputError("help is no option of a study")
        protocol_of(str(asked.options.get("model", "linear")))
        if isinstance(size, int) and isinstance(row, Architecture):
            row.num_patches((size, size))
    except InputError as error:
        raise InputError(f"{name}: probe {probe}: {error}") from None


def train_config(step: StudyStep) -> RunConfig:
    """Return the configuration of a step that trains, without weights that are yet to be made."""
    _, recipe, *options = step.words  # as of `_pretrained`, `_judged`
    kept = [option for option in options if not option.startswith("model.weights=")]
    return load(recipe, kept if step.needs else options)


def labels(every: Sequence[Member]) -> list[str]:
    """Return a name for every step."""
    return [f"{member.name}: {step.name}" for member in every for step in member.steps]
