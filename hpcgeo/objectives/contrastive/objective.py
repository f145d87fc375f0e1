"""Contrastive learning: which view of all in a batch shows the same image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from hpcgeo.objectives.describing import forms
from hpcgeo.objectives.objective import IMAGES, Material, Objective, ObjectiveOptions
from hpcgeo.options import Augment, Beta
from hpcgeo.zoo import Forms

if TYPE_CHECKING:
    from torch import nn


class ContrastiveOptions(ObjectiveOptions):
    """Contrastive learning (MoCo v3, Chen et al. 2021, arXiv 2104.02057)."""

    name: Literal["contrastive"] = "contrastive"
    momentum: Beta = Field(
        0.99, description="decay of the teacher, a moving average of what is trained"
    )
    temperature: float = Field(0.2, gt=0, description="of the cosines; smaller is stricter")
    hidden: PositiveInt = Field(4096, description="units of the layers of projection and predictor")
    features: PositiveInt = Field(256, description="numbers of a view that are compared")


class Contrastive(Objective):
    """Tell by one view of an image which of all other views is of it."""

    title = "tell views of one image from those of all others (MoCo v3, arXiv 2104.02057)"
    Options = ContrastiveOptions
    backbones = ("swin", "vit")
    data = (IMAGES,)
    options: ContrastiveOptions

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.contrastive.network import MoCo

        return MoCo(material, self.options)

    def forms(self, architecture: Any, bands: int, chip: tuple[int, int]) -> Forms | None:
        """Return those of a ViT; products of views with views depend on the batch, and are left
        out."""
        if architecture.family != "vit":
            return None
        H, F, W = self.options.hidden, self.options.features, architecture.encoder.width
        project, predict = (W, H, H, F), (F, H, F)
        return forms(architecture, bands, [chip] * 2, 2, (project, predict), (project,))

    def random_views(
        self, chip: tuple[int, int], augment: Augment
    ) -> Sequence[tuple[tuple[int, int], Augment]]:
        return [(chip, augment)] * 2

    def drawn_as(self, name: str) -> str:
        return name.removeprefix("teacher.")
