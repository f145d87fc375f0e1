"""Architectures as data, and in closed form what they weigh and cost: parameters, FLOPs, bytes.

Letters: W width, M hidden width of the MLP, L depth, H heads, p patch, C bands, N patches of a
chip, T tokens of a block (N + 1: the class token), V visible patches, P = p p C values of a patch.
A multiply-add counts 2 FLOPs; only matrix products count. Every form is held against the real
module by a test.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, Strict
from pydantic.dataclasses import dataclass

from hpcgeo.errors import InputError
from hpcgeo.stacks import STRICT, Recompute, Size, Stack
from hpcgeo.swin import SwinArchitecture
from hpcgeo.tables import brief, checked, find_open, own, read

Row = TypeVar("Row")


@dataclass(frozen=True)
class Forms:
    """The closed forms of an objective on one image, from which memory and FLOPs follow.

    Attributes:
        stacks: piles of blocks, each with the tokens that it reads.
        root_parameters: parameters outside of the blocks.
        edge_flops: forward FLOPs outside of the blocks.
        input_flops: those of them whose inputs are pixels, which want no gradient.
        edge_bytes: bytes held outside of the blocks at the loss, of the bytes of a number.
        view_bytes: of all its views, as the model takes them.
        summary: what an image becomes, for people.
        frozen_parameters: of weights that are not trained, beside all the above.
        frozen_flops: forward FLOPs of those.
        replicated: every data-parallel rank has those whole.
    """

    stacks: tuple[tuple[Stack, int], ...]
    root_parameters: int
    edge_flops: int
    input_flops: int
    edge_bytes: Callable[[int], float]
    view_bytes: int
    summary: str
    frozen_parameters: int = 0
    frozen_flops: int = 0
    replicated: bool = False

    @property
    def parameters(self) -> int:
        """Parameters of all that is trained."""
        return self.root_parameters + sum(stack.parameters for stack, _ in self.stacks)

    @property
    def forward_flops(self) -> int:
        """Forward FLOPs of an image, of what is trained."""
        return self.edge_flops + sum(stack.flops(tokens) for stack, tokens in self.stacks)

    @property
    def model_flops(self) -> int:
        """FLOPs of a step on an image: forward, backward twice as much (weights and inputs); of
        what is not trained forward alone."""
        return 3 * self.forward_flops + self.frozen_flops

    def executed_flops(self, recompute: Recompute) -> float:
        """Return the FLOPs of a step on one image, as they are executed.

        Those of the model, less the gradient of the pixels, which nobody wants; and what recompute
        does again: a block's products but the last, whose result backward does not need.
        """
        every = {"none": 0, "selective": 0, "full": 1}.get(str(recompute), recompute)
        again = 0.0
        for stack, tokens in self.stacks:
            blocks = stack.depth // int(every) if every else 0
            last = 2 * tokens * stack.hidden * stack.width
            again += blocks * (stack.flops(tokens) / stack.depth - last)
        return self.model_flops - self.input_flops + again

    def activation_bytes(
        self, dtype_bytes: int, *, recompute: Recompute = "none", tensor: int = 1
    ) -> float:
        """Return the bytes held of one image, the most.

        What all blocks keep, and beside it: at the loss what lies outside of them; with recompute,
        later, one block that is whole again.
        """
        kept = sum(
            stack.activation_bytes(tokens, dtype_bytes, recompute=recompute, tensor=tensor)
            for stack, tokens in self.stacks
        )
        edges = self.edge_bytes(dtype_bytes)
        if recompute == "none":
            return kept + edges
        again = max(stack.block_bytes(T, dtype_bytes, tensor) for stack, T in self.stacks)
        return kept + max(edges, again)


@dataclass(frozen=True, config=STRICT)
class Architecture:
    """A vision transformer and its MAE decoder; a row of facts/models.yaml.

    By default the decoder is that of the MAE paper.
    """

    family: ClassVar = "vit"
    any_sensor: ClassVar = False  #: it reads images of one set of bands, of one size

    name: str
    encoder: Stack
    patch: Size
    source: str
    decoder: Stack = Stack(width=512, depth=8, heads=16, hidden=2048)
    positions: Literal["fixed", "learned"] = "fixed"
    grid: Size | None = None  #: learned positions are those of a grid of so many patches on a side
    antialias: bool = False  #: whether they are filtered where they are brought to a smaller grid
    registers: Annotated[int, Strict(), Field(ge=0)] = 0  #: tokens beside the class token

    def __post_init__(self) -> None:
        if (self.positions == "learned") != (self.grid is not None):
            raise ValueError(
                f"positions {self.positions}, grid {self.grid}: learned positions have a grid, "
                f"fixed ones have none"
            )

    @property
    def stride(self) -> int:
        """Pixels on a side of a place of what it says of an image: its patch."""
        return self.patch

    def num_patches(self, chip: tuple[int, int]) -> int:
        """Return N for a chip of (height, width) pixels.

        Raises:
            InputError: a side is not a multiple of the patch.
        """
        height, width = chip
        if height % self.patch or width % self.patch:
            raise InputError(
                f"chip {height} x {width} is no multiple of the {self.patch}-pixel patch of "
                f"{self.name}: set data.chip to e.g. "
                f"[{-(-height // self.patch) * self.patch}, {-(-width // self.patch) * self.patch}]"
            )
        return (height // self.patch) * (width // self.patch)

    def num_visible(self, chip: tuple[int, int], mask_ratio: float) -> int:
        """Return V = int(N (1 - mask_ratio)), as the MAE paper's code does.

        Raises:
            InputError: nothing would be visible.
        """
        patches = self.num_patches(chip)
        visible = int(patches * (1 - mask_ratio))
        if not visible:
            raise InputError(
                f"objective.mask_ratio {mask_ratio} leaves none of {patches} patches visible: "
                f"lower it or enlarge data.chip"
            )
        return visible

    def refuse_cut(self, tensor: int) -> None:
        """Refuse tensor parallelism over ranks that do not divide heads and hidden widths.

        Raises:
            InputError: the message lists what does.
        """
        _refuse_cut(f"{self.name} and its decoder", (self.encoder, self.decoder), tensor)

    def parameters(self, bands: int, classes: int = 0) -> int:
        """Return the encoder's parameters: patch embedding, learned positions, class token and
        registers, blocks, last norm, head.

        Args:
            bands: bands of the image.
            classes: outputs of a linear head; 0: none.
        """
        W = self.encoder.width
        embedding = (self.patch**2 * bands + 1) * W + (self.grid or 0) ** 2 * W
        head = (W + 1) * classes
        tokens = (1 + self.registers) * W
        return embedding + tokens + self.encoder.parameters + 2 * W + head

    def forward_flops(self, bands: int, chip: tuple[int, int], classes: int = 0) -> int:
        """Return the forward FLOPs of the encoder for one whole image, with a head as above."""
        patches, W = self.num_patches(chip), self.encoder.width
        edges = 2 * patches * self.patch**2 * bands * W + 2 * W * classes
        return edges + self.encoder.flops(patches + 1 + self.registers)

    def activation_bytes(self, chip: tuple[int, int], dtype_bytes: int) -> float:
        """Return the bytes the encoder's blocks keep for the backward of one whole image."""
        tokens = self.num_patches(chip) + 1 + self.registers
        return self.encoder.activation_bytes(tokens, dtype_bytes)


