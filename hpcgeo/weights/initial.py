"""Initial weights from a safetensors file, which holds no code: a rank reads the rows it keeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.weights.names import TRANSFORMERS, check, published, take
from hpcgeo.zoo import Architecture


class Start:
    """The weights of a file that `hpcgeo export --to safetensors` wrote, or of a ViTMAE."""

    def __init__(
        self, path: Path, architecture: Architecture, shapes: Mapping[str, Sequence[int]]
    ) -> None:
        """Open a file and hold it against the model it is for.

        Args:
            path: of the file.
            architecture: of the MAE.
            shapes: of all weights of the MAE.

        Raises:
            InputError: no such file, or a weight is missing or has another shape.
        """
        self._architecture = architecture
        file = _opened(path)
        names: list[str] = file.keys()
        self._ours = "encoder.class_token" in names
        self._slices = {
            name if self._ours else published(name): file.get_slice(name) for name in names
        }
        known = {name: value.get_shape() for name, value in self._slices.items()}
        try:
            for name, shape in shapes.items():
                check(known, name, shape, architecture, None if self._ours else TRANSFORMERS)
        except InputError as error:
            raise InputError(f"model.weights {path}: {error}") from None

    def rows(self, name: str, shape: Sequence[int], rows: slice) -> Tensor:
        """Return rows of a weight, float32 on the CPU; as `hpcgeo.models.initialise.draw`."""
        if self._ours:
            first, last, _ = rows.indices(shape[0])
            return self._slices[name][first:last].float()
        return take(self._slices, name, shape, rows, self._architecture).float()


class Carried:
    """What a Perceiver takes from another: its backbone, and all stems and heads of equal name."""

    def __init__(self, path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
        """Open a file that `hpcgeo export --to safetensors` wrote.

        Args:
            path: of the file.
            shapes: of all weights of the model.

        Raises:
            InputError: no such file, or its backbone is another one.
        """
        file = _opened(path)
        self._slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        known = {name: list(value.get_shape()) for name, value in self._slices.items()}
        for name, shape in shapes.items():
            if name.startswith("backbone.") and known.get(name) != list(shape):
                raise InputError(
                    f"model.weights {path}: {name} is {known.get(name, 'missing')}, the model has "
                    f"{list(shape)}: choose the model that the file is of, depth and latents too"
                )
        #: The weights that are taken.
        self.names = {name for name, shape in shapes.items() if known.get(name) == list(shape)}

    def rows(self, name: str, rows: slice) -> Tensor:
        """Return rows of a weight that is taken, float32 on the CPU."""
        return self._slices[name][rows.start or 0 : rows.stop].float()


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"model.weights {path}: {error}") from None
