"""A backbone that is read and never trained: one with weights of its own, or a moving average.

Letters: B batch, C width of its features.
"""

from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpcgeo.errors import InputError
from hpcgeo.models.backbone import backbone


class Teacher(nn.Module):
    """The features that a backbone has of whole images, without gradients.

    Attributes:
        width: of the features, C.
    """

    def __init__(
        self, architecture: Any, bands: int, size: int | None = None, stage: int | None = None
    ) -> None:
        """Make it.

        Args:
            architecture: of the backbone.
            bands: of the images.
            size: pixels on a side to which they are resized; None: as they are.
            stage: whose places its features are the mean of; None: the backbone's `told`.

        Raises:
            InputError: the backbone has no such stage, or does not fit images of that size.
        """
        super().__init__()
        if size is not None:
            architecture.num_patches((size, size))
        self.backbone = backbone(architecture, (), bands, "uniform")
        self.size, self.stage = size, stage_of(self.backbone, stage, "objective.teacher.stage")
        self.width = self.backbone.widths[self.stage - 1]
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, C) of images (B, bands, height, width)."""
        if self.size is not None:
            size = self.size, self.size
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return next(islice(self.backbone.places(images), self.stage - 1, None)).mean((1, 2))


def stage_of(backbone: Any, stage: int | None, option: str) -> int:
    """Return the number of a stage of a backbone, from 1; None: its `told`.

    Raises:
        InputError: it has not so many.
    """
    count = len(backbone.widths)
    if stage is not None and stage > count:
        raise InputError(f"{option} {stage}: the backbone has {count}: choose 1 to {count}")
    return stage or backbone.told


@torch.no_grad()
def follow(teacher: nn.Module, student: Any, momentum: float) -> None:
    """Move the weights of a moving average towards those of the same name; shard by shard."""
    own = {f"backbone.{name}": value for name, value in student.backbone.named_parameters()}
    own |= dict(student.named_parameters())
    for name, value in teacher.named_parameters():
        value.lerp_(own[name], 1 - momentum)
