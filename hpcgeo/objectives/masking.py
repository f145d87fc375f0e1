"""Which patches are hidden: noise drawn from (seed, epoch, position) of each sample."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcgeo.data.sampling.order import uniform


def noise(seed: int, position: NDArray[np.int64], num_patches: int) -> Tensor:
    """Return one number per patch, (B, N) float32; the smallest ones stay visible.

    Args:
        seed: of the run.
        position: (B,) global positions; they carry the epoch.
    """
    return torch.from_numpy(uniform(seed, position, "mask", num_patches).astype(np.float32))
