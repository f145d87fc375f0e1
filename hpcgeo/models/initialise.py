"""Initial weights, drawn row by row, so that a shard of a parameter can be drawn without the whole.

The values of a row depend on (seed, name of the parameter, row) alone: every strategy and every
number of ranks starts from the same bits. As in MAE: Xavier uniform matrices, zero biases, unit
norms, tokens normal with deviation 0.02; a logarithm of a variance and what low-rank additions end
with begin at zero, the factor of cosines at 10 (Swin v2).
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hpcgeo.models.low_rank import FROM


def draw(name: str, shape: Sequence[int], rows: slice, seed: int) -> Tensor:
    """Return rows of the initial value of a parameter, float32 on the CPU.

    Args:
        name: the qualified name; its last word is `bias`, `weight`, `log_scale`, `..._token` or
            `..._log_variance`.
        shape: of the whole parameter; a weight of two dimensions is a matrix (out, in), of four a
            convolution (out, in, height, width), of one a norm.
        rows: which rows of the first dimension.
        seed: of the run.

    Raises:
        ValueError: no rule for a parameter of that name and shape.
    """
    owner, _, kind = name.rpartition(".")
    if kind == "bias" or kind.endswith("log_variance") or owner.endswith(f".{FROM}"):
        return torch.zeros(shape)[rows]
    if kind == "log_scale":
        return torch.full(shape, math.log(10.0))[rows]
    if kind == "weight" and len(shape) == 1:
        return torch.ones(shape)[rows]
    if kind.endswith("_token"):
        return torch.empty(shape).normal_(0, 0.02, generator=_generator(seed, name, 0))[rows]
    if kind == "weight" and len(shape) in (2, 4):
        # Matrices: by fan in and fan out. Convolutions: by fan in alone (He et al. 2015,
        # arXiv 1502.01852), so that what a stem says is as large as the encodings beside it.
        fan = sum(shape) if len(shape) == 2 else math.prod(shape[1:])
        bound = math.sqrt(6 / fan)
        values = torch.empty(len(range(*rows.indices(shape[0]))), *shape[1:])
        for row, value in zip(range(*rows.indices(shape[0])), values, strict=True):
            value.uniform_(-bound, bound, generator=_generator(seed, name, row))
        return values
    raise ValueError(f"no rule to initialise parameter {name} of shape {tuple(shape)}")


def _generator(seed: int, name: str, row: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed} {name} {row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
