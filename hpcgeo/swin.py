"""Swin transformers as data: what they weigh and cost, in closed form."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict
from pydantic.dataclasses import dataclass

from hpcgeo.errors import InputError
from hpcgeo.stacks import STRICT, Size


@dataclass(frozen=True, config=STRICT)
class SwinArchitecture:
    """A Swin transformer of four stages, each of half the places and twice the width of the one
    before; a row of facts/models.yaml.

    Letters: W width of a stage, M side of a window, H heads.
    """

    family: ClassVar = "swin"
    any_sensor: ClassVar = False

    name: str
    width: Size
    depths: tuple[Size, Size, Size, Size]
    heads: tuple[Size, Size, Size, Size]
    window: Size
    source: str
    version: Literal[1, 2] = 1
    patch: Size = 4
    mlp_ratio: Size = 4
    #: version 2: side of the windows that its bias has learned; 0: `window`
    trained_window: Annotated[int, Strict(), Field(ge=0)] = 0

    def __post_init__(self) -> None:
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"a stage of width {width} has {heads} heads: no multiple")
        if self.trained_window and self.version == 1:
            raise ValueError(f"trained_window {self.trained_window}: of version 2 alone")

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))

    @property
    def stride(self) -> int:
        """Pixels on a side of a place of the last stage."""
        return self.patch * 2 ** (len(self.depths) - 1)

    def num_patches(self, chip: tuple[int, int]) -> int:
        """Return the places of the first stage, for a chip of (height, width) pixels.

        Raises:
            InputError: a side is not a multiple of the last stage's stride.
        """
        height, width = chip
        if height % self.stride or width % self.stride:
            fits = [-(-side // self.stride) * self.stride for side in chip]
            raise InputError(
                f"chip {height} x {width} is no multiple of the {self.stride} pixels of a place of "
                f"the last stage of {self.name}: set data.chip to e.g. {fits}"
            )
        return (height // self.patch) * (width // self.patch)

    def refuse_cut(self, tensor: int) -> None:
        """Refuse tensor parallelism.

        Raises:
            InputError: over several ranks.
        """
        if tensor > 1:
            raise InputError(
                f"parallel.tensor {tensor}: blocks of a Swin are not cut; shard them (FULL_SHARD)"
            )

    def parameters(self, bands: int, classes: int = 0) -> int:
        """Return the parameters: patch embedding, blocks, merges, last norm, and a linear head.

        Args:
            bands: bands of the image.
            classes: outputs of a linear head; 0: none.
        """
        first, last = self.widths[0], self.widths[-1]
        edges = (self.patch**2 * bands + 1) * first + 2 * first + 2 * last + (last + 1) * classes
        merges = sum(8 * W * W + (8 if self.version == 1 else 4) * W for W in self.widths[:-1])
        return (
            edges
            + merges
            + sum(
                depth * self.block_parameters(W, heads)
                for W, heads, depth in zip(self.widths, self.heads, self.depths, strict=True)
            )
        )

    def block_parameters(self, width: int, heads: int) -> int:
        """Return those of a block: two norms, qkv and projection, the bias of offsets, the MLP.

        Version 2: q and v have a bias, k none; a factor of each head; the network of the bias.
        """
        W, hidden = width, self.mlp_ratio * width
        mlp = (W + 1) * hidden + (hidden + 1) * W
        common = 4 * W + 3 * W * W + (W + 1) * W + mlp
        if self.version == 1:
            return common + 3 * W + (2 * self.window - 1) ** 2 * heads
        return common + 2 * W + heads + 3 * 512 + 512 * heads

    def forward_flops(self, bands: int, chip: tuple[int, int], classes: int = 0) -> int:
        """Return the forward FLOPs of one image, with a head as above; windows reach over its edge
        where its side is no multiple of theirs."""
        patches = self.num_patches(chip)
        height, width = (side // self.patch for side in chip)
        total = 2 * patches * self.patch**2 * bands * self.width
        for stage, (W, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            if stage:
                height, width = height // 2, width // 2
                total += 2 * height * width * 2 * W * W
            M = min(self.window, height, width)
            tokens = -(-height // M) * -(-width // M) * M * M
            attention = 8 * tokens * W * W + 4 * tokens * M * M * W
            total += depth * (attention + 4 * self.mlp_ratio * height * width * W * W)
        return total + 2 * self.widths[-1] * classes
