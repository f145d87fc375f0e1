"""DINO: what a moving average says of a large view is learned from other and from small views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from hpcgeo.objectives.describing import forms
from hpcgeo.objectives.objective import IMAGES, Material, Objective, ObjectiveOptions
from hpcgeo.options import Augment, Beta, Range
from hpcgeo.zoo import Forms

if TYPE_CHECKING:
    from torch import nn


#: Large views.
LARGE = 2


class DinoOptions(ObjectiveOptions):
    """Self-distillation (DINO, Caron et al. 2021, arXiv 2104.14294; the centring and the spread of
    features of DINOv2, Oquab et al. 2023, arXiv 2304.07193)."""

    name: Literal["dino"] = "dino"
    momentum: Beta = Field(
        0.996, description="decay of the teacher, a moving average of what is trained"
    )
    prototypes: PositiveInt = Field(4096, description="classes that views are assigned to")
    hidden: PositiveInt = Field(2048, description="units of the layers of the projection")
    features: PositiveInt = Field(256, description="numbers of a view that prototypes are of")
    temperature: float = Field(0.1, gt=0, description="of the student's assignments")
    teacher_temperature: float = Field(0.04, ge=0.02, description="of the teacher's; sharper")
    local_views: NonNegativeInt = Field(6, description="small views of an image, beside two large")
    local_size: PositiveInt = Field(96, description="pixels on a side of a small view")
    local_scale: Range = Field(
        (0.05, 0.4), description="area of a small view, as a fraction; of a large one: data.augment"
    )
    koleo: float = Field(
        0.1, ge=0, description="factor of the loss that spreads features (arXiv 1806.03198)"
    )


class Dino(Objective):
    """Assign views of one image to the same prototypes as a moving average of the model does."""

    title = "assign views as a moving average does (DINO, arXiv 2104.14294; DINOv2's centring)"
    Options = DinoOptions
    backbones = ("swin", "vit")
    data = (IMAGES,)
    options: DinoOptions

    def network(self, material: Material) -> nn.Module:
        from hpcgeo.objectives.dino.network import DINO

        return DINO(material, self.options)

    def forms(self, architecture: Any, bands: int, chip: tuple[int, int]) -> Forms | None:
        """Return those of a ViT; what depends on the batch is left out."""
        if architecture.family != "vit":
            return None
        o, W = self.options, architecture.encoder.width
        views = [chip] * LARGE + [(o.local_size, o.local_size)] * o.local_views
        project = (W, o.hidden, o.hidden, o.features)
        pairs = LARGE * (len(views) - 1)
        return forms(
            *(architecture, bands, views, LARGE, (project,), (project,)),
            beside=o.features * o.prototypes,
            flops=2 * o.features * o.prototypes,
            loss_bytes=4 * o.prototypes * (2 * pairs + LARGE),
        )

    def random_views(
        self, chip: tuple[int, int], augment: Augment
    ) -> Sequence[tuple[tuple[int, int], Augment]]:
        side, scale = self.options.local_size, self.options.local_scale
        small = (side, side), Augment(**dict(augment) | {"scale": scale})
        return [(chip, augment)] * LARGE + [small] * self.options.local_views

    def drawn_as(self, name: str) -> str:
        return name.removeprefix("teacher.")
