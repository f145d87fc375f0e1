"""Seconds of a unit's arithmetic and of its collectives, from sizes, data sheet and calibration.

Matrix products run in tiles that the compute units of a device share: a last round of tiles takes
as long as a full one. Around them a block writes and reads every number many times over. A ring of
n ranks passes n - 1 parts, each with a latency (Thakur et al. 2005); beyond a node the parts of all
rings share its network. An all-reduce over nodes is a tree.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from hpcgeo.machines import Device, Machine
from hpcgeo.plan.calibration import STREAMED, Calibration
from hpcgeo.stacks import Recompute, Stack

#: Rows and columns of the tile of a matrix product (rocBLAS and cuBLAS for large products).
TILE = (256, 128)
#: Numbers of two bytes that matrix units take at a time: sizes that are no multiple run slower.
ALIGNED = 8
#: How much slower. A vocabulary of 50,257 instead of 50,304 takes GPT-2 a quarter longer, and its
#: last product is three tenths of the FLOPs (nanoGPT, Karpathy 2023): 1.8 for that product.
UNALIGNED = 1.8
#: Bytes of a number around products, of any dtype: those kernels are bound by how many numbers they
#: take. The float32 steps of the Frontier study, to which nothing was fitted, are
#: predicted to 1.02 to 1.13 x from 3B down to Huge so, and to 1.15 to 1.4 x by four bytes a number.
COUNTED_BYTES = 2
#: Bytes that an optimizer step and the casts of a step read and write of a parameter held: AdamW
#: fused 28, float32 to bfloat16 twice 12, gradients to float32 6.
STATE_TRAFFIC = 46


@dataclass(frozen=True)
class Silicon:
    """What computes: a device at a dtype, as calibrated.

    Attributes:
        products: FLOP/s that matrix products reach.
        stream: bytes/s that element-wise kernels reach.
        compute_units: that share the tiles of a product; None: not known.
        passes: see `Calibration.width_passes`.
        scores: see `hpcgeo.plan.protocols`.
        dtype_bytes: of a number.
    """

    products: float
    stream: float
    compute_units: int | None
    passes: float
    scores: int
    dtype_bytes: int


def silicon(
    device: Device, peak: float, figures: Calibration, scores: int, dtype_bytes: int
) -> Silicon:
    """Return a device as it computes."""
    return Silicon(
        products=figures.matmul * peak,
        stream=STREAMED * 1e12 * device.bandwidth,
        compute_units=device.compute_units,
        passes=figures.width_passes,
        scores=scores,
        dtype_bytes=dtype_bytes,
    )


class BlockTimes(NamedTuple):
    """Seconds of one block: forward, backward, and of forward all but products and attention, whose
    results selective recompute keeps; and how much of forward and backward sizes that are not
    aligned are taken to cost."""

    forward: float
    backward: float
    around: float
    unaligned_forward: float
    unaligned_backward: float

    def again(self, recompute: Recompute, depth: int) -> float:
        """Return seconds that backward computes again, the mean over blocks of a stack."""
        if recompute == "none":
            return 0.0
        if recompute == "selective":
            return self.around
        every = 1 if recompute == "full" else int(recompute)
        return self.forward * (depth // every) / depth


@lru_cache(maxsize=65536)
def block_seconds(
    on: Silicon, stack: Stack, tokens: int, sequences: int, tensor: int = 1
) -> BlockTimes:
    """Return seconds of one block, without what is recomputed.

    Args:
        on: the device.
        stack: of blocks.
        tokens: of a sequence.
        sequences: of a micro-batch.
        tensor: ranks that cut each product.
    """
    ahead = back = odd_ahead = odd_back = 0.0
    for rows, inner, columns in stack.products(tokens * sequences, tensor):
        one = _tiled(on, rows, inner, columns)
        two = _tiled(on, rows, columns, inner) + _tiled(on, inner, rows, columns)
        if on.dtype_bytes == 2 and (inner % ALIGNED or columns % ALIGNED):
            odd_ahead += (UNALIGNED - 1) * one
            odd_back += (UNALIGNED - 1) * two
        ahead, back = ahead + one, back + two
    attention = stack.attention_flops(tokens) * sequences / tensor
    numbers = tokens * (on.passes * stack.width + stack.mlp_numbers())
    numbers = (numbers + on.scores * stack.heads * tokens**2) * sequences / tensor
    moved = numbers * COUNTED_BYTES / on.stream
    return BlockTimes(
        forward=(ahead + odd_ahead + attention) / on.products + moved,
        backward=(back + odd_back + 2 * attention) / on.products + 2 * moved,
        around=moved,
        unaligned_forward=odd_ahead / on.products,
        unaligned_backward=odd_back / on.products,
    )


def _tiled(on: Silicon, rows: int, inner: int, columns: int) -> float:
    """Return the FLOPs that a product takes the time of."""
    if not on.compute_units:
        return 2.0 * rows * inner * columns
    return min(
        math.ceil(math.ceil(rows / high) * math.ceil(columns / wide) / on.compute_units)
        * (2.0 * high * wide * inner * on.compute_units)
        for high, wide in (TILE, TILE[::-1])
    )


@dataclass(frozen=True)
class Wires:
    """What carries collectives: a machine's links, as calibrated."""

    per_node: int
    per_package: int
    package_gbs: float
    figures: Calibration

    @classmethod
    def of(cls, where: Machine, device: Device, figures: Calibration) -> "Wires":
        """Return the links of a machine."""
        package, node = where.links.package, where.links.node
        faster = package.value / node.value if package and node else 1.0
        return cls(
            per_node=int(where.devices_per_node.value),
            per_package=device.per_package,
            package_gbs=faster * figures.node_gbs,
            figures=figures,
        )

    def ring(
        self, size: float, ranks: int, inside: int, rings: int = 1, *, strided: bool = False
    ) -> float:
        """Return seconds of an all-gather or reduce-scatter.

        Args:
            size: bytes of the whole.
            ranks: of the group.
            inside: of them in one node.
            rings: groups that share the network of a node.
            strided: its ranks are no neighbours, so never of one package.
        """
        if ranks == 1:
            return 0.0
        part = (ranks - 1) / ranks * size / 1e9
        close = ranks <= self.per_package and not strided
        near = self.package_gbs if close else self.figures.node_gbs
        within = part / near if inside > 1 else 0.0
        if ranks <= inside:
            return within
        away = part * rings / self.figures.out_gbs
        return max(within, away) + (ranks - 1) * self.figures.hop_us * 1e-6

    def tree(self, size: float, ranks: int, inside: int, rings: int) -> float:
        """Return seconds of an all-reduce; arguments as of `ring`."""
        if ranks == 1:
            return 0.0
        nodes = math.ceil(ranks / inside)
        within = 2 * size * (inside - 1) / inside / 1e9 / self.figures.node_gbs
        if nodes == 1:
            return within
        away = 2 * size * rings * (nodes - 1) / nodes / 1e9 / self.figures.out_gbs
        return max(within, away) + 2 * math.log2(nodes) * self.figures.tree_us * 1e-6