@dataclass(frozen=True, config=STRICT)
class PerceiverArchitecture:
    """A Perceiver: latents that read tokens once, and a stack on them; a row of facts/models.yaml.

    Further letters: C width of a token, n tokens of a sample, N_l latents.
    """

    family: ClassVar = "perceiver"
    any_sensor: ClassVar = True  #: it reads observations of any bands, sizes and dates together

    name: str
    stack: Stack
    latents: Size
    context: Size
    source: str

    def __post_init__(self) -> None:
        if self.stack.width // self.stack.heads % 8:
            raise ValueError(
                f"heads are {self.stack.width // self.stack.heads} wide: the kernel for samples of "
                "any length takes multiples of 8"
            )

    @property
    def parameters(self) -> int:
        """Parameters of the latents, of the block that reads (three norms, q, kv and projection
        with biases, the MLP) and of the stack."""
        W, C = self.stack.width, self.context
        read = 4 * W + 2 * C + (W + 1) * 2 * W + (C + 1) * 2 * W + self.stack.mlp_parameters
        return self.latents * W + read + self.stack.parameters

    def forward_flops(self, lengths: Sequence[int]) -> int:
        """Return the forward FLOPs of one pass; the queries of the latents are computed once.

        Args:
            lengths: tokens of each sample; what is padded counts as its cluster's longest.
        """
        W, C, Q = self.stack.width, self.context, self.latents
        tokens = 4 * C * W + 4 * Q * W  # of each: k and v; its part in attention
        sample = 2 * Q * W * W + self.stack.mlp_flops(Q) + self.stack.flops(Q)
        return 2 * Q * W * W + sum(lengths) * tokens + len(lengths) * sample

    def activation_bytes(
        self,
        lengths: Sequence[int],
        dtype_bytes: int,
        *,
        recompute: Recompute = "none",
        tensor: int = 1,
    ) -> float:
        """Return the bytes that all blocks keep of one packed pass between forward and backward.

        Args:
            lengths: tokens of each sample.
        """
        Q, S = self.latents, len(lengths)
        stack = S * self.stack.activation_bytes(Q, dtype_bytes, recompute=recompute, tensor=tensor)
        return stack + self._read_bytes(sum(lengths), S, dtype_bytes, recompute, tensor)

    def _read_bytes(
        self, tokens: int, samples: int, dtype_bytes: int, recompute: Recompute, tensor: int
    ) -> float:
        """Return the bytes that the block which reads keeps; its latents are parameters.

        The tokens, with what their norm gives and k and v; the queries of all samples, with their
        norm; of each sample the output of attention with its row sums, put together with the
        others, the residual, its norm, and in the MLP the input and output of the activation.
        """
        W, M, C, Q = self.stack.width, self.stack.hidden, self.context, self.latents
        gates = 2 if self.stack.mlp == "gated" else 1
        entry = tokens * C * dtype_bytes
        if recompute in ("full", 1):
            return entry
        sums = 4 * self.stack.heads * Q * samples / tensor
        if recompute == "selective":
            shared = 2 * tokens * W + Q * W + samples * Q * (W + gates * M)
            return entry + sums + (shared / tensor + samples * Q * 2 * W) * dtype_bytes
        shared = 2 * tokens * W + Q * W + samples * Q * (2 * W + gates * 2 * M)
        whole = tokens * C + Q * W + samples * Q * 2 * W
        statistics = 8 * (tokens + Q + samples * Q)
        return entry + sums + (shared / tensor + whole) * dtype_bytes + statistics

    def refuse_cut(self, tensor: int) -> None:
        """Refuse tensor parallelism over ranks that do not divide heads and hidden width.

        Raises:
            InputError: the message lists what does.
        """
        _refuse_cut(self.name, (self.stack,), tensor)


