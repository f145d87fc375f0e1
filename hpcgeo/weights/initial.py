"""Initial weights from a run, an export or a public file; a rank reads the rows it keeps."""

import pickle
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.serialization import safe_globals

from hpcgeo.data.sample import Channel
from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.models.initialise import draw
from hpcgeo.models.low_rank import is_addition
from hpcgeo.objectives.objective import Objective
from hpcgeo.options import Model
from hpcgeo.parallel.engine import Initial
from hpcgeo.weights.bands import bands_of, differ, shares, told
from hpcgeo.weights.export import MergedWeights, chosen
from hpcgeo.weights.foreign import Foreign, shape_of
from hpcgeo.weights.foreign_swin import ForeignSwin

#: How the weights of a backbone are called in every objective, and those of its stems.
BACKBONE, STEMS = "backbone.", "backbone.tokenizer."
#: The patch embedding of a ViT, (W, p p C).
EMBED = f"{BACKBONE}embed.weight"
#: How files are called that `torch.save` wrote, and where in them weights are kept.
PICKLES = (".pth", ".pt", ".bin", ".ckpt")
STATES = ("teacher", "model_ema", "model", "state_dict", "network")


class Start:
    """The weights of a file: an export under our names, or a public ViT or Swin
    (`hpcgeo.weights.foreign`, `foreign_swin`).

    The backbone must fit whole; of the rest (decoders, heads, stems) what has the same name and
    shape is taken. Backbones of one model fit each other, whatever objective they were trained by.

    Attributes:
        names: the weights that are taken.
        unused: names in the file that nothing was taken from.
    """

    def __init__(
        self,
        path: Path,
        architecture: Any,
        shapes: Mapping[str, Sequence[int]],
        channels: Sequence[Channel] = (),
        option: str = "model.weights",
    ) -> None:
        """Open a file and hold it against the model it is for.

        Args:
            path: of the file.
            architecture: of the backbone.
            shapes: of all weights of the model.
            channels: bands that a ViT reads; of a file that reads others the kernels are taken by
                wavelength (`hpcgeo.weights.bands`), where both are known.
            option: that names the file, for messages.

        Raises:
            InputError: no such file, or a weight of the backbone is missing or has another shape.
        """
        self._said = f"{option} {path}"
        tensors = opened(path, option)
        if any(name.startswith(BACKBONE) and name in shapes for name in tensors):
            self._source: Source | Rebanded = Ours(tensors)
        elif architecture.family in FOREIGN:
            self._source = FOREIGN[architecture.family](tensors, architecture)
        else:
            raise InputError(
                f"{self._said}: no weight in it is one of a {architecture.name}: it takes "
                f"those that `hpcgeo export --to safetensors` wrote"
            )
        theirs = bands_of(path, architecture.name) if channels else ()
        if theirs and differ(channels, theirs):
            log.info("%s: bands: %s", path, told(channels, theirs))
            self._source = Rebanded(self._source, shares(channels, theirs))
        self.names = set()
        for name, shape in shapes.items():
            try:
                self._source.check(name, shape)
                self.names.add(name)
            except InputError as error:
                # Stems of a Perceiver are as many as its bands: those that are new begin anew.
                own = name.startswith(BACKBONE) and not name.startswith(STEMS)
                if own and not is_addition(name):
                    raise InputError(f"{self._said}: {error}") from None
        self.unused = sorted(self._source.unused)

    def rows(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        """Return rows of a weight, float32 on the CPU; as `hpcgeo.models.initialise.draw`."""
        found = self._source.rows(name, shape, rows)
        if not found.isfinite().all():
            raise InputError(f"{self._said}: {name} is not finite (NaN, infinity)")
        return found


class Ours:
    """The weights of an export under our names; `unused`: names that nothing was taken from."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors, self.unused = tensors, set(tensors)

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a weight that the file lacks, or has in another shape."""
        if name not in self._tensors:
            raise InputError(f"no weight {name!r} in the file")
        if (found := shape_of(self._tensors[name])) != tuple(shape):
            raise InputError(
                f"weight {name!r} has shape {found}, which does not fit {name} {tuple(shape)}: "
                f"choose the model of the same size and bands"
            )
        self.unused.discard(name)

    def rows(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        """Return rows of a weight, float32, reading those alone."""
        first, last, _ = rows.indices(shape[0])
        found: Tensor = self._tensors[name][first:last].float()
        return found


#: What reads public files, by the family of the backbone.
FOREIGN: dict[str, type[Foreign] | type[ForeignSwin]] = {"swin": ForeignSwin, "vit": Foreign}

Source = Ours | Foreign | ForeignSwin


class Rebanded:
    """Weights whose patch embedding reads other bands than those of a file."""

    def __init__(self, source: Source, shares: Tensor) -> None:
        """Take what reads the file, and what `hpcgeo.weights.bands.shares` returns."""
        self._source, self._shares = source, shares

    @property
    def unused(self) -> set[str]:
        return self._source.unused

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a weight that the file lacks, or has in another shape."""
        self._source.check(name, self._theirs(name, shape))

    def rows(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        """Return rows of a weight, float32."""
        found = self._source.rows(name, self._theirs(name, shape), rows)
        if name != EMBED:
            return found
        kernels = found.reshape(len(found), -1, self._shares.shape[1])  # (rows, p p, C')
        return (kernels @ self._shares.T).flatten(1)

    def _theirs(self, name: str, shape: Sequence[int]) -> Sequence[int]:
        if name != EMBED:
            return shape
        mine, theirs = self._shares.shape
        return shape[0], shape[1] // mine * theirs


class StoredTensor:
    """A weight of a checkpoint, read when it is sliced."""

    def __init__(self, weights: MergedWeights, name: str) -> None:
        self._weights, self._name = weights, name

    def get_shape(self) -> tuple[int, ...]:
        """Return its shape; so slices of safetensors call it."""
        return tuple(self._weights.shapes[self._name])

    def __getitem__(self, rows: slice) -> Tensor:
        return self._weights.read(self._name)[rows]


def initial(
    model: Model,
    architecture: Any,
    network: nn.Module,
    seed: int,
    objective: Objective,
    channels: Sequence[Channel] = (),
) -> Initial:
    """Return where the first weights of a network come from: a file, or random numbers.

    Args:
        model: the options; `weights` names the file.
        architecture: of the backbone.
        network: on the meta device.
        seed: of the run.
        objective: of the run.
        channels: bands of its images, where all have the same.

    Raises:
        InputError: the file is none, or its backbone is another one.
    """

    def random(name: str, shape: Sequence[int], rows: slice) -> Tensor:
        own = objective.drawn_as(name)
        return objective.gain(own) * draw(own, shape, rows, seed)

    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    read: dict[str, tuple[str, Start]] = {}  #: by name: what it is called in a file, and the file
    for part, (path, of) in objective.sources(architecture).items():
        option = f"objective.{part}weights"
        own = {name.removeprefix(part): shapes[name] for name in shapes if name.startswith(part)}
        file = Start(path, of, own, channels if EMBED in own else (), option)
        if missing := [name for name in own if name not in file.names]:
            raise InputError(f"{option} {path}: it lacks {brief_names(missing)}")
        _say(path, file, own)
        read |= {part + name: (name, file) for name in own}
    if model.weights is not None:
        file = Start(model.weights, architecture, shapes, channels if EMBED in shapes else ())
        missing = [name for name in shapes if name not in file.names and name not in read]
        _refuse_random_frozen(network, missing, model.weights)
        _say(model.weights, file, [name for name in shapes if name not in read])
        read = {name: (name, file) for name in file.names} | read

    def rows(name: str, shape: Sequence[int], rows: slice) -> Tensor:
        for own in (name, objective.drawn_as(name)):
            if own in read:
                called, file = read[own]
                return file.rows(called, shape, rows)
        return random(name, shape, rows)

    return rows


def _say(path: Path, file: Start, names: Collection[str]) -> None:
    """Say how many of the weights of these names a file gives."""
    missing = [name for name in names if name not in file.names]
    log.info(
        "%s: %d of %d weights%s%s",
        *(path, len(names) - len(missing), len(names)),
        f"; at random: {brief_names(missing)}" if missing else "",
        f"; not used: {brief_names(file.unused)}" if file.unused else "",
    )


def _refuse_random_frozen(network: nn.Module, missing: Sequence[str], path: Path) -> None:
    """Refuse to keep weights as they are that are in no file; an InputError names them."""
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    if frozen := [name for name in missing if name.startswith(STEMS) and name not in trained]:
        raise InputError(
            f"model.weights {path}: it lacks {brief_names(frozen)}, stems of other bands, which "
            f"model.lora_rank would leave at random: leave model.lora_rank out"
        )


def brief_names(names: Sequence[str]) -> str:
    """Return names by their first word, each with how many there are."""
    words = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{word} ({count})" for word, count in words.items())


def opened(path: Path, option: str = "model.weights") -> dict[str, Any]:
    """Return the tensors of a file by name, read when they are sliced.

    A file of safetensors, or what `torch.save` wrote: that is a pickle, of which nothing but
    tensors and plain values is made (weights_only).

    Args:
        path: of the file, of a folder with a model.safetensors, or of a run: of its newest
            checkpoint.
        option: that names it, for messages.

    Raises:
        InputError: there is no such file, or it is neither.
    """
    if (path / "config.yaml").is_file():
        weights = MergedWeights(chosen(path, None)[1])
        return {name: StoredTensor(weights, name) for name in weights.shapes}
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.exists():
        missing = "no run and no model.safetensors in it" if path.is_dir() else "No such file"
        raise InputError(
            f"{option} {path}: {missing}: give a run.dir, or what `hpcgeo export` prints"
        )
    try:
        if file.suffix in PICKLES:
            return _pickled(file, option)
        found: Any = safe_open(file, framework="pt")
        return {name: found.get_slice(name) for name in found.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"{option} {path}: not a safetensors file ({error}); what torch.save wrote is "
            f"called {' or '.join(PICKLES)}"
        ) from None
    except OSError as error:
        raise InputError(f"{option} {path}: {error}") from None


def _pickled(file: Path, option: str) -> dict[str, Any]:
    """Return the tensors of what `torch.save` wrote, or of the first of `STATES` in it."""
    try:
        with safe_globals([Namespace]):  # options that MAE keeps beside its weights; inert
            # What is older than torch 1.6 is no archive and cannot be mapped.
            found = torch.load(file, "cpu", mmap=is_zipfile(file), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{option} {file}: cannot be read as tensors alone: {reason}; a pickle may run "
            f"what it likes: save the state dictionary of a model you trust by safetensors"
        ) from None
    for _ in STATES:  # one inside the other at most: a file may hold itself
        if isinstance(found, dict) and (inner := next((w for w in STATES if w in found), None)):
            found = found[inner]
    tensors = found if isinstance(found, dict) else {}
    tensors = {
        name: value
        for name, value in tensors.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise InputError(
            f"{option} {file}: no tensors by name in it, nor below {', '.join(STATES)}"
        )
    return tensors
