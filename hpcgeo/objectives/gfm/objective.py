"""GFM: SimMIM whose student also learns the features of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from hpcgeo.objectives.objective import Material
from hpcgeo.objectives.simmim.objective import Simmim, SimmimOptions
from hpcgeo.objectives.teacher import TeacherOptions
from hpcgeo.zoo import Forms

if TYPE_CHECKING:
    from torch import nn


class GfmOptions(SimmimOptions):
    """GFM (Mendieta et al. 2023, arXiv 2302.04476)."""

    name: Literal["gfm"] = "gfm"  # type: ignore[assignment]
    alpha: float = Field(1.0, ge=0, description="factor of the loss of features")
    stage: PositiveInt | None = Field(
        None,
        description="the stage of a Swin, or block of a ViT, at which the student learns them; by "
        "default a Swin's third, a ViT's last",
    )
    teacher: TeacherOptions


class Gfm(Simmim):
    """Predict the pixels of hidden cells, and what a teacher that sees all says of the image."""

    title = (
        "predict the pixels of hidden cells, and a teacher's features of the whole image "
        "(Mendieta et al. 2023, arXiv 2302.04476)"
    )
    Options = GfmOptions
    options: GfmOptions

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.gfm.network import GFM

        return GFM(material, self._taught_by(material.architecture), self.options)

    def sources(self, architecture: Any) -> Mapping[str, tuple[Path, Any]]:
        weights = self.options.teacher.weights
        return {"teacher.": (weights, self._taught_by(architecture))} if weights else {}

    def forms(self, architecture: Any, bands: int, chip: tuple[int, int]) -> Forms | None:
        """Return those of SimMIM and of the teacher; None: student or teacher is no ViT.

        The teacher reads once all of the student is held: beside that, in its MLP, what enters it
        and the norm before, and both sides of the activation.
        """
        plain, theirs = super().forms(architecture, bands, chip), self._taught_by(architecture)
        if plain is None or theirs.family != "vit":
            return None
        told = self.options.teacher
        size = (told.size, told.size) if told.size else chip
        stack, W = theirs.encoder, architecture.encoder.width
        N, P = architecture.num_patches(chip), architecture.patch**2 * bands
        T = theirs.num_patches(size) + 1 + theirs.registers
        blocks = told.stage or stack.depth
        flops = 2 * theirs.num_patches(size) * theirs.patch**2 * bands * stack.width
        flops += stack.flops(T) // stack.depth * blocks
        resized = 4 * bands * size[0] * size[1] if told.size else 0

        def edge_bytes(dtype_bytes: int) -> float:
            kept = plain.edge_bytes(dtype_bytes) - 2 * 4 * N * P
            reading = dtype_bytes * T * 2 * (stack.width + stack.hidden)
            return max(plain.edge_bytes(dtype_bytes), kept + resized + reading)

        return replace(
            plain,
            root_parameters=plain.root_parameters + (W + 1) * stack.width,
            edge_flops=plain.edge_flops + 2 * W * stack.width,
            edge_bytes=edge_bytes,
            summary=f"{plain.summary}; {T} tokens of the teacher {theirs.name}",
            frozen_parameters=theirs.parameters(bands),
            frozen_flops=flops,
            replicated=told.replicate,
        )

    def drawn_as(self, name: str) -> str:
        return name.removeprefix("teacher.")

    def _taught_by(self, student: Any) -> Any:
        from hpcgeo.zoo import architecture

        name = self.options.teacher.name
        return architecture(name) if name else student
