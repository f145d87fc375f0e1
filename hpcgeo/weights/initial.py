"""Initial weights from a safetensors file, which holds no code: a rank reads the rows it keeps."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hpcgeo.errors import InputError
from hpcgeo.log import log
from hpcgeo.models.initialise import draw
from hpcgeo.models.low_rank import is_addition
from hpcgeo.objectives.objective import Objective
from hpcgeo.options import Model
from hpcgeo.parallel.engine import Initial
from hpcgeo.weights.names import TRANSFORMERS, check, published, take

#: How the weights of a backbone are called in every objective, and those of its stems.
BACKBONE, STEMS = "backbone.", "backbone.tokenizer."


class Start:
    """The weights of a file: an export under our names, or a ViTMAE of transformers.

    The backbone must fit whole; of the rest (decoders, heads, stems) what has the same name and
    shape is taken. Backbones of a ViT fit each other, whatever objective they were trained by.
    """

    def __init__(self, path: Path, architecture: Any, shapes: Mapping[str, Sequence[int]]) -> None:
        """Open a file and hold it against the model it is for.

        Args:
            path: of the file.
            architecture: of the backbone.
            shapes: of all weights of the model.

        Raises:
            InputError: no such file, or a weight of the backbone is missing or has another shape.
        """
        self._architecture = architecture
        self._path, file = path, _opened(path)
        names: list[str] = file.keys()
        self._ours = any(name.startswith(BACKBONE) for name in names)
        self._slices = {
            name if self._ours else published(name): file.get_slice(name) for name in names
        }
        known = {name: value.get_shape() for name, value in self._slices.items()}
        self.names = set()  #: the weights that are taken
        for name, shape in shapes.items():
            try:
                check(known, name, shape, architecture, None if self._ours else TRANSFORMERS)
                self.names.add(name)
            except InputError as error:
                # Stems of a Perceiver are as many as its bands: those that are new begin anew.
                own = name.startswith(BACKBONE) and not name.startswith(STEMS)
                if own and not is_addition(name):
                    raise InputError(f"model.weights {path}: {error}") from None

    def rows(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        """Return rows of a weight, float32 on the CPU; as `hpcgeo.models.initialise.draw`."""
        if self._ours:
            first, last, _ = rows.indices(shape[0])
            found = self._slices[name][first:last].float()
        else:
            found = take(self._slices, name, shape, rows, self._architecture).float()
        if not found.isfinite().all():
            raise InputError(f"model.weights {self._path}: {name} is not finite (NaN, infinity)")
        return found


def initial(
    model: Model, architecture: Any, network: nn.Module, seed: int, objective: Objective
) -> Initial:
    """Return where the first weights of a network come from: a file, or random numbers.

    Args:
        model: the options; `weights` names the file.
        architecture: of the backbone.
        network: on the meta device.
        seed: of the run.
        objective: of the run.

    Raises:
        InputError: the file is none, or its backbone is another one.
    """

    def random(name: str, shape: Sequence[int], rows: slice) -> Tensor:
        own = objective.drawn_as(name)
        return objective.gain(own) * draw(own, shape, rows, seed)

    if model.weights is None:
        return random
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    file = Start(model.weights, architecture, shapes)
    missing = [name for name in shapes if name not in file.names]
    _refuse_random_frozen(network, missing, model.weights)
    log.info(
        "%s: %d of %d weights%s",
        *(model.weights, len(file.names), len(shapes)),
        f"; at random: {brief_names(missing)}" if missing else "",
    )

    def rows(name: str, shape: Sequence[int], rows: slice) -> Tensor:
        own = objective.drawn_as(name)
        return (file.rows if own in file.names else random)(own, shape, rows)

    return rows


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


def _opened(path: Path) -> Any:
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.exists():
        missing = "no model.safetensors in it" if path.is_dir() else "No such file"
        raise InputError(
            f"model.weights {path}: {missing}: give the folder that `hpcgeo export` prints"
        )
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise InputError(
            f"model.weights {path}: not a safetensors file ({error}); a pickle (.pth) runs what it "
            f"likes when it is loaded: convert one you trust by torch.load(weights_only=True) and "
            f"safetensors.torch.save_file"
        ) from None
    except OSError as error:
        raise InputError(f"model.weights {path}: {error}") from None
