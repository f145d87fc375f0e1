"""GFM: SimMIM whose student also learns the features of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from hpcgeo.objectives.objective import Material
from hpcgeo.objectives.simmim.objective import Simmim, SimmimOptions
from hpcgeo.objectives.teacher import TeacherOptions

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

    def drawn_as(self, name: str) -> str:
        return name.removeprefix("teacher.")

    def _taught_by(self, student: Any) -> Any:
        from hpcgeo.zoo import architecture

        name = self.options.teacher.name
        return architecture(name) if name else student
