"""What a task predicts, and what is not labelled."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

#: Classes of pixels that are not labelled; of numbers it is NaN.
IGNORED = -1


@dataclass(frozen=True)
class Target:
    """What is predicted: `names` of the classes or of the numbers, one for each output.

    Attributes:
        kind: a row of `hpcgeo list kinds`.
        names: (K,)
        mean, std: (K,) of the training split, of kinds that are standardised: the model predicts
            standardised numbers, metrics see the real ones.
    """

    kind: str
    names: tuple[str, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def labelled(truth: Array) -> npt.NDArray[np.bool_]:
    """Return which classes or numbers are known."""
    return np.isfinite(truth) if truth.dtype.kind == "f" else truth != IGNORED