def _refuse_cut(name: str, stacks: Sequence[Stack], tensor: int) -> None:
    common = math.gcd(*(size for stack in stacks for size in (stack.heads, stack.hidden)))
    if common % tensor:
        fits = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        raise InputError(
            f"parallel.tensor {tensor} does not divide the heads and hidden widths of {name}: "
            f"choose one of {fits}"
        )


@cache
def models() -> dict[str, Architecture]:
    """Return every architecture by name."""
    rows = read("models")["vit"]
    return {name: _checked(Architecture, name, row, "models.yaml") for name, row in rows.items()}


@cache
def perceivers() -> dict[str, PerceiverArchitecture]:
    """Return every Perceiver by name."""
    form, rows = PerceiverArchitecture, read("models")["perceiver"]
    return {name: _checked(form, name, row, "models.yaml") for name, row in rows.items()}


@cache
def swins() -> dict[str, SwinArchitecture]:
    """Return every Swin by name."""
    form, rows = SwinArchitecture, read("models")["swin"]
    return {name: _checked(form, name, row, "models.yaml") for name, row in rows.items()}


def architectures() -> dict[str, Any]:
    """Return every architecture of ours by name."""
    return {**models(), **swins(), **perceivers()}


def architecture(name: str) -> Any:
    """Return any architecture: ours, one of a YAML file, or one that an installed package adds.

    A YAML file of the user's own (*.yaml) has the keys of a row of facts/models.yaml, and `family`.
    An entry point of the group `hpcgeo.models` is an architecture: `name`, `source`, `family`
    (of its backbone), `any_sensor`, `num_patches` and `refuse_cut`.

    Raises:
        InputError: nobody has that name (the message lists the known ones), or the file is none.
    """
    if name.endswith((".yaml", ".yml")):
        return _own(Path(name))
    try:
        return find_open(architectures(), "hpcgeo.models", name, "model")
    except InputError as error:
        raise InputError(f"{error}; or give a YAML file (*.yaml) of your own") from None


@cache
def _own(path: Path) -> Any:
    families: dict[str, type] = {
        one.family: one for one in (Architecture, SwinArchitecture, PerceiverArchitecture)
    }
    row = own(path, "model")
    family = row.pop("family", None) if isinstance(row, dict) else None
    if family not in families:
        raise InputError(f"model {path}: family {brief(family)}: choose {' or '.join(families)}")
    return _checked(families[family], path.stem, row, f"model {path}")


def _checked(form: type[Row], name: str, row: dict[str, Any], where: str) -> Row:
    return checked(form, {"name": name} | row, where)
