"""Attention by plain products against the fused kernel, forward and backward, by length and dtype.

    python benchmarks/attention.py

Says where the crossing lies that hpcgeo/models/attention.py holds (PLAIN_UP_TO). The layout is that
of a block: q, k and v are views of one product. Prints the median of the ratios of neighbouring
rounds and their range; above 1 plain products are faster.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hpcgeo.models import attention

DTYPES = (torch.float32, torch.bfloat16)
LENGTHS = (17, 33, 50, 65, 197, 257, 513, 1025)
HEADS, WIDTH, TOKENS = 12, 768, 6400


def seconds(kernel: Callable[..., Tensor], qkv: Tensor, gradient: Tensor) -> float:
    B, T, _ = qkv.shape
    begin = time.perf_counter()
    parts = qkv.view(B, T, HEADS, 3, -1).transpose(1, 2).unbind(3)
    kernel(*parts).transpose(1, 2).reshape(B, T, WIDTH).backward(gradient)
    qkv.grad = None
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    table = Table("dtype", "tokens", "fused / plain", "range", "picked")
    limits = {dtype: attention.PLAIN_UP_TO.get(dtype, 0) for dtype in DTYPES}
    attention.PLAIN_UP_TO.update(dict.fromkeys(DTYPES, 10**9))  # plain whatever the length
    for dtype, limit in limits.items():
        for length in LENGTHS:
            batch = TOKENS // length
            qkv = torch.randn(batch, length, 3 * WIDTH, dtype=dtype, requires_grad=True)
            gradient = torch.randn(batch, length, WIDTH, dtype=dtype)
            ratios = []
            for number in range(options.rounds + 2):  # two warm up
                fused = seconds(F.scaled_dot_product_attention, qkv, gradient)
                plain = seconds(attention.attention, qkv, gradient)
                if number > 1:
                    ratios.append(fused / plain)
            table.add_row(
                str(dtype).removeprefix("torch."),
                str(length),
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                "plain" if length <= limit else "fused",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
