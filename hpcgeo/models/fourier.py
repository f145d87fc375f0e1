"""Fourier encodings of uncertain positions (GPNA, equations 1 to 4).

| letter | meaning | here |
|---|---|---|
| x, Delta x | position in R^d; how far it may be off | `x`, `half_width` |
| k_1 ... k_(n/2) | frequency vectors in the first quadrant, cycles per unit of x | `frequencies` |
| gamma(x) | sines, then cosines | what `encode` returns |

K = n / 2 frequencies, d dimensions.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

#: C(b) = E[cos(b u)] of the spreads that have a name; all are even, so E[sin(b u)] = 0. Uniform on
#: [x - h, x + h] (eq. 3), triangular on the same, normal with standard deviation h.
CHARACTERISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda b: torch.sinc(b / math.pi),
    "triangular": lambda b: torch.sinc(b / (2 * math.pi)).square(),
    "normal": lambda b: torch.exp(-b.square() / 2),
}


@lru_cache(maxsize=32)
def frequencies(dims: int, count: int, lowest: float, highest: float) -> Tensor:
    """Return frequency vectors (count, dims) of the closed first quadrant, float64, on the CPU.

    Lengths are evenly spaced on a logarithmic axis. Directions take turns: all axes, all diagonals
    and the ones between (5 in two dimensions, 19 in three), so each meets every scale.

    Args:
        dims: of the position.
        count: number of vectors.
        lowest, highest: length of the first and of the last, cycles per unit of the position.

    Raises:
        ValueError: not 0 < lowest < highest.
    """
    if not 0 < lowest < highest:
        raise ValueError(f"frequencies from {lowest} to {highest}: they rise, from above zero")
    # The CPU is named, since models are built where the meta device is the default.
    steps = torch.linspace(0, 1, count, dtype=torch.float64, device="cpu")
    lengths = lowest * (highest / lowest) ** steps  # (count)
    corners = [corner for corner in product((0, 1, 2), repeat=dims) if 2 in corner]
    directions = torch.tensor(corners, dtype=torch.float64, device="cpu")
    directions = directions / directions.norm(dim=1, keepdim=True)
    # Neighbours in length point far apart: a golden step visits every direction once a round.
    step = round(len(corners) / 1.618)
    while math.gcd(step, len(corners)) > 1:
        step += 1
    turns = torch.arange(count, device="cpu") * step % len(corners)
    return lengths[:, None] * directions[turns]


def encode(x: Tensor, half_width: Tensor, frequencies: Tensor, density: str = "uniform") -> Tensor:
    """Return the encoding (..., 2 K) of positions, averaged over their uncertainty, in float32.

    A half-width of zero gives equation 4 (1 in one dimension). What is not finite, in either, is
    unknown: frequencies that ask for it are zero, those across it remain.

    Args:
        x: positions (..., d).
        half_width: (..., d), in the unit of x. One for many positions, as (d), costs least.
        frequencies: vectors (K, d) without negative components, float64.
        density: how the true position is distributed around x: `uniform` over the box,
            `triangular`, `normal` (the half-width is the standard deviation), or a density in u on
            [-1, 1] such as `1 + u`, the position being x + half_width u.

    Raises:
        InputError: the density is neither a name nor a density.
    """
    x, half_width = x.double(), half_width.double().abs()
    known = x.isfinite() & half_width.isfinite()  # (..., d)
    angle = 2 * math.pi * (x.where(x.isfinite(), 0.0) @ frequencies.T)  # (..., K)
    sine, cosine = angle.sin(), angle.cos()
    width = 2 * math.pi * half_width.where(half_width.isfinite(), 0.0)
    for axis, k in enumerate(frequencies.unbind(1)):  # independent axes: a product of averages
        b = width[..., axis, None] * k  # (..., K)
        if density in CHARACTERISTICS:
            C = CHARACTERISTICS[density](b)
            sine, cosine = sine * C, cosine * C
        else:
            # sympy is slow to import, and few runs need it
            from hpcgeo.models.derivations import average

            C, S = average(density)(b)
            sine, cosine = sine * C + cosine * S, cosine * C - sine * S
    heard = (~known).double() @ frequencies.T == 0
    return torch.cat([sine * heard, cosine * heard], dim=-1).float()
