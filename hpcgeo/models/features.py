"""What a backbone says of samples: features."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What a backbone says of the S samples of a forward.

    Attributes:
        latents: (S, K, W) what heads attend to.
        vector: (S, V) one vector, for probes and kNN.
        grids: of each group of observations (G, T, L, h, w, C), a vector for each place in the
            frame of an image; what dense heads read around a pixel.
        there: of each group (G, T, L, h, w), which of them are not missing.
    """

    latents: Tensor
    vector: Tensor
    grids: Sequence[Tensor]
    there: Sequence[Tensor]
