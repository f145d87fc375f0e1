"""What a frozen protocol is: it fits many settings at once to features of samples.

A setting is what is chosen on the validation split (a penalty, k, a learning rate). A protocol is
one class and one row of `hpcgeo.evaluate.protocols.table`, or an entry point of
`hpcgeo.protocols`.

Letters: N samples, D values of a vector, K outputs, S settings, n samples of a block.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from hpcgeo.kinds.kind import Kind
from hpcgeo.kinds.states import Confusion
from hpcgeo.kinds.target import Array, Target, labelled
from hpcgeo.parallel.device import usable_device

#: By name what is chosen: {"k": 20}.
Setting = Mapping[str, float | str]


@dataclass(frozen=True)
class Described:
    """What a frozen backbone says of samples, with their labels.

    Attributes:
        vectors: float32 (N, D); of protocols that read tokens (N, T, W), of dense kinds
            (N, h, w, W). It may be a read-only `np.memmap`.
        truth: labels as the kind of the task has them, (N,), (N, K) or (N, H, W).
        clusters: (N,) names of locations.
    """

    vectors: Array
    truth: Array
    clusters: list[str]

    def __len__(self) -> int:
        return len(self.vectors)

    def of(self, rows: Array) -> "Described":
        """Return some of the samples, by number."""
        clusters = [self.clusters[row] for row in rows]
        return Described(self.vectors[rows], self.truth[rows], clusters)

    def block(self, rows: slice) -> Tensor:
        """Return vectors of some rows on the device, float32 (n, ...)."""
        return torch.from_numpy(np.array(self.vectors[rows], np.float32)).to(usable_device())


class FittedModels(ABC):
    """Models that were fitted to one training split, one for each setting."""

    @abstractmethod
    def answers(self, vectors: Tensor) -> Tensor:
        """Return what heads would answer, (S, n, K), or (S, n, K, H, W) of a dense kind.

        Args:
            vectors: float32 (n, ...), on the device.
        """


class FrozenProtocol(ABC):
    """A way to judge features without training the backbone.

    Attributes:
        title: a sentence for `hpcgeo list`.
        reads: what of an image: "vectors" (D,), "tokens" (T, W) or "grids" (h, w, W) of patches.
        at_once: settings that one fit takes; None: all. Fits are shared out over ranks whole.
        rows: samples that are answered at once.
    """

    title: ClassVar[str]
    reads: ClassVar[Literal["vectors", "tokens", "grids"]] = "vectors"
    at_once: int | None = None
    rows: int = 4096

    def suits(self, kind: Kind) -> bool:
        """Return whether it is for a kind of task: by default of whole samples, or of the classes
        of pixels where it reads grids; of none that compares dates, which an encoder reads each
        by itself."""
        if self.reads == "grids":
            return kind.dense and Confusion in kind.states and not kind.every_date
        return kind.labels and not kind.dense

    @abstractmethod
    def settings(self, target: Target, size: int) -> Sequence[Setting]:
        """Return what is tried where `size` samples are fitted to, in order: of equals the middle
        one is taken."""

    @abstractmethod
    def fit(
        self, train: Described, target: Target, settings: Sequence[Setting], seed: int
    ) -> FittedModels:
        """Fit all settings to a training split."""


def known_rows(truth: Array) -> Array:
    """Return the rows that are fitted to: of one class each those with a label, else all."""
    return np.flatnonzero(labelled(truth)) if truth.ndim == 1 else np.arange(len(truth))


def joined(first: Described, second: Described) -> Described:
    """Return the samples of two splits as one."""
    return Described(
        np.concatenate([first.vectors, second.vectors]),
        np.concatenate([first.truth, second.truth]),
        first.clusters + second.clusters,
    )
